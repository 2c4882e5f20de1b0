"""The adapters of Azure Speech beside the simulator they talk to, and what is said to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import uvloop

from bench.sim.azure import AzureSim
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.voice import pico_clip
from providers.azure import sdk_native
from providers.azure.options import AzureSpeechOptions
from providers.azure.stt import AzureTranscriber, AzureTranscriptStream
from providers.azure.tts import AzureSynthesizer
from providers.base import PCMU_8K, Final, Interim, TranscriberConfig, TranscriptEvent
from providers.errors import ProviderError

SAID = ("Hello, can you tell me when you are open?", "Good. I would like to make an appointment.", "Yes please.")
CLIPS = [pico_clip(text, rate_percent=80) for text in SAID]
LISTEN = TranscriberConfig(audio_format=PCMU_8K, caller="+15552000012")
FRAME_BYTES = 160
DEADLINE_S = 20


def silence(ms: int) -> bytes:
    return b"\xff" * (8 * ms)


def utterance(number: int) -> bytes:
    """Clip `number` as an uplink feeds it: with its pre-roll and the silence before the commit."""
    clip = CLIPS[number]
    return silence(300) + clip.pcmu[: clip.speech_samples] + silence(200)


def book() -> Clipbook:
    return Clipbook(BookClip.of_pcmu(clip.text[:5], clip.text, clip.pcmu[: clip.speech_samples]) for clip in CLIPS)


def options(sim: AzureSim, **more: Any) -> AzureSpeechOptions:
    return AzureSpeechOptions(**({"key": sim.key, "endpoint": sim.host} | more))


def transcriber(sim: AzureSim, **more: Any) -> AzureTranscriber:
    return AzureTranscriber(options(sim, **more))


def synthesizer(sim: AzureSim, **more: Any) -> AzureSynthesizer:
    return AzureSynthesizer(options(sim, **more))


def run(main: Coroutine[Any, Any, None]) -> None:
    """One test on uvloop with a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await main

    uvloop.run(bounded())


def let_go() -> None:
    """Put every native object away: one that is stopping may still begin a turn and take the next test's fault."""
    sdk_native.shutdown()
    assert sdk_native.alive() == 0


async def feed(stream: AzureTranscriptStream, audio: bytes, *, times: float = 0) -> None:
    """In frames of 20 ms, `times` as fast as they last; 0 is at once."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    for at in range(0, len(audio), FRAME_BYTES):
        stream.feed_nowait(audio[at : at + FRAME_BYTES])
        if times:
            due_s += 0.02 / times
            await asyncio.sleep(max(0.0, due_s - loop.time()))


async def heard(events: AsyncIterator[TranscriptEvent], count: int = 1) -> list[Final]:
    """The next Finals."""
    finals: list[Final] = []
    while len(finals) < count:
        one = await anext(events)
        if isinstance(one, Final):
            finals.append(one)
        else:
            assert isinstance(one, Interim)
    return finals


async def until_error(events: AsyncIterator[TranscriptEvent]) -> tuple[list[TranscriptEvent], ProviderError]:
    """Everything that is still given, and the error after it."""
    given: list[TranscriptEvent] = []
    while True:
        try:
            given.append(await anext(events))
        except ProviderError as error:
            return given, error
