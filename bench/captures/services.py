"""The simulated services behind the server, in this process: Azure hears and speaks, Groq thinks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from bench.sim.azure import AzureSim
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.openai import Flavour, OpenAiSim
from bench.sim.openai.answer import Answer, ToolUse, text_of
from bench.sim.openai.fault import Fault
from bench.sim.profile import PROFILES, Delay
from bench.sim.sound import Clip

KEY = "sim-key-of-captures"
PROFILE = replace(PROFILES["azure-groq"], revised_share=0.0)
"""Delays of real services; interims as the finals will be, where a situation does not want it otherwise."""


class Brain:
    """Short answers by a word of what was heard; a tool for one word. `on_answer` is told what each request ends in."""

    def __init__(self, answers: Mapping[str, str], tools: Mapping[str, str]) -> None:
        self.on_answer: Callable[[str], None] = lambda heard: None
        self._answers = answers
        self._tools = tools

    def answer(self, request: Mapping[str, Any]) -> Answer:
        heard = text_of(request["messages"][-1]).lower()
        self.on_answer(heard)
        for word, tool in self._tools.items():
            if word in heard:
                return Answer(calls=(ToolUse(tool, json.dumps({"item": word})),))
        return Answer(text=next((text for word, text in self._answers.items() if word in heard), "I see, thank you."))


@dataclass(frozen=True, slots=True)
class Services:
    """`env` leads a server to them."""

    speech: AzureSim
    model: OpenAiSim
    brain: Brain

    @property
    def env(self) -> dict[str, str]:
        return {
            "AZURE_SPEECH_KEY": KEY,
            "AZURE_SPEECH_ENDPOINT": self.speech.host,
            "GROQ_API_KEY": KEY,
            "GROQ_BASE_URL": self.model.base_url,
        }

    def reset(self) -> None:
        """As they were at the start: no faults, nothing revised."""
        self.speech.faults.clear()
        self.model.faults.clear()
        self.brain.on_answer = lambda heard: None
        self.speech.profile = PROFILE

    def doubt_words(self, final_ms: float) -> None:
        """Every word is heard otherwise at first, and finals come `final_ms` late; in calls that begin from now on."""
        self.speech.profile = replace(PROFILE, revised_share=1.0, commit=Delay(final_ms, final_ms))

    def silence_model(self, *, times: int) -> None:
        """The next requests are taken and get no word."""
        self.model.faults.add(Fault(kind="silence", times=times))

    def slow_model(self, delay_ms: float, *, times: int) -> None:
        """The next requests get their first word so much later."""
        self.model.faults.add(Fault(kind="slow_first_token", delay_ms=delay_ms, times=times))

    def lose_model(self) -> None:
        """Every request from now on loses its connection."""
        self.model.faults.add(Fault(kind="close", times=None))


@asynccontextmanager
async def serving(
    said: Sequence[Clip], answers: Mapping[str, str], tools: Mapping[str, str]
) -> AsyncIterator[Services]:
    """Bring them up; they know the words of `said`."""
    book = Clipbook(BookClip.of_clip(f"clip {no}", clip) for no, clip in enumerate(said))
    brain = Brain(answers, tools)
    async with (
        AzureSim(book=book, profile=PROFILE, keys=frozenset({KEY})) as speech,
        OpenAiSim(Flavour.GROQ, brain=brain, profile=PROFILE, keys=(KEY,)) as model,
    ):
        yield Services(speech, model, brain)
