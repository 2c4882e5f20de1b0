"""Every provider setting of an agent changes what is sent: observed at the simulators' sockets, through the real SDKs.

The list of settings is the schema's own, so that a new one fails here until somebody shows its effect.
"""

from __future__ import annotations

import asyncio
import dataclasses
import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from bench.sim.azure import AzureSim
from bench.sim.openai import Flavour, OpenAiSim
from providers.base import PCMU_8K
from providers.observer import Unobserved
from server.agent.settings import AgentSettings, LlmSettings, SttSettings, TtsSettings
from server.call.clips import speech_request
from server.call.recogniser import open_stream, transcriber_config
from server.catalogue import Catalogue
from server.config import Config
from server.dialogue.conversation import Conversation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

KEY = "sim-key-0123"
GROUPS = {"stt": SttSettings, "llm": LlmSettings, "tts": TtsSettings}
BASE: dict[str, dict[str, Any]] = {
    "stt": {"provider": "azure"},
    "llm": {"provider": "openai"},
    "tts": {"provider": "azure"},
}
# Values that a type alone does not suggest; the rest are derived from the schema.
OTHERS: dict[str, Any] = {
    "stt.provider": "openai-stt",
    "stt.model": "0f7ab9c2-custom-endpoint",
    "stt.language": "es-ES",
    "stt.phrases": ["Harbour Dental"],
    "stt.fallbacks": ["groq-stt"],
    "llm.provider": "groq",
    "llm.model": "gpt-4.1-mini",
    "llm.fallbacks": ["groq/openai/gpt-oss-120b"],
    "tts.provider": "openai-tts",
    "tts.voice": "en-US-GuyNeural",
    "tts.style": "cheerful",
    "tts.lexicon_url": "https://cdn.example.com/words.xml",
    "tts.fallbacks": ["openai-tts/nova"],
}
# What must be set beside it for a setting to mean anything.
BESIDE: dict[str, dict[str, Any]] = {
    "llm.reasoning_effort": {"llm": {"provider": "groq"}},
    "tts.style_degree": {"tts": {"style": "cheerful", "voice": "en-US-JennyNeural"}},
    "tts.style": {"tts": {"voice": "en-US-JennyNeural"}},
}


def names() -> list[str]:
    return [f"{group}.{one.name}" for group, kind in GROUPS.items() for one in dataclasses.fields(kind)]


def other_value(name: str) -> Any:
    """A valid value that is not the default."""
    if name in OTHERS:
        return OTHERS[name]
    group, _, key = name.partition(".")
    spec = next(one for one in dataclasses.fields(GROUPS[group]) if one.name == key)
    hint = typing.get_type_hints(GROUPS[group])[key]
    if typing.get_origin(hint) is Literal:
        return next(one for one in reversed(typing.get_args(hint)) if one != spec.default)
    low, high = spec.metadata["low"], spec.metadata["high"]
    middle = (low + high) / 2
    value = round(middle, 2) if hint is float else int(middle)
    return value if value != spec.default else high


def settings_with(name: str, value: Any = None) -> AgentSettings:
    raw: dict[str, Any] = {group: dict(values) for group, values in BASE.items()}
    for group, values in BESIDE.get(name, {}).items():
        raw[group] |= values
    if value is not None:
        group, _, key = name.partition(".")
        raw[group][key] = value
    return AgentSettings.parse(raw)


class Rig:
    """The three services, and a catalogue of a process that has accounts at all of them."""

    def __init__(self, azure: AzureSim, groq: OpenAiSim, openai: OpenAiSim) -> None:
        self.azure, self.groq, self.openai = azure, groq, openai
        env = {
            "AZURE_SPEECH_KEY": KEY, "AZURE_SPEECH_ENDPOINT": azure.host,
            "GROQ_API_KEY": KEY, "GROQ_BASE_URL": groq.base_url,
            "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": openai.base_url,
        }  # fmt: skip
        self.catalogue = Catalogue(Config.from_env(env).providers, Unobserved())

    def chat_requests(self, route: str) -> list[dict[str, Any]]:
        return [
            {"service": name, "path": seen.path, "body": seen.body}
            for name, sim in (("groq", self.groq), ("openai", self.openai))
            for seen in sim.log.of(route)
        ]


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with (
        AzureSim(keys=frozenset({KEY})) as azure,
        OpenAiSim(Flavour.GROQ, keys=(KEY,)) as groq,
        OpenAiSim(Flavour.OPENAI, keys=(KEY,)) as openai,
    ):
        made = Rig(azure, groq, openai)
        try:
            yield made
        finally:
            await made.catalogue.aclose()


async def hear(made: Rig, settings: AgentSettings, *, is_dead: bool) -> Any:
    """Open what the agent listens with, say a little, and tell what each service was asked."""
    ears = made.catalogue.for_call(settings).ears
    ear = ears[-1] if is_dead else ears[0]
    fmt = PCMU_8K if PCMU_8K in ear.provider.audio_formats else ear.provider.audio_formats[0]
    stream = (await open_stream(ear, transcriber_config(settings, fmt))).stream
    stream.begin_nowait(1, 0)
    loud = bytes(range(256)) * 40
    stream.feed_nowait(loud)
    stream.commit_nowait(1)

    def is_asked() -> bool:
        return bool(made.azure.stt_turns or made.chat_requests("transcription"))

    async with asyncio.timeout(10):
        while not is_asked():
            await asyncio.sleep(0)
    await stream.aclose()
    turns = made.azure.stt_turns
    azure = [(one.connection.path, one.connection.query, one.context, one.format) for one in turns]
    return azure, [(one["service"], one["path"]) for one in made.chat_requests("transcription")]


async def think(made: Rig, settings: AgentSettings, *, is_dead: bool) -> Any:
    if is_dead:
        made.openai.inject("unauthorized", times=None)
    talk = Conversation(settings)
    async for _ in made.catalogue.for_call(settings).model.stream(talk.request("+15550000001")):
        pass
    return made.chat_requests("chat")


async def speak(made: Rig, settings: AgentSettings, *, is_dead: bool) -> Any:
    if is_dead:
        made.azure.keys = frozenset({"another-key"})
    request = speech_request(settings, "We are open from nine to six.", "+15550000001", PCMU_8K)
    async for _ in made.catalogue.for_call(settings).synthesizer.stream(request):
        pass
    return [(one.ssml, one.text) for one in made.azure.tts_turns], made.chat_requests("speech")


ASK: dict[str, Callable[..., Awaitable[Any]]] = {"stt": hear, "llm": think, "tts": speak}


async def sent(name: str, settings: AgentSettings) -> Any:
    """What the services were asked, with a dead first choice where the setting is about that."""
    async with rig() as made:
        group = name.partition(".")[0]
        is_dead = name.endswith(".fallbacks")
        try:
            return repr(await ASK[group](made, settings, is_dead=is_dead))
        except Exception as error:
            if not is_dead:
                raise
            return f"nobody: {type(error).__name__}"


@pytest.mark.parametrize("name", names())
def test_changing_it_changes_what_is_sent(name: str) -> None:
    async def body() -> None:
        before = await sent(name, settings_with(name))
        after = await sent(name, settings_with(name, other_value(name)))
        again = await sent(name, settings_with(name))
        assert before == again, "the same settings are sent differently: the comparison says nothing"
        assert before != after

    asyncio.run(body())
