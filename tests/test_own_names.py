"""The agent's own model and voice reach the provider that the agent names and nobody else, by every pair of services.

Through the real SDKs against the simulators, which refuse names that are not theirs as the vendors do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any

import pytest

from bench.sim.azure import AzureSim
from bench.sim.openai import Flavour, OpenAiSim
from bench.sim.openai.flavour import Model
from providers.base import PCMU_8K, AudioChunk, Final, TextDelta
from providers.observer import Unobserved
from server.agent.choice import Choice, choices
from server.agent.settings import AgentSettings, TtsSettings
from server.call.clips import speech_request
from server.call.recogniser import open_stream, transcriber_config
from server.catalogue import Catalogue
from server.config import Config
from server.dialogue.conversation import Conversation
from server.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

KEY = "sim-key-0123"
TEXT = "We are open from nine to six."
# What an agent may name of each provider, besides its default.
OWN: dict[str, dict[str, dict[str, str]]] = {
    "llm": {
        "groq": {"model": "openai/gpt-oss-120b"},
        "openai": {"model": "gpt-4.1-nano"},
        "azure-openai": {"model": "our-own"},
    },
    "tts": {
        "azure": {"voice": "en-US-JennyNeural", "style": "cheerful"},
        "openai-tts": {"voice": "nova", "style": "calm and friendly"},
        "groq-tts": {"voice": "troy"},
        "pico": {"voice": "en-GB"},
    },
    "stt": {
        "azure": {"model": "0f7ab9c2-custom-endpoint"},
        "groq-stt": {"model": "whisper-large-v3"},
        "openai-stt": {"model": "gpt-4o-transcribe"},
    },
}
# What is asked of each where nothing is named.
DEFAULT = {
    "groq": "openai/gpt-oss-20b", "openai": "gpt-6-luna", "azure-openai": "the-usual",
    "azure": "", "groq-stt": "whisper-large-v3-turbo", "openai-stt": "gpt-4o-mini-transcribe",
}  # fmt: skip
DEFAULT_VOICE = {"azure": "en-US-AvaMultilingualNeural", "openai-tts": "alloy", "groq-tts": "hannah", "pico": ""}
PAIRS = [(service, *pair) for service, names in OWN.items() for pair in permutations(names, 2)]


class Rig:
    """Services that all have accounts; `asked` tells which names reached each of them."""

    def __init__(self, azure: AzureSim, chat: Mapping[str, OpenAiSim], **override: str) -> None:
        self.azure, self.chat = azure, chat
        env = {
            "AZURE_SPEECH_KEY": KEY, "AZURE_SPEECH_ENDPOINT": azure.host,
            "GROQ_API_KEY": KEY, "GROQ_BASE_URL": chat["groq"].base_url,
            "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": chat["openai"].base_url,
            "AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": chat["azure-openai"].base_url,
            "AZURE_OPENAI_DEPLOYMENT": "the-usual",
        }  # fmt: skip
        self.catalogue = Catalogue(Config.from_env(env | override).providers, Unobserved())

    def kill(self, provider: str) -> None:
        account = provider.removesuffix("-stt").removesuffix("-tts")
        if account == "azure":
            self.azure.keys = {"another-key"}
        elif account in self.chat:
            self.chat[account].keys = {"another-key"}

    def asked(self, service: str, provider: str) -> Any:
        """The last model, or voice and style, that the service was asked for."""
        if provider == "azure":
            if service == "stt":
                return self.azure.stt_turns[-1].connection.query.get("cid", "")
            ssml = self.azure.tts_turns[-1].ssml
            (voice,) = [part.split("'")[0] for part in ssml.replace('"', "'").split("<voice name='")[1:]]
            return voice, "express-as" in ssml
        route = {"stt": "transcription", "llm": "chat", "tts": "speech"}[service]
        seen = self.chat[provider.removesuffix("-stt").removesuffix("-tts")].log.of(route)[-1]
        if service == "tts":
            return seen.body["voice"], "instructions" in seen.body or seen.body["input"].startswith("[")
        return seen.path.split("/")[3] if provider == "azure-openai" else seen.body["model"]


@asynccontextmanager
async def rig(**override: str) -> AsyncIterator[Rig]:
    deployments = (Model("the-usual"), Model("our-own"))
    async with (
        AzureSim(keys=frozenset({KEY})) as azure,
        OpenAiSim(Flavour.GROQ, keys=(KEY,)) as groq,
        OpenAiSim(Flavour.OPENAI, keys=(KEY,)) as openai,
        OpenAiSim(Flavour.AZURE, keys=(KEY,), models=deployments) as azure_openai,
    ):
        made = Rig(azure, {"groq": groq, "openai": openai, "azure-openai": azure_openai}, **override)
        try:
            yield made
        finally:
            await made.catalogue.aclose()


async def hear(made: Rig, settings: AgentSettings) -> bool:
    """By the last ear, as a call does when those before it are gone."""
    ear = made.catalogue.for_call(settings).ears[-1]
    fmt = PCMU_8K if PCMU_8K in ear.provider.audio_formats else ear.provider.audio_formats[0]
    opened = await open_stream(ear, transcriber_config(settings, fmt))
    try:
        opened.stream.begin_nowait(1, 0)
        opened.stream.feed_nowait(bytes(range(256)) * 40)
        opened.stream.commit_nowait(1)
        return isinstance(await anext(aiter(opened.stream)), Final)
    finally:
        await opened.stream.aclose()


async def think(made: Rig, settings: AgentSettings) -> bool:
    request = Conversation(settings).request("+15550000001")
    return any([isinstance(one, TextDelta) async for one in made.catalogue.for_call(settings).model.stream(request)])


async def speak(made: Rig, settings: AgentSettings) -> bool:
    request = speech_request(settings, TEXT, "+15550000001", PCMU_8K)
    voice = made.catalogue.for_call(settings).synthesizer
    return any([isinstance(one, AudioChunk) async for one in voice.stream(request)])


USE: dict[str, Callable[[Rig, AgentSettings], Awaitable[bool]]] = {"stt": hear, "llm": think, "tts": speak}


def usual(service: str, provider: str) -> Any:
    return (DEFAULT_VOICE[provider], False) if service == "tts" else DEFAULT[provider]


def own(service: str, provider: str) -> Any:
    named = OWN[service][provider]
    return (named["voice"], "style" in named) if service == "tts" else named["model"]


def agent(service: str, **settings: Any) -> AgentSettings:
    return AgentSettings.parse({service: settings})


@pytest.mark.parametrize(("service", "first", "second"), PAIRS)
def test_a_fallback_serves_an_agent_that_names_its_own(service: str, first: str, second: str) -> None:
    async def body() -> None:
        async with rig() as made:
            made.kill(first)
            # Pico has no account to lose: it is asked for a voice that it does not have.
            named = {"voice": "nobody"} if first == "pico" else OWN[service][first]
            assert await USE[service](made, agent(service, provider=first, **named, fallbacks=[second]))
            if second != "pico":
                assert made.asked(service, second) == usual(service, second)

    asyncio.run(body())


@pytest.mark.parametrize(("service", "name"), [(service, one) for service in OWN for one in OWN[service]])
def test_the_provider_that_the_agent_names_gets_the_agents_own(service: str, name: str) -> None:
    async def body() -> None:
        async with rig() as made:
            assert await USE[service](made, agent(service, provider=name, **OWN[service][name]))
            if name != "pico":
                assert made.asked(service, name) == own(service, name)

    asyncio.run(body())


@pytest.mark.parametrize(("service", "first", "second"), PAIRS)
def test_a_variable_replaces_the_provider_of_an_agent_that_names_its_own(
    service: str, first: str, second: str
) -> None:
    async def body() -> None:
        async with rig(**{f"{service.upper()}_PROVIDER": second}) as made:
            assert await USE[service](made, agent(service, provider=first, **OWN[service][first]))
            if second != "pico":
                assert made.asked(service, second) == usual(service, second)

    asyncio.run(body())


@pytest.mark.parametrize(("service", "first", "second"), [one for one in PAIRS if one[2] != "pico"])
def test_a_fallback_has_a_name_of_its_own(service: str, first: str, second: str) -> None:
    async def body() -> None:
        async with rig() as made:
            made.kill(first)
            name = OWN[service][second]["voice" if service == "tts" else "model"]
            voice = {"voice": "nobody"} if first == "pico" else OWN[service][first]
            assert await USE[service](made, agent(service, provider=first, **voice, fallbacks=[f"{second}/{name}"]))
            assert made.asked(service, second) == ((name, False) if service == "tts" else name)

    asyncio.run(body())


def test_the_agents_own_provider_keeps_its_name_behind_a_variable() -> None:
    tts = TtsSettings(provider="azure", voice="v", style="s", fallbacks=("openai-tts/nova", "azure/w", "pico"))
    azure = Choice(provider="azure", own="v", style="s", setting="tts.provider")
    nova = Choice(provider="openai-tts", own="nova", setting="tts.fallbacks[0]")
    other = Choice(provider="azure", own="w", setting="tts.fallbacks[1]")
    pico = Choice(provider="pico", setting="tts.fallbacks[2]")
    assert choices("tts", tts) == [azure, nova, other, pico]
    by = "tts.provider by TTS_PROVIDER"
    # One of the fallbacks, first: it is not asked a second time.
    assert choices("tts", tts, "pico") == [Choice(provider="pico", setting=by), nova, other]
    assert choices("tts", tts, "azure")[0] == Choice(provider="azure", own="v", style="s", setting=by)
    tts = TtsSettings(provider="azure", voice="v", style="s", fallbacks=("openai-tts/nova",))
    assert choices("tts", tts, "openai-tts") == [Choice(provider="openai-tts", setting=by), nova]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"llm": {"provider": "groq", "fallbacks": ["groq"]}},
         "llm.fallbacks[0]: expected another one than llm.provider, got 'groq'"),
        ({"llm": {"provider": "groq", "model": "qwen", "fallbacks": ["groq/qwen"]}},
         "llm.fallbacks[0]: expected another one than llm.provider, got 'groq/qwen'"),
        ({"llm": {"provider": "groq", "fallbacks": ["openai", "groq/qwen", "openai"]}},
         "llm.fallbacks[2]: expected another one than llm.fallbacks[0], got 'openai'"),
        ({"llm": {"provider": "groq", "fallbacks": ["openai/"]}},
         "llm.fallbacks[0]: expected provider, or provider/model, got 'openai/'"),
        ({"stt": {"provider": "azure", "fallbacks": ["groq-stt", "groq-stt/ "]}},
         "stt.fallbacks[1]: expected provider, or provider/model, got 'groq-stt/ '"),
        ({"tts": {"provider": "azure", "fallbacks": ["openai-tts/"]}},
         "tts.fallbacks[0]: expected provider, or provider/voice, got 'openai-tts/'"),
        ({"tts": {"provider": "pico", "fallbacks": ["azure"]},
          "channels": {"browser": {"tts": {"fallbacks": ["azure", "azure"]}}}},
         "channels.browser.tts.fallbacks[1]: expected another one than tts.fallbacks[0], got 'azure'"),
    ],
)  # fmt: skip
def test_fallbacks_that_can_never_help_are_refused(settings: dict[str, Any], says: str) -> None:
    env = {"GROQ_API_KEY": KEY, "OPENAI_API_KEY": KEY, "AZURE_SPEECH_KEY": KEY, "AZURE_SPEECH_REGION": "westeurope"}
    for variables in ({}, {"LLM_PROVIDER": "dialogue", "STT_PROVIDER": "moonshine", "TTS_PROVIDER": "pico"}):
        catalogue = Catalogue(Config.from_env(env | variables).providers, Unobserved())
        with pytest.raises(ConfigError) as refused:
            catalogue.check("one", AgentSettings.parse(settings))
        assert str(refused.value) == f"agent one: {says}"


def test_other_models_of_the_same_provider_may_follow() -> None:
    raw = {"llm": {"provider": "groq", "fallbacks": ["groq/qwen/qwen3.8-27b", "openai", "openai/gpt-4.1-mini"]}}
    catalogue = Catalogue(Config.from_env({"GROQ_API_KEY": KEY, "OPENAI_API_KEY": KEY}).providers, Unobserved())
    models = catalogue.candidates(AgentSettings.parse(raw)).models
    found = [(one.provider.name, one.model) for one in models]
    assert found == [("groq", ""), ("groq", "qwen/qwen3.8-27b"), ("openai", ""), ("openai", "gpt-4.1-mini")]
