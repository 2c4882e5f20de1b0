"""A receptionist for the dental practice of agents/clinic_en.yaml, as a language model that knows only its messages.

Each request is answered by going through what the caller said from the first message on; no call is remembered between
requests, so a prompt that lost a turn gets the answer that a model would give to it. What it knows is in
bench/sim/data/clinic_en.yaml. It shares nothing with the product's own dialogue engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.sim.openai.answer import Answer, Json, ToolUse, text_of

DATA = Path(__file__).parent.parent / "data" / "clinic_en.yaml"


@dataclass(slots=True)
class _Talk:
    """Where the conversation is. `asked`: the open question, a slot's name or `confirm`."""

    booking: bool = False
    asked: str = ""
    said: dict[str, str] = field(default_factory=dict)
    lost: int = 0


class ClinicBrain:
    """The receptionist. Calls the tool of a topic where the request offers it."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = _load()

    def answer(self, request: Json) -> Answer:
        messages = request["messages"]
        if messages[-1]["role"] == "tool":
            return Answer()  # what was to be said was said with the call
        talk, answer = _Talk(), Answer(text=self._data["lost"][0])
        for message in messages:
            if message["role"] == "user":
                answer = self._hear(text_of(message).lower().strip(), talk)
        offered = {tool["function"]["name"] for tool in request.get("tools") or ()}
        if request.get("tool_choice") == "none":
            offered = set()
        calls = tuple(call for call in answer.calls if call.name in offered)
        return Answer(text=answer.text, calls=calls, reasoning=answer.reasoning)

    def _hear(self, heard: str, talk: _Talk) -> Answer:
        answer = self._book(heard, talk) if talk.booking else None
        answer = answer or self._topic(heard)
        if answer is None and not talk.booking and _has(heard, self._data["booking"]["patterns"]):
            talk.booking, talk.said = True, {}
            self._take(heard, talk)
            answer = self._next(talk)
        if answer is None and _has(heard, self._data["thanks"]["patterns"]):
            return _say(self._data["thanks"]["say"], "greets")
        if answer is None:
            talk.lost += 1
            lost = self._data["lost"]
            return _say(lost[min(talk.lost, len(lost)) - 1], "is not understood")
        talk.lost = 0
        if talk.booking and talk.asked and talk.asked not in answer.reasoning:
            # A question in between: answered, then back to the booking.
            return Answer(text=f"{answer.text} {self._question(talk, again=False)}", reasoning=answer.reasoning)
        return answer

    def _topic(self, heard: str) -> Answer | None:
        for topic in self._data["topics"]:
            if _has(heard, topic["patterns"]):
                calls = (ToolUse(topic["tool"]),) if "tool" in topic else ()
                return Answer(text=topic["say"], calls=calls, reasoning=f"The caller asks about {topic['name']}.")
        return None

    def _book(self, heard: str, talk: _Talk) -> Answer | None:
        booking = self._data["booking"]
        if _has(heard, self._data["forget"]):
            talk.booking, talk.asked = False, ""
            return _say(booking["dropped"], "gives up")
        if talk.asked == "confirm":
            if _has(heard, self._data["disagrees"]):
                for name in ("day", "time"):
                    talk.said.pop(name, None)
                talk.asked = "day"
                self._take(heard, talk, bare=False)
                return self._next(talk) if "day" in talk.said else _say(booking["change"], "changes the day")
            if _has(heard, self._data["agrees"]):
                talk.booking, talk.asked = False, ""
                return _say(booking["done"].format(**talk.said), "agrees")
        topic = self._topic(heard)
        if topic is not None and topic.calls:
            talk.booking, talk.asked = False, ""
            return topic
        before = dict(talk.said)
        self._take(heard, talk, bare=topic is None)
        if talk.said != before:
            return self._next(talk)
        return topic or _say(self._question(talk, again=True), talk.asked)

    def _take(self, heard: str, talk: _Talk, *, bare: bool = True) -> None:
        """Note what `heard` says of the slots. `bare`: all of it may be the answer to an open question."""
        for slot in self._data["booking"]["slots"]:
            name, value = slot["name"], None
            if "values" in slot:
                value = next((one for one, pattern in slot["values"].items() if re.search(pattern, heard)), None)
            elif (found := re.search(slot["pattern"], heard)) is not None:
                value = found[1]
            elif slot.get("whole") and talk.asked == name and bare and len(heard.split()) <= 4:
                value = heard
            if value is None or (slot.get("whole") and talk.asked != name and "name" not in heard):
                continue
            value = value.strip(" .,!?")
            talk.said[name] = value.title() if name in ("day", "name") else value

    def _next(self, talk: _Talk) -> Answer:
        slots = self._data["booking"]["slots"]
        talk.asked = next((slot["name"] for slot in slots if slot["name"] not in talk.said), "confirm")
        return _say(self._question(talk, again=False), talk.asked)

    def _question(self, talk: _Talk, *, again: bool) -> str:
        booking = self._data["booking"]
        if talk.asked == "confirm":
            return str(booking["confirm_again" if again else "confirm"].format(**talk.said))
        slot = next(slot for slot in booking["slots"] if slot["name"] == talk.asked)
        return str(slot["again" if again else "ask"])


def _say(text: str, why: str) -> Answer:
    return Answer(text=text, reasoning=f"The caller's state: {why}.")


def _has(heard: str, patterns: list[str]) -> bool:
    return any(re.search(pattern, heard) for pattern in patterns)


@cache
def _load() -> Any:
    return yaml.safe_load(DATA.read_text())
