"""What is no voice is never heard: a corpus of bad bodies, and good voices of every adapter's kind."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import soxr

from audio_native import g711
from bench.sim.voice import pico_s16
from providers.base import PCMA_8K, PCMU_8K, S16_16K, AudioChunk, AudioFormat, SpeechEvent, SpeechRequest, WordMark
from providers.errors import ProviderProtocolError
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.health import ProviderHealth
from providers.offline.pico import PicoSynthesizer
from providers.offline.scripted import render
from providers.pace import MIN_KNOWN, Pace, spoken_chars
from providers.speech_check import MAX_FLAT_MS, Opening
from tests.providers.sound import reading
from tests.support.failing import Noted, Step, ToldVoice

TEXT = "We are open from nine to six, every day of the week."
S16_24K = AudioFormat("s16", 24_000)
FORMATS = (S16_16K, S16_24K, PCMU_8K, PCMA_8K)
SPOKEN = {
    "en-US": (TEXT, "She sells sea shells on the sea shore.", "Yes.", "Call us on 555 0100, at 10:30."),
    "en-GB": ("Sixty-six ships sailed the southern seas.", "Good morning, this is the surgery."),
    "es-ES": ("Estamos abiertos de nueve a seis, todos los días.", "Sí.", "Sesenta y seis zapatos azules."),
    "de-DE": ("Sechsundsechzig Zentimeter sind es bis zur Schule.", "Ihr Termin ist am 3.12.2026 um 10:30 Uhr."),
    "fr-FR": ("Six cent soixante-six saucissons secs.", "Bonjour, que puis-je faire pour vous?"),
    "it-IT": ("Sessantasei scarpe azzurre.", "Buongiorno, come posso aiutarla?"),
}


@cache
def voice(text: str = TEXT, language: str = "en-US") -> bytes:
    return pico_s16(text, language=language)


@cache
def at_rate(s16: bytes, rate_hz: int, times: float = 1.0) -> bytes:
    samples = soxr.resample(np.frombuffer(s16, np.int16).astype(np.float32), 16_000, rate_hz) * times
    return np.clip(samples, -32_768, 32_767).astype(np.int16).tobytes()


def coded(s16: bytes, fmt: AudioFormat, times: float = 1.0) -> bytes:
    """s16 at 16 kHz in any format."""
    audio = at_rate(s16, fmt.rate_hz, times)
    return {"s16": bytes, "pcmu": g711.bytes_to_pcmu, "pcma": g711.bytes_to_pcma}[fmt.encoding](audio)


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def mp3(header: bytes, frame_bytes: int, frames: int = 200) -> bytes:
    return b"".join(header + noise(frame_bytes - len(header), at) for at in range(frames))


def adts(frame_bytes: int = 200, frames: int = 300) -> bytes:
    size = [0x80 | frame_bytes >> 11, frame_bytes >> 3 & 0xFF, (frame_bytes & 7) << 5 | 31]
    head = bytes([0xFF, 0xF1, 0x50, *size, 0xFC])
    return mp3(head, frame_bytes, frames)


def samples() -> np.ndarray:
    return np.frombuffer(voice(), np.int16)


def click_then_silence(fmt: AudioFormat) -> bytes:
    silence = {"s16": b"\0\0", "pcmu": b"\xff", "pcma": b"\xd5"}[fmt.encoding]
    loud = {"s16": b"\x00\x40", "pcmu": b"\x90", "pcma": b"\x90"}[fmt.encoding]
    return silence * 2000 + loud * 8 + silence * 40_000


SECONDS_3 = 96_000
BODIES: dict[str, tuple[AudioFormat, bytes]] = {
    # one level
    "silence s16": (S16_16K, bytes(SECONDS_3)),
    "silence s16 24k": (S16_24K, bytes(SECONDS_3)),
    "silence pcmu": (PCMU_8K, b"\xff" * 24_000),
    "silence pcmu minus zero": (PCMU_8K, b"\x7f" * 24_000),
    "silence pcma": (PCMA_8K, b"\xd5" * 24_000),
    "silence, short": (S16_16K, bytes(16_000)),
    "dither": (S16_16K, np.random.default_rng(3).integers(-8, 9, 48_000).astype(np.int16).tobytes()),
    "constant": (S16_16K, b"\x10\x27" * 48_000),
    "constant pcmu": (PCMU_8K, b"\x23" * 24_000),
    "alternating zeros of pcmu": (PCMU_8K, b"\xff\x7f" * 12_000),
    "a click, then silence": (S16_16K, click_then_silence(S16_16K)),
    "a click, then silence pcmu": (PCMU_8K, click_then_silence(PCMU_8K)),
    "three samples": (S16_16K, b"\x01\x40\x02\x50\x01\x10"),
    # files
    "RIFF": (S16_16K, b"RIFF\x24\x80\0\0WAVEfmt " + voice()),
    "RIFF pcmu": (PCMU_8K, b"RIFF\x24\x80\0\0WAVEfmt " + coded(voice(), PCMU_8K)),
    "Ogg": (S16_24K, b"OggS\0\2" + noise(SECONDS_3)),
    "FLAC": (S16_24K, b"fLaC\0\0\0\x22" + noise(SECONDS_3)),
    "ID3": (S16_24K, b"ID3\x04\0\0\0\0\0\x23TSSE" + noise(SECONDS_3)),
    "WebM": (S16_24K, b"\x1aE\xdf\xa3\x9fB\x86\x81" + noise(SECONDS_3)),
    "MP4": (S16_24K, b"\0\0\0\x20ftypisom" + noise(SECONDS_3)),
    "AIFF": (S16_24K, b"FORM\0\1\2\3AIFF" + voice()),
    "Sun audio": (PCMU_8K, b".snd\0\0\0\x18" + coded(voice(), PCMU_8K)),
    "AMR": (S16_16K, b"#!AMR\n" + noise(SECONDS_3)),
    "gzip": (S16_16K, gzip.compress(voice(), mtime=0)),
    # streams of frames
    "MP3 128 kbit/s 44.1 kHz": (S16_24K, mp3(b"\xff\xfb\x90\x64", 417)),
    "MP3 160 kbit/s 24 kHz": (S16_24K, mp3(b"\xff\xf3\xe4\xc4", 480)),
    "MP3 32 kbit/s 16 kHz": (S16_16K, mp3(b"\xff\xf3\x48\xc4", 144)),
    "MP3 of zeros": (S16_24K, (b"\xff\xfb\x90\x64" + bytes(413)) * 200),
    "MP3 as pcmu": (PCMU_8K, mp3(b"\xff\xf3\xe4\xc4", 480)),
    "MP3 cut in its first frame": (S16_24K, mp3(b"\xff\xfb\x90\x64", 417)[100:]),
    "AAC": (S16_24K, adts()),
    "AAC pcmu": (PCMU_8K, adts()),
    # texts
    "JSON": (S16_16K, json.dumps({"error": {"message": "The model is overloaded. " * 30}}).encode()),
    "short JSON": (PCMU_8K, b'{"error": "overloaded"}'),
    "HTML": (PCMU_8K, b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>\r\n" * 40),
    "base64": (S16_16K, base64.b64encode(voice())),
    "base64 pcmu": (PCMU_8K, base64.b64encode(coded(voice(), PCMU_8K))),
    # noise, and samples of another kind
    "noise": (S16_16K, noise(SECONDS_3)),
    "noise pcmu": (PCMU_8K, noise(24_000)),
    "noise pcma": (PCMA_8K, noise(24_000)),
    "silence, then noise": (S16_16K, bytes(6400) + noise(SECONDS_3)),
    "network byte order": (S16_16K, samples().byteswap().tobytes()),
    "half a sample off": (S16_16K, b"\x01" + voice()[: len(voice()) // 2 * 2 - 1]),
    "float32": (S16_16K, (samples().astype(np.float32) / 32_768).tobytes()),
    "float32 24k": (S16_24K, (samples().astype(np.float32) / 32_768).tobytes()),
    "32 bits": (S16_16K, (samples().astype(np.int32) << 16 | 0x1234).tobytes()),
    "8 bits": (S16_16K, (samples() // 256 + 128).astype(np.uint8).tobytes()),
    "mu-law as s16": (S16_16K, coded(voice(), PCMU_8K)),
    "s16 as mu-law": (PCMU_8K, voice()),
    "s16 as A-law": (PCMA_8K, voice()),
    # of another rate
    "every sample twice": (S16_16K, np.repeat(samples(), 2).tobytes()),
    "stereo, one side silent": (S16_16K, np.stack([samples(), samples() * 0], 1).tobytes()),
    "every sample twice pcmu": (PCMU_8K, np.repeat(np.frombuffer(coded(voice(), PCMU_8K), np.uint8), 2).tobytes()),
}  # fmt: skip


def chunks(audio: bytes, fmt: AudioFormat, ms: float) -> list[Step]:
    size = max(1, round(ms * fmt.rate_hz / 1000)) * fmt.bytes_per_sample
    whole = audio[: len(audio) // fmt.bytes_per_sample * fmt.bytes_per_sample]
    return [AudioChunk(whole[at : at + size], fmt) for at in range(0, len(whole), size)]


class Rig:
    def __init__(self, *scripts: list[list[Step]]) -> None:
        self.noted = Noted()
        self.voices = [ToldVoice(name, script) for name, script in zip("ab", scripts, strict=False)]
        self.healths = [ProviderHealth("tts", one.name, self.noted) for one in self.voices]
        self.synthesizer = FallbackSynthesizer(
            [SpeechCandidate(one, health) for one, health in zip(self.voices, self.healths, strict=True)]
        )

    def speak(self, text: str = TEXT, volume_percent: int = 100) -> list[SpeechEvent]:
        async def body() -> list[SpeechEvent]:
            request = SpeechRequest(text=text, volume_percent=volume_percent)
            return [one async for one in self.synthesizer.stream(request)]

        return asyncio.run(body())

    def failures(self) -> list[str]:
        return [one for one in self.noted.lines if one.startswith("failure")]


def sound(events: list[SpeechEvent]) -> bytes:
    return b"".join(one.audio for one in events if isinstance(one, AudioChunk))


@pytest.mark.parametrize("ms", [20, 100, 1000])
@pytest.mark.parametrize("name", BODIES)
def test_nothing_of_a_bad_body_is_heard_and_the_next_voice_speaks_all(name: str, ms: int) -> None:
    fmt, body = BODIES[name]
    rig = Rig([chunks(body, fmt, ms)], [chunks(voice(), S16_16K, 100)])
    events = rig.speak()
    assert sound(events) == voice() and all(one.is_stand_in for one in events if isinstance(one, AudioChunk))
    assert rig.failures() == ["failure a protocol"]
    assert getattr(rig.voices[1].requests[0], "text", "") == TEXT, "from the beginning"


def test_the_corpus_is_large() -> None:
    assert len(BODIES) >= 30


def good(language: str) -> Iterator[tuple[str, bytes]]:
    for text in SPOKEN[language]:
        for pitch, rate in ((100, 100), (150, 100), (70, 100), (100, 150), (100, 70)):
            yield text, pico_s16(text, language=language, pitch_percent=pitch, rate_percent=rate)


@pytest.mark.parametrize("language", SPOKEN)
def test_good_voices_pass_whole_in_every_format_and_level(language: str) -> None:
    for text, s16 in good(language):
        for fmt in FORMATS:
            for times, ms in ((1.0, 20), (1.0, 7), (0.2, 100), (3.0, 1000)):
                audio = coded(s16, fmt, times)
                opening = Opening("a", must_sound=True)
                out: list[SpeechEvent] = []
                for chunk in chunks(audio, fmt, ms):
                    out += opening.push(chunk)  # type: ignore[arg-type]
                out += opening.end()
                assert sound(out) == audio, text


@pytest.mark.parametrize("name", ["beckett", "two_cities"])
def test_human_voices_pass_wherever_a_clause_may_begin(name: str) -> None:
    s16 = reading(name, 20)
    for at in range(0, len(s16) - 32_000, 3200):
        for fmt in (S16_16K, PCMU_8K):
            opening = Opening("a", must_sound=True)
            audio = coded(s16[at : at + 32_000], fmt)
            out = [event for chunk in chunks(audio, fmt, 20) for event in opening.push(chunk)]  # type: ignore[arg-type]
            assert sound([*out, *opening.end()]) == audio


def test_the_own_adapters_pass_the_whole_way() -> None:
    async def body() -> None:
        pico = PicoSynthesizer()
        for language, texts in SPOKEN.items():
            rig = Rig([])
            rig.synthesizer = FallbackSynthesizer([SpeechCandidate(pico, rig.healths[0])])
            for _ in range(3):  # the third time the pace is known
                for text in texts:
                    assert [one async for one in rig.synthesizer.stream(SpeechRequest(text=text, language=language))]
            assert rig.failures() == []
        await pico.aclose()

    asyncio.run(body())
    rig = Rig([chunks(render(TEXT), PCMU_8K, 100)])
    assert sound(rig.speak()) == render(TEXT)


@pytest.mark.parametrize("ms", [20, 100])
def test_a_tone_code_is_no_noise_and_has_a_pace_of_its_own(ms: int) -> None:
    dice = random.Random(7)
    texts = [f"code {dice.randrange(10_000)} {dice.randrange(256)} {dice.randrange(65_536)}," for _ in range(40)]
    texts += [f"{one} this is the scripted reply that the generator takes apart" for one in texts]
    rig = Rig([chunks(render(one), PCMU_8K, ms) for one in texts])
    for one in texts:
        assert sound(rig.speak(one)) == render(one)
    assert rig.failures() == []


def test_a_good_voice_is_given_on_with_the_chunk_that_holds_its_first_sound() -> None:
    opening = Opening("a", must_sound=True)
    silence = AudioChunk(bytes(3200), S16_16K)
    speech = AudioChunk(at_rate(voice(), 16_000)[16_000:19_200], S16_16K)
    assert opening.push(WordMark(0, 0, 2)) == [] == opening.push(silence)
    assert opening.push(speech) == [WordMark(0, 0, 2), silence, speech]
    assert opening.is_over and opening.push(silence) == [silence]


def test_silence_is_held_for_a_second_and_a_half_at_most() -> None:
    opening = Opening("a", must_sound=True)
    for _ in range(MAX_FLAT_MS // 100):
        assert opening.push(AudioChunk(bytes(3200), S16_16K)) == []
    with pytest.raises(ProviderProtocolError, match="one level"):
        opening.push(AudioChunk(bytes(3200), S16_16K))


@pytest.mark.parametrize(("text", "volume"), [("...", 100), (TEXT, 0)])
def test_silence_that_was_asked_for_is_none(text: str, volume: int) -> None:
    silence = bytes(round(32 * (65 if text == "..." else 55) * len(text)) // 2 * 2)
    rig = Rig([chunks(silence, S16_16K, 100)])
    assert sound(rig.speak(text, volume)) == silence
    assert rig.failures() == []


# ── how long it takes ─────────────────────────────────────────────────────────────────────────────────────────


def slower(times: float) -> bytes:
    """The voice played at a wrong rate: `times` as long."""
    return soxr.resample(samples().astype(np.float32), 1, times).astype(np.int16).tobytes()


@pytest.mark.parametrize(("times", "is_wrong"), [(0.75, False), (1.0, False), (1.4, False), (2.0, True), (3.0, True)])
def test_a_doubled_rate_is_told_once_the_voice_is_known(times: float, is_wrong: bool) -> None:
    known = [chunks(voice(), S16_16K, 100)] * MIN_KNOWN
    rig = Rig([*known, chunks(slower(times), S16_16K, 100)], [[]])
    for _ in range(MIN_KNOWN + 1):
        rig.speak()
    assert rig.failures() == (["failure a protocol"] if is_wrong else [])
    assert rig.voices[1].requests == [], "all words were heard, if slowly: nobody says them again"


def test_half_the_rate_is_told_and_the_rest_is_spoken_by_the_next() -> None:
    known = [chunks(voice(), S16_16K, 100)] * MIN_KNOWN
    rig = Rig([*known, chunks(slower(0.4), S16_16K, 100)], [chunks(voice(), S16_16K, 100)])
    for _ in range(MIN_KNOWN + 1):
        rig.speak()
    assert rig.failures() == ["failure a protocol"] and len(rig.voices[1].requests) == 1


def test_word_marks_tell_a_doubled_rate_of_an_unknown_voice() -> None:
    marks: list[Step] = []
    at, word_ms = 0, len(voice()) / 32 / len(TEXT.split())
    for number, word in enumerate(TEXT.split(" ")):
        marks.append(WordMark(round(number * word_ms), at, at + len(word)))
        at += len(word) + 1
    assert Rig([[*marks, *chunks(voice(), S16_16K, 100)]]).speak()
    rig = Rig([[*marks, *chunks(slower(2.0), S16_16K, 100)]], [[]])
    rig.speak()
    assert rig.failures() == ["failure a protocol"] and rig.voices[1].requests == []


def test_what_is_spoken_counts_and_not_what_is_written() -> None:
    assert spoken_chars("ten thirty") == len("ten thirty")
    assert spoken_chars("10:30") > 3 * len("10:30")
    assert spoken_chars("営業時間は九時からです") == 3 * 11


def test_a_pace_is_known_for_each_voice_and_bounded() -> None:
    pace = Pace()
    request = SpeechRequest(text=TEXT, voice="a")
    for _ in range(MIN_KNOWN):
        assert pace.bounds_ms(request) is None
        pace.learn(request, 3000)
    bounds = pace.bounds_ms(request)
    assert bounds is not None and bounds[0] < 1500 and 4500 < bounds[1] < 6000
    assert pace.bounds_ms(SpeechRequest(text=TEXT, voice="b")) is None
    assert pace.bounds_ms(SpeechRequest(text="Yes.", voice="a")) is None, "too short to be compared"
    for number in range(100):
        pace.learn(SpeechRequest(text=TEXT, voice=str(number)), 3000)
    assert pace.bounds_ms(request) is None


def test_judging_a_clause_costs_little() -> None:
    """A second of audio in chunks of 20 ms: measured 0.03 ms."""

    def timed(body: Callable[[], None]) -> float:
        began = time.perf_counter()
        body()
        return time.perf_counter() - began

    def judged() -> None:
        opening = Opening("a", must_sound=True)
        for chunk in pieces:
            opening.push(chunk)  # type: ignore[arg-type]

    pieces = chunks(voice()[:32_000], S16_16K, 20)
    assert min(timed(judged) for _ in range(20)) < 0.003
