"""Each variable of an account changes what is sent, and where; there and nowhere else, seen at the simulators' sockets.

The list of variables is the configuration's own: a new one fails here until its effect is shown, or a test named that
looks at what no socket shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.sim.azure import Fault
from providers.base import PCMU_8K, Final
from providers.errors import ProviderTimeout, ProviderUnavailable
from server.agent.settings import AgentSettings
from server.call.recogniser import open_stream, transcriber_config
from server.catalogue import Catalogue
from server.config.provider import VARIABLES
from tests.call.test_recogniser import CLIPS
from tests.support.services import LOUD_PCMU, OTHER_KEY, THIRD_KEY, Asked, Services, ask, differences, services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

TESTS = Path(__file__).parent
AZURE = {"stt": "azure", "tts": "azure"}
AZURE_2 = {"stt": "azure-2", "tts": "azure-2"}
OPENAI = {"stt": "openai-stt", "llm": "openai", "tts": "openai-tts"}
GROQ = {"stt": "groq-stt", "llm": "groq", "tts": "groq-tts"}
BEARER = {"header.authorization"}
OF_AZURE = {"header.ocp-apim-subscription-key"}
# The other address, and the text itself in place of a document.
AS_TEXT = {"path", "pieces", "ssml.speak@version", "ssml.speak@lang", "ssml.voice@name"} | {
    f"context.synthesis.input.{name}" for name in ("bidirectionalStreamingMode", "language", "voiceName")
}


@dataclass(frozen=True)
class Probe:
    """Set `variable` to `value` and ask each of `by` (service -> the agent's provider).

    Args:
        places: of the request that differ; of a variable that has another service asked, its name instead.
    """

    variable: str
    value: str | Callable[[Services], str]
    by: Mapping[str, str]
    places: set[str] | str

    def settings(self, service: str) -> AgentSettings:
        return AgentSettings.parse({service: {"provider": self.by[service]}})


PROBES = [
    Probe("STT_PROVIDER", "azure", {"stt": "groq-stt"}, "azure"),
    Probe("LLM_PROVIDER", "groq", {"llm": "openai"}, "groq"),
    Probe("TTS_PROVIDER", "openai-tts", {"tts": "azure"}, "openai"),
    Probe("AZURE_SPEECH_KEY", OTHER_KEY, AZURE, OF_AZURE),
    Probe("AZURE_SPEECH_ENDPOINT", lambda made: made.azure_2.host, AZURE, "azure-2"),
    Probe("AZURE_SPEECH_KEY_2", THIRD_KEY, AZURE_2, OF_AZURE),
    Probe("AZURE_SPEECH_ENDPOINT_2", lambda made: made.azure.host, AZURE_2, "azure"),
    Probe("AZURE_SPEECH_COMMIT", "off", {"stt": "azure"}, {"query.setfeature"}),
    Probe("AZURE_SPEECH_TEXT_STREAM", "on", {"tts": "azure"}, AS_TEXT),
    Probe("AZURE_SPEECH_TELEPHONE_EFFECT", "on", {"tts": "azure"}, {"ssml.voice@effect"}),
    Probe("AZURE_SPEECH_USE_TOKEN", "on", AZURE, OF_AZURE | BEARER),
    Probe("OPENAI_API_KEY", OTHER_KEY, OPENAI, BEARER),
    Probe("OPENAI_BASE_URL", lambda made: made.others["compatible"].base_url, OPENAI, "compatible"),
    Probe("OPENAI_MODEL", "gpt-4.1-mini", {"llm": "openai"}, {"body.model"}),
    Probe("OPENAI_STT_MODEL", "gpt-4o-transcribe", {"stt": "openai-stt"}, {"body.model"}),
    Probe("OPENAI_TTS_MODEL", "tts-1", {"tts": "openai-tts"}, {"body.model"}),
    Probe("GROQ_API_KEY", OTHER_KEY, GROQ, BEARER),
    Probe("GROQ_BASE_URL", lambda made: made.others["groq-2"].base_url, GROQ, "groq-2"),
    Probe("GROQ_MODEL", "openai/gpt-oss-120b", {"llm": "groq"}, {"body.model"}),
    Probe("GROQ_STT_MODEL", "whisper-large-v3", {"stt": "groq-stt"}, {"body.model"}),
    Probe("GROQ_TTS_MODEL", "another-voice", {"tts": "groq-tts"}, {"body.model"}),
    Probe("AZURE_OPENAI_API_KEY", OTHER_KEY, {"llm": "azure-openai"}, {"header.api-key"}),
    Probe("AZURE_OPENAI_ENDPOINT", lambda made: made.others["azure-openai-2"].url, {"llm": "azure-openai"},
          "azure-openai-2"),
    Probe("AZURE_OPENAI_DEPLOYMENT", "gpt-4.1-mini", {"llm": "azure-openai"}, {"path", "body.model"}),
    Probe("AZURE_OPENAI_API_VERSION", "2025-01-01-preview", {"llm": "azure-openai"}, {"query.api-version"}),
    Probe("AZURE_OPENAI_SURFACE", "v1", {"llm": "azure-openai"},
          {"path", "query.api-version", "header.api-key", "header.authorization"}),
    Probe("COMPATIBLE_API_KEY", OTHER_KEY, {"llm": "compatible"}, BEARER),
    Probe("COMPATIBLE_BASE_URL", lambda made: made.others["openai"].base_url, {"llm": "compatible"}, "openai"),
    Probe("COMPATIBLE_MODEL", "gpt-4.1-mini", {"llm": "compatible"}, {"body.model"}),
]  # fmt: skip

# What no socket shows, or none on this machine.
OWNED = {
    "AZURE_SPEECH_REGION": "test_provider_variables.py::test_a_region_is_the_name_of_the_host",
    "AZURE_SPEECH_REGION_2": "test_provider_variables.py::test_a_region_is_the_name_of_the_host",
    "AZURE_SPEECH_FINAL_WAIT_MS": "test_provider_variables.py::test_how_long_a_final_is_waited_for",
    "AZURE_SPEECH_POLLING_MS": "test_provider_variables.py::test_how_often_the_sdk_looks_at_its_socket",
    "TALKSPURT_SPANISH_STT": "node/test_doctor.py::test_an_agent_that_cannot_hear_is_named",
}


def test_every_variable_has_a_probe_or_an_owner() -> None:
    assert sorted([one.variable for one in PROBES] + list(OWNED)) == sorted(VARIABLES)
    for place in OWNED.values():
        path, _, test = place.partition("::")
        assert f"def {test}(" in (TESTS / path).read_text(), place


@pytest.mark.parametrize("account", ["STT_", "LLM_", "TTS_", "AZURE_SPEECH_", "OPENAI_", "GROQ_", "AZURE_OPENAI_",
                                     "COMPATIBLE_"])  # fmt: skip
def test_a_variable_changes_what_it_is_for_and_nothing_else(account: str) -> None:
    probes = [one for one in PROBES if one.variable.startswith(account)]
    assert probes

    async def body() -> None:
        # All catalogues live until the end: closing one puts away the SDK's objects of the whole process.
        async with services() as made, AsyncExitStack() as stack:
            before = await stack.enter_async_context(made.catalogue(**made.second))
            for one in probes:
                value = one.value if isinstance(one.value, str) else one.value(made)
                after = await stack.enter_async_context(made.catalogue(**{**made.second, one.variable: value}))
                for service in one.by:
                    was, now = [await asked(made, catalogue, one, service) for catalogue in (before, after)]
                    is_moved = was.pop("service") != (where := now.pop("service"))
                    assert (where if is_moved else differences(was, now)) == one.places, f"{one.variable}: {service}"

    asyncio.run(body())


async def asked(made: Services, catalogue: Catalogue, one: Probe, service: str) -> Asked:
    made.forget()
    await ask(service, catalogue, one.settings(service))
    (found,) = made.asked(service)
    return found


def test_a_region_is_the_name_of_the_host() -> None:
    """No such region exists: the name is looked up, and nobody is reached."""

    async def body() -> None:
        first = {"AZURE_SPEECH_ENDPOINT": "", "AZURE_SPEECH_REGION": "nosuch1"}
        second = {"AZURE_SPEECH_KEY_2": OTHER_KEY, "AZURE_SPEECH_REGION_2": "nosuch2"}
        async with services() as made, made.catalogue(**first) as one, made.catalogue(**first, **second) as two:
            for catalogue, provider, region in ((one, "azure", "nosuch1"), (two, "azure-2", "nosuch2")):
                for service in ("stt", "tts"):
                    with pytest.raises(ProviderUnavailable, match=f"wss://{region}.{service}"):
                        await ask(service, catalogue, AgentSettings.parse({service: {"provider": provider}}))

    asyncio.run(body())


async def final_ms(catalogue: Catalogue, audio: bytes = LOUD_PCMU, utterances: int = 1) -> list[float]:
    """From the end of each utterance to its final, by Azure."""
    settings = AgentSettings.parse({"stt": {"provider": "azure"}})
    ears = catalogue.for_call(settings).ears[0]
    try:
        opened = await open_stream(ears, transcriber_config(settings, PCMU_8K))
    except ProviderTimeout:  # the SDK's first recogniser, on a busy machine
        opened = await open_stream(ears, transcriber_config(settings, PCMU_8K))
    events, took = aiter(opened.stream), []
    try:
        for number in range(1, utterances + 1):
            opened.stream.begin_nowait(number, 2000 * number)
            opened.stream.feed_nowait(audio)
            began = time.perf_counter()
            opened.stream.commit_nowait(number)
            while not isinstance(await anext(events), Final):
                pass
            took.append((time.perf_counter() - began) * 1000)
    finally:
        await opened.stream.aclose()
    return took


def test_how_long_a_final_is_waited_for() -> None:
    """The service's own comes after two seconds; audio that came at once is given time to be worked through."""

    async def body() -> None:
        async with (
            services() as made,
            made.catalogue(AZURE_SPEECH_FINAL_WAIT_MS="50") as hasty,
            made.catalogue(AZURE_SPEECH_FINAL_WAIT_MS="5000") as patient,
        ):
            for catalogue, least, most in ((hasty, 50, 1500), (patient, 2000, 4900)):
                made.azure.faults.add(Fault(kind="late_final", on="stt", delay_ms=2000))
                (took,) = await final_ms(catalogue, CLIPS[0].pcmu)
                assert least <= took < most

    asyncio.run(body())


def test_how_often_the_sdk_looks_at_its_socket() -> None:
    """An answer that was there at once is seen at the next look; a busy machine only adds to it."""

    async def body() -> None:
        async with services() as made, made.catalogue(AZURE_SPEECH_POLLING_MS="200") as seldom, made.catalogue() as own:
            assert min(await final_ms(seldom, utterances=4)) > 100 > min(await final_ms(own, utterances=4))

    asyncio.run(body())
