"""A clause survives its voice: who speaks the rest, from which word, and what is refused as no speech."""

from __future__ import annotations

import asyncio

import pytest

from providers.base import PCMU_8K, S16_16K, AudioChunk, SpeechEvent, SpeechRequest, WordMark
from providers.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from providers.fallback_synthesizer import MS_PER_CHAR, FallbackSynthesizer, SpeechCandidate, SpeechLimits
from providers.health import ProviderHealth
from tests.support.failing import FOREVER, Noted, Step, ToldVoice

TEXT = "We are open from nine to six, every day of the week."
WHOLE_MS = len(TEXT) * MS_PER_CHAR
LIMITS = SpeechLimits(first_ms=60, last_first_ms=90, idle_ms=60, last_idle_ms=90, total_ms=5000)
DOWN = ProviderUnavailable("reset", provider="a")


def sound(ms: float, chunk_ms: int = 100) -> list[Step]:
    """A voice of `ms` in chunks: something that is no constant."""
    second = bytes(range(0, 250, 2)) * 64
    return [AudioChunk(second[: 8 * chunk_ms], PCMU_8K) for _ in range(round(ms / chunk_ms))]


class Rig:
    def __init__(self, *scripts: list[list[Step]]) -> None:
        self.noted = Noted()
        self.voices = [ToldVoice(name, script) for name, script in zip("abc", scripts, strict=False)]
        self.candidates = [
            SpeechCandidate(one, ProviderHealth("tts", one.name, self.noted), "own" if at == 0 else f"voice-{one.name}")
            for at, one in enumerate(self.voices)
        ]
        self.synthesizer = FallbackSynthesizer(self.candidates, LIMITS)

    def speak(self, text: str = TEXT) -> list[SpeechEvent]:
        async def body() -> list[SpeechEvent]:
            request = SpeechRequest(text=text, voice="another's", style="its")
            return [one async for one in self.synthesizer.stream(request)]

        return asyncio.run(body())

    def asked(self, voice: int, number: int = 0) -> SpeechRequest:
        request = self.voices[voice].requests[number]
        assert isinstance(request, SpeechRequest)
        return request


def heard_ms(events: list[SpeechEvent]) -> int:
    return sum(len(one.audio) // 8 for one in events if isinstance(one, AudioChunk))


def test_a_voice_that_works_is_passed_on() -> None:
    rig = Rig([sound(WHOLE_MS)])
    assert heard_ms(rig.speak()) == round(WHOLE_MS, -2)
    assert rig.noted.lines[:2] == ["attempt a", f"usage a characters {len(TEXT)}"]


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ([DOWN], "unavailable"),
        ([FOREVER], "timeout_first"),
        ([ProviderRejected("quota", status=429, provider="a")], "rejected_429"),
        ([AudioChunk(b"RIFF\x24\0\0\0WAVEfmt ", S16_16K)], "protocol"),
        ([AudioChunk(b"\x10\x27" * 3200, S16_16K)], "protocol"),
        ([AudioChunk(b"\0\0\0", S16_16K)], "protocol"),
        ([], "protocol"),
    ],
)
def test_before_any_audio_the_next_speaks_the_whole_clause(first: list[Step], kind: str) -> None:
    rig = Rig([first], [sound(WHOLE_MS)])
    assert heard_ms(rig.speak()) == round(WHOLE_MS, -2)
    assert rig.asked(1).text == TEXT
    assert [(rig.asked(at).voice, rig.asked(at).style) for at in (0, 1)] == [("own", ""), ("voice-b", "")]
    assert f"failure a {kind}" in rig.noted.lines and "fallback a b" in rig.noted.lines


def stand_ins(events: list[SpeechEvent]) -> list[bool]:
    return [one.is_stand_in for one in events if isinstance(one, AudioChunk)]


