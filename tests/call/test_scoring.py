"""One timer scores every call's windows, and there is none while no call is open."""

from __future__ import annotations

import asyncio

import numpy as np

from audio_native.silero import WINDOW_SAMPLES, SileroNet, SileroStream
from audio_native.silero_weights import packaged_file, read_weights
from audio_native.uplink import F_ONSET, Uplink
from audio_native.vad import WebRtcDetector
from bench.sim.sound import FRAME_SAMPLES, to_pcmu
from bench.sim.voice import pico_clip
from server.call.scoring import SpeechScoring

WINDOW = bytes(2 * WINDOW_SAMPLES)


async def until_scored(*streams: SileroStream) -> None:
    """The scoring has its own timer: give it the loop."""
    async with asyncio.timeout(5):
        while not all(stream.windows for stream in streams):
            await asyncio.sleep(0)


def test_open_streams_are_scored_and_closed_ones_are_not() -> None:
    async def body() -> None:
        scoring = SpeechScoring.load()
        first, second, closed = scoring.open(), scoring.open(), scoring.open()
        scoring.close(closed)
        for stream in (first, second, closed):
            stream.push(WINDOW)
        await until_scored(first, second)
        assert closed.windows == 0 and closed.is_ready
        scoring.close(first)
        scoring.close(second)
        scoring.close(second)
        again = scoring.open()
        again.push(WINDOW)
        await until_scored(again)
        scoring.close(again)
        pending = [one for one in asyncio.get_running_loop()._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        assert pending == [], "a timer is left although no call is open"

    asyncio.run(body())


def onsets(line: bytes, *, scored: bool) -> list[int]:
    """Where talkspurts begin in coded audio, in ms."""
    net = SileroNet(read_weights(packaged_file()))
    stream = SileroStream() if scored else None
    uplink = Uplink(grammar=None, codec="PCMU", out="wire", detector=WebRtcDetector(2), scorer=stream)
    found = []
    for number, at in enumerate(range(0, len(line) - FRAME_SAMPLES + 1, FRAME_SAMPLES), 1):
        flags = uplink.feed_payload(line[at : at + FRAME_SAMPLES], number, 20 * number)
        if stream is not None:
            net.score([stream])
        if flags & F_ONSET:
            found.append(uplink.onset_samples // 8)
    return found


def test_a_talkspurt_begins_where_the_detector_heard_it() -> None:
    silence = b"\xff" * 8000
    line = silence + pico_clip("Hello, can you tell me when you are open?", rate_percent=80).pcmu + silence
    assert onsets(line, scored=True) == onsets(line, scored=False)


def test_noise_that_the_detector_takes_for_speech_opens_nothing() -> None:
    noise = np.random.default_rng(3).standard_normal(8000 * 20) * 1000
    line = to_pcmu(np.clip(noise, -32768, 32767).astype("<i2").tobytes())
    assert onsets(line, scored=False), "the noise says nothing about the network"
    assert onsets(line, scored=True) == []
