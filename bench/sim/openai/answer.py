"""What the simulated model says, before it becomes a stream: answers, and the minds that find them.

A `Brain` sees the request as it came over the wire and nothing else. `ScriptedBrain` is for load: its replies prove
what the model saw (docs/tone-code.md). `FixtureBrain` is for tests. The receptionist is in clinic.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

Json = Mapping[str, Any]

_TOKEN = re.compile(r"\s*\w{1,6}|\s*[^\w\s]|\s+")
CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class ToolUse:
    """`arguments` is JSON text, or not, as models are."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`finish` empty: stop, or tool_calls where there are calls. `reasoning` is shown by Groq only."""

    text: str = ""
    calls: tuple[ToolUse, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    finish: str = ""


class Brain(Protocol):
    def answer(self, request: Json) -> Answer:
        """The answer to a checked request body. Neither waits nor fails."""


def tokens(text: str) -> list[str]:
    """Pieces of text of about the size of a model's tokens; joined they are the text."""
    return _TOKEN.findall(text)


def text_of(message: Json) -> str:
    """The text of a message whose content is a string, null or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def count_tokens(messages: Sequence[Json], tools: Sequence[Json] = ()) -> int:
    """About what a tokenizer would say: four characters a token, four tokens a message."""
    chars = sum(len(text_of(one)) + len(str(one.get("tool_calls") or "")) for one in messages)
    return 4 * len(messages) + (chars + sum(len(str(tool)) for tool in tools)) // CHARS_PER_TOKEN


def within_limits(answer: Answer, request: Json) -> Answer:
    """`answer` as the request's `stop` and longest length leave it."""
    stops = request.get("stop") or ()
    text = answer.text
    for stop in (stops,) if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    pieces = tokens(text)
    if limit is not None and len(pieces) > limit:
        return replace(answer, text="".join(pieces[:limit]), calls=(), finish="length")
    return replace(answer, text=text)


class ScriptedBrain:
    """`code CALL TURN HASH, …` and ten words, as docs/tone-code.md says.

    A service is told no caller: CALL is taken from the words `turn N of CALLER` of the last user message.
    """

    __slots__ = ()

    TAIL = "this is the scripted reply that the generator takes apart"
    _HEARD = re.compile(r"turn (\d+) of (\S*)")

    def answer(self, request: Json) -> Answer:
        users = [text_of(one) for one in request["messages"] if one["role"] == "user"]
        heard = users[-1] if users else ""
        found = self._HEARD.findall(heard)
        turn = int(found[-1][0]) if found else len(users)
        digits = re.sub(r"\D", "", found[-1][1])[-4:] if found else ""
        return Answer(text=f"code {int(digits or 0)} {turn % 256} {crc16(heard.encode())}, {self.TAIL}")


class FixtureBrain:
    """Pairs of a pattern and an answer, by the last message's text; the first that is found decides."""

    __slots__ = ("_fixtures", "_otherwise")

    def __init__(self, fixtures: Mapping[str, Answer | str], otherwise: Answer | str = "I see.") -> None:
        self._fixtures = [(re.compile(pattern, re.IGNORECASE), _answer(one)) for pattern, one in fixtures.items()]
        self._otherwise = _answer(otherwise)

    def answer(self, request: Json) -> Answer:
        heard = text_of(request["messages"][-1])
        for pattern, answer in self._fixtures:
            if pattern.search(heard):
                return answer
        return self._otherwise


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF; 0x29B1 for b"123456789"."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc


def _answer(one: Answer | str) -> Answer:
    return Answer(text=one) if isinstance(one, str) else one
