"""The simulated Speech service by the real SDK over a real socket: what is heard, spoken, refused and broken."""

from __future__ import annotations

from collections.abc import Iterator

import azure.cognitiveservices.speech as sdk
import pytest

from bench.sim.azure import AzureSim
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.voice import pico_clip
from tests.bench.azure_client import Mouth, recognise_all, serving, speech_config

SAID = ("Hello, can you tell me when you are open?", "Good. I would like to make an appointment.", "Yes please.")
CLIPS = [pico_clip(text, rate_percent=80) for text in SAID]


def silence(ms: int) -> bytes:
    return b"\xff" * (8 * ms)


@pytest.fixture(scope="module")
def book() -> Clipbook:
    return Clipbook(BookClip.of_pcmu(clip.text[:5], clip.text, clip.pcmu[: clip.speech_samples]) for clip in CLIPS)


@pytest.fixture
def sim(book: Clipbook) -> Iterator[AzureSim]:
    with serving(AzureSim(book=book)) as one:
        yield one


def test_finals_are_the_clips_that_were_sent(sim: AzureSim) -> None:
    config = speech_config(sim)
    config.set_property(sdk.PropertyId.Speech_SegmentationSilenceTimeoutMs, "800")  # Pico pauses long at a comma
    sound = silence(400) + CLIPS[0].pcmu + silence(1000) + CLIPS[1].pcmu + silence(300)
    heard = recognise_all(sim, sound, config=config)
    assert [one.text for one in heard.finals if one.text] == list(SAID[:2])
    assert heard.interims[0] == "hello" and len(heard.interims) > 6
    assert [one.reason for one in heard.canceled] == [sdk.CancellationReason.EndOfStream]
    [turn] = sim.stt_turns
    assert (turn.format, turn.language, turn.mode, turn.ended) == ((7, 8000, 8), "en-US", "CONVERSATION", "done")


def test_synthesis_is_what_pico_rendered(sim: AzureSim) -> None:
    with Mouth(speech_config(sim)) as mouth:
        spoken = mouth.speak("Hello there, how can I help you?")
    assert spoken.result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    assert spoken.audio == sim.tts_turns[-1].audio and len(spoken.audio) > 8000
