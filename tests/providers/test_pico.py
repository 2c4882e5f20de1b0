"""Pico: what comes out is audible at once, level, bounded, safe against its own markup, and leaks nothing."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import numpy as np
import pytest

from providers.base import AudioChunk, SpeechRequest
from providers.errors import ProviderRejected, ProviderUnavailable
from providers.offline import pico, pico_engine
from providers.offline.pico import PicoSynthesizer
from tests.providers.sound import spoken

SENTENCES = {
    "en-US": "Good morning, this is the dental clinic. We are open from nine to six on weekdays.",
    "en-GB": "Good morning, this is the dental clinic. We are open from nine to six on weekdays.",
    "es-ES": "Buenos días, restaurante La Marea. ¿Quiere reservar una mesa para esta noche?",
    "de-DE": "Guten Morgen, hier ist die Zahnarztpraxis. Wir haben von neun bis achtzehn Uhr geöffnet.",
    "fr-FR": "Bonjour, ici le cabinet dentaire. Nous sommes ouverts de neuf heures à dix-huit heures.",
    "it-IT": "Buongiorno, qui è lo studio dentistico. Siamo aperti dalle nove alle diciotto.",
}


def active_dbfs(samples: np.ndarray) -> float:
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320).astype(float)
    rms = np.sqrt((frames**2).mean(axis=1))
    return float(20 * np.log10(np.sqrt((frames[rms > rms.max() / 30] ** 2).mean()) / 32768))


def speak(text: str, language: str = "en-US") -> np.ndarray:
    async def run() -> bytes:
        voice = PicoSynthesizer()
        try:
            return await spoken(voice, text, language)
        finally:
            await voice.aclose()

    return np.frombuffer(asyncio.run(run()), dtype=np.int16)


@pytest.mark.parametrize("language", SENTENCES)
def test_voice(language: str) -> None:
    samples = speak(SENTENCES[language], language)
    assert 3 < len(samples) / pico.RATE_HZ < 12
    assert -22 < active_dbfs(samples) < -18
    assert np.abs(samples.astype(int)).max() < 32000, "clipped"
    loud = np.flatnonzero(np.abs(samples.astype(int)) > pico.AUDIBLE)
    assert loud[0] <= pico.LEAD_SAMPLES
    ending = np.flatnonzero(np.abs(samples.astype(int)) > pico.AUDIBLE_AT_END)
    assert len(samples) - ending[-1] - 1 <= pico.TRAIL_SAMPLES


@pytest.mark.parametrize("language", ["es-MX", "en", "de-AT"])
def test_nearest_voice_of_a_language(language: str) -> None:
    assert len(speak("no", language)) > 0


def test_trim_keeps_pauses_and_holds_back_silence() -> None:
    trim = pico._Trim()
    loud = np.full(1000, 5000, dtype=np.int16).tobytes()
    quiet = bytes(2 * 5000)
    assert trim.push(quiet) == b""
    assert trim.push(quiet + loud + quiet) == quiet[: 2 * pico.LEAD_SAMPLES] + loud
    assert trim.push(quiet) == b""
    assert trim.push(loud) == quiet + quiet + loud
    assert trim.flush() == b""
    assert trim.push(quiet) == b""
    assert trim.flush() == quiet[: 2 * pico.TRAIL_SAMPLES]


@pytest.mark.parametrize(
    "text",
    ["x<spell>abc", "<", "a <break time='9s'/> b", "1" * 70,
     "b" * 500, "\x00\x1b[0m", "\ud800", "😀 hi", "日本語", "", "  ", "..."],
)
def test_no_text_harms_the_engine(text: str) -> None:
    assert len(speak(text)) / pico.RATE_HZ < 60
    assert len(speak("Hello there.")) > pico.RATE_HZ // 2


def test_clean_and_pieces() -> None:
    assert pico_engine.clean(" a<b>c\n12345678901 ") == "a b c 1 2 3 4 5 6 7 8 9 0 1"
    text = "This is one sentence, with a comma. " * 40
    parts = list(pico_engine.pieces(text.strip()))
    assert max(map(len, parts)) <= pico_engine.PIECE_CHARS
    assert " ".join(parts) == text.strip()
    assert all(part.endswith(".") for part in parts)


def pitch_hz(samples: np.ndarray) -> float:
    """The median fundamental of the voiced frames, by autocorrelation."""
    found = []
    for frame in samples[: len(samples) // 640 * 640].reshape(-1, 640).astype(float):
        power = np.correlate(frame, frame, "full")[639:]
        lags = np.arange(pico.RATE_HZ // 350, pico.RATE_HZ // 70)
        best = lags[power[lags].argmax()]
        if power[0] > 640 * 500**2 and power[best] > 0.5 * power[0]:
            found.append(pico.RATE_HZ / best)
    return float(np.median(found))


def test_a_setting_of_the_voice_is_heard() -> None:
    async def run(**settings: Any) -> np.ndarray:
        voice = PicoSynthesizer()
        request = SpeechRequest(text=SENTENCES["en-US"], **settings)
        audio = b"".join([one.audio async for one in voice.stream(request) if isinstance(one, AudioChunk)])
        await voice.aclose()
        return np.frombuffer(audio, dtype=np.int16)

    plain, fast, slow, high, quiet, british = (
        asyncio.run(run(**one))
        for one in ({}, {"rate_percent": 50}, {"rate_percent": -30}, {"pitch_percent": 30}, {"volume_percent": 50},
                    {"voice": "en-GB"})
    )  # fmt: skip
    assert len(fast) < 0.8 * len(plain) < 0.8 * len(slow)
    assert 1.15 < pitch_hz(high) / pitch_hz(plain) < 1.45 and abs(len(high) - len(plain)) < 0.05 * len(plain)
    assert -7 < active_dbfs(quiet) - active_dbfs(plain) < -5 and abs(len(quiet) - len(plain)) < 0.05 * len(plain)
    assert abs(len(british) - len(plain)) > 0.05 * len(plain) or abs(pitch_hz(british) / pitch_hz(plain) - 1) > 0.05


def test_voices_side_by_side_do_not_disturb_each_other() -> None:
    async def run() -> tuple[list[bytes], list[bytes]]:
        voice = PicoSynthesizer(workers=3)
        one_by_one = [await spoken(voice, text, language) for language, text in SENTENCES.items()]
        together = await asyncio.gather(*(spoken(voice, text, language) for language, text in SENTENCES.items()))
        await voice.aclose()
        return one_by_one, list(together)

    for alone, beside in zip(*asyncio.run(run()), strict=True):
        # Pico's noise source runs on between texts, so lengths agree and bytes need not.
        assert abs(len(alone) - len(beside)) < 0.05 * len(alone)


def test_refusals_and_bounds() -> None:
    async def first(voice: PicoSynthesizer, request: SpeechRequest) -> object:
        return await anext(voice.stream(request))

    async def run() -> None:
        voice = PicoSynthesizer()
        for wrong in (
            SpeechRequest(text="x", language="ja"),
            SpeechRequest(text="x", voice="nobody"),
            SpeechRequest(text="x" * 5001),
        ):
            with pytest.raises(ProviderRejected):
                await first(voice, wrong)
        streams = [voice.stream(SpeechRequest(text="hello")) for _ in range(pico.MAX_WAITING_PIECES + 1)]
        results = await asyncio.gather(*(anext(one) for one in streams), return_exceptions=True)
        assert sum(isinstance(one, ProviderUnavailable) for one in results) == 1
        for one in streams:
            await one.aclose()
        await voice.aclose()
        with pytest.raises(ProviderUnavailable, match="closed"):
            await first(voice, SpeechRequest(text="hello"))

    asyncio.run(run())


@pytest.mark.slow
def test_a_hundred_sentences_leak_nothing() -> None:
    async def run() -> int:
        voice = PicoSynthesizer()
        for _ in range(20):
            await spoken(voice, "Good morning, this is the clinic.")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(100):
            await spoken(voice, "Good morning, this is the clinic.")
        await voice.aclose()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    # The package's own binding grows by 15 KiB a second of speech: some 3,000 KiB here.
    assert asyncio.run(run()) < 1024