def test_what_another_voice_speaks_is_marked() -> None:
    assert set(stand_ins(Rig([sound(WHOLE_MS)], [sound(WHOLE_MS)]).speak())) == {False}
    assert set(stand_ins(Rig([[DOWN]], [[DOWN]], [sound(WHOLE_MS)]).speak())) == {True}
    half = stand_ins(Rig([[*sound(WHOLE_MS / 2), DOWN]], [sound(WHOLE_MS / 2)]).speak())
    assert half == sorted(half) and set(half) == {False, True}


@pytest.mark.parametrize("end", [[DOWN], [FOREVER], []])
def test_the_rest_is_spoken_from_the_next_word_by_the_share_of_audio(end: list[Step]) -> None:
    ms = WHOLE_MS * (0.15 if end == [] else 0.5)
    rig = Rig([[*sound(ms), *end]], [sound(WHOLE_MS * 0.6)])
    rig.speak()
    rest = rig.asked(1).text
    assert TEXT.endswith(rest) and 0 < len(rest) < len(TEXT)
    assert len(TEXT) - len(rest) == pytest.approx(len(TEXT) * ms / WHOLE_MS, abs=9)


def test_word_marks_say_exactly_where_to_go_on() -> None:
    words: list[Step] = []
    at = 0
    for number, word in enumerate(TEXT.split(" ")):
        words.append(WordMark(number * 300, at, at + len(word)))
        at += len(word) + 1
    rig = Rig([[*words, *sound(1000), DOWN]], [[WordMark(50, 0, 4), *sound(1500)]])
    events = rig.speak()
    # Four words began within the first second: "We are open from".
    assert rig.asked(1).text.strip() == "nine to six, every day of the week."
    last = [one for one in events if isinstance(one, WordMark)][-1]
    assert last.offset_ms == 1050 and TEXT[last.start : last.end].strip() in "nine"


def test_when_all_words_were_spoken_the_clause_is_over() -> None:
    rig = Rig([[*sound(WHOLE_MS), DOWN]], [sound(100)])
    rig.speak()
    assert rig.voices[1].requests == []


def test_alone_it_is_asked_once_more_for_the_rest() -> None:
    rig = Rig([[*sound(WHOLE_MS / 2), DOWN], sound(WHOLE_MS / 2)])
    rig.speak()
    assert TEXT.endswith(rig.asked(0, 1).text) and len(rig.asked(0, 1).text) < len(TEXT)


def test_nobody_left_is_an_error_and_a_late_one_is_not_asked_again() -> None:
    rig = Rig([[FOREVER]])
    with pytest.raises(ProviderTimeout):
        rig.speak()
    assert len(rig.voices[0].requests) == 1
    with pytest.raises(ProviderError):
        Rig([[DOWN]], [[ProviderProtocolError("x")]]).speak()


def test_a_last_one_that_hangs_is_counted_though_its_asker_leaves_before_its_deadline() -> None:
    rig = Rig([[DOWN]], [[FOREVER]])
    rig.synthesizer = FallbackSynthesizer(rig.candidates, SpeechLimits(first_ms=30, last_first_ms=5000))

    async def body() -> None:
        asking = asyncio.ensure_future(anext(rig.synthesizer.stream(SpeechRequest(text=TEXT))))
        await asyncio.wait([asking], timeout=0.1)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(body())
    assert [one for one in rig.noted.lines if one.startswith("failure b")] == ["failure b timeout_first"]


def test_endless_audio_is_cut() -> None:
    rig = Rig([sound(WHOLE_MS * 20)], [sound(100)])
    assert heard_ms(rig.speak()) < WHOLE_MS * 3 + 2300
    assert "failure a protocol" in rig.noted.lines and rig.voices[1].requests == []


def test_every_stream_is_closed() -> None:
    rig = Rig([[*sound(300), DOWN]], [[*sound(300), FOREVER]], [sound(WHOLE_MS)])
    rig.speak()
    assert [one.closed for one in rig.voices] == [1, 1, 1]
