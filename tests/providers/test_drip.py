"""Audio that comes slower than it is played, piece by piece within every deadline."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from providers.base import PCMU_8K, AudioChunk, SpeechEvent, SpeechRequest
from providers.drip import Drip
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate, SpeechLimits
from providers.health import ProviderHealth
from tests.support.failing import Noted, Step, ToldVoice, Wait

TEXT = "We are open from nine to six, every day of the week."


def dripped_at_ms(pieces: list[tuple[float, float]], window_ms: int = 1000, least_share: float = 0.7) -> float | None:
    """(waited, audio) in ms, one after the other: when the voice was given up."""
    drip, at_ms = Drip(window_ms, least_share), 0.0
    for waited_ms, audio_ms in pieces:
        at_ms += waited_ms
        drip.waited(waited_ms)
        if drip.is_dripping(audio_ms):
            return at_ms
    return None


def test_three_hundred_ms_and_then_drops_are_given_up_within_two_seconds() -> None:
    assert dripped_at_ms([(200, 300), *[(500, 20)] * 20]) == 1700
    assert dripped_at_ms([(200, 300), *[(500, 20)] * 20], 2500, 0.35) == 200 + 3000


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 100)] * 30,  # all at once
        [(100, 100)] * 30,  # in real time
        [(300, 100), *[(33, 100)] * 30],
        [(0, 2000), *[(500, 450)] * 5],  # slower than real time, with a lead that lasts
        [(100, 100), (580, 100), *[(10, 100)] * 20],  # one gap, then it catches up
        [(100, 100), (590, 600), *[(100, 100)] * 20],
        [(0, 200), *[(100, 75)] * 60],  # hardly too slow
        [*[(30, 20), (5, 20), (25, 20), (20, 20)] * 30],  # in real time, with jitter
    ],
)
def test_voices_that_one_can_listen_to_are_left_alone(pieces: list[tuple[float, float]]) -> None:
    assert dripped_at_ms(pieces) is None


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.65])
def test_whatever_the_size_of_the_drops_their_share_decides(share: float) -> None:
    for gap_ms in (20, 100, 400, 590):
        at_ms = dripped_at_ms([(0, 300), *[(gap_ms, share * gap_ms)] * 1000])
        assert at_ms is not None and at_ms <= 300 / (1 - share) + 1000 + 2 * 590


def test_the_wait_for_the_first_audio_is_another_deadlines_business() -> None:
    assert dripped_at_ms([(5000, 20), (10, 20), (10, 20)]) is None


def drops(first_ms: int, drop_ms: int, gap_s: float) -> list[Step]:
    sound = bytes(range(0, 250, 2)) * 64
    return [
        AudioChunk(sound[: 8 * first_ms], PCMU_8K),
        *itertools.chain.from_iterable([Wait(gap_s), AudioChunk(sound[: 8 * drop_ms], PCMU_8K)] for _ in range(200)),
    ]


def spoken(*scripts: list[Step], listener_s: float = 0.0) -> tuple[list[SpeechEvent], list[str]]:
    noted = Noted()
    voices = [ToldVoice(name, [script]) for name, script in zip("ab", scripts, strict=False)]
    limits = SpeechLimits(idle_ms=100, last_idle_ms=100, drip_ms=150, last_drip_ms=200)
    candidates = [SpeechCandidate(one, ProviderHealth("tts", one.name, noted)) for one in voices]
    synthesizer = FallbackSynthesizer(candidates, limits)

    async def body() -> list[SpeechEvent]:
        events = []
        async for one in synthesizer.stream(SpeechRequest(text=TEXT)):
            events.append(one)
            await asyncio.sleep(listener_s)
        return events

    return asyncio.run(body()), noted.lines


def test_a_voice_that_drips_is_a_timeout_and_the_next_speaks_the_rest() -> None:
    rest = [AudioChunk(bytes(range(0, 250, 2)) * 64, PCMU_8K)] * 3
    events, lines = spoken(drops(60, 2, 0.05), rest)
    assert "failure a timeout_idle" in lines and "fallback a b" in lines and "failure b timeout_idle" not in lines
    audio_ms = sum(len(one.audio) / 8 for one in events if isinstance(one, AudioChunk))
    assert audio_ms - 3000 < 80, "60 ms and a few drops of the first"


def test_a_slow_listener_does_not_make_a_voice_drip() -> None:
    whole: list[Step] = [AudioChunk(bytes(range(0, 250, 2)) * 6, PCMU_8K)] * 36
    events, lines = spoken(whole, listener_s=0.01)
    assert len(events) == 36 and not [one for one in lines if one.startswith("failure")]
