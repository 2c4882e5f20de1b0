"""Speech for the tests of the recogniser: real readings from a package, and Pico's sentences. s16 at 16 kHz."""

from __future__ import annotations

import wave

import numpy as np
import soxr

from providers.base import AudioChunk, SpeechRequest
from providers.offline.moonshine_model import RATE_HZ, package_folder
from providers.offline.pico import PicoSynthesizer

# Human readings inside moonshine-voice 0.1.0 (public-domain texts, MIT package).
BECKETT = "ever tried ever failed no matter try again fail again fail better"
TWO_CITIES = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age of foolishness"
    " it was the epoch of belief it was the epoch of incredulity it was the season of light it was the season of"
    " darkness it was the spring of hope it was the winter of despair"
)


def reading(name: str, seconds: float = 1e9) -> bytes:
    """A recorded human voice: "beckett" (10 s) or "two_cities" (44 s)."""
    with wave.open(str(package_folder().parent / f"{name}.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
        rate_hz = file.getframerate()
    resampled = soxr.resample(samples.astype(np.float32) / 32768, rate_hz, RATE_HZ)
    return to_s16(resampled[: int(min(seconds, 1e6) * RATE_HZ)])


def through_telephone(audio: bytes) -> bytes:
    """What is left of `audio` after 8 kHz and mu-law, by formula and not by our codec."""
    samples = np.frombuffer(audio, dtype=np.int16).astype(np.float32) / 32768
    narrow = soxr.resample(samples, RATE_HZ, 8000)
    pressed = np.sign(narrow) * np.log1p(255 * np.clip(np.abs(narrow), 0, 1)) / np.log(256)
    pressed = np.round(pressed * 127) / 127
    opened = np.sign(pressed) * np.expm1(np.abs(pressed) * np.log(256)) / 255
    return to_s16(soxr.resample(opened.astype(np.float32), 8000, RATE_HZ))


def to_s16(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()


async def spoken(voice: PicoSynthesizer, text: str, language: str = "en-US") -> bytes:
    chunks = [one async for one in voice.stream(SpeechRequest(text=text, language=language))]
    return b"".join(one.audio for one in chunks if isinstance(one, AudioChunk))


def word_errors(heard: str, meant: str) -> tuple[int, int]:
    """(edit distance in words, words meant); punctuation and case do not count."""
    left, right = (_words(text) for text in (heard, meant))
    row = list(range(len(right) + 1))
    for at, word in enumerate(left, 1):
        before, row[0] = row[0], at
        for to, other in enumerate(right, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != other))
    return row[-1], len(right)


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c in "' " else " " for c in text.lower()).split()
