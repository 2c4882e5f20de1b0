"""Recognition by what was received: clips that are known beforehand are found in a stream of samples, word by word.

    samples (s16, 8 kHz) -> which clip, at which sample -> each word: is its span undamaged? -> words

A word is heard when the samples of its span arrived: correlation with the clip's own samples of at least THRESHOLD, and
no more than a quarter of its audible 20 ms blocks ruined. Lost, damaged or never sent audio gives missing words, audio
that is in no clip gives none. Nothing is told on the side. Chunking does not matter; clips may be cut off, come one
after the other, repeat, or stand in noise; a loss inside a clip moves the rest and is followed.

A book is made of clips (text and s16 samples), saved as JSON and loaded by another process.
"""

from __future__ import annotations

import base64
import json
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.sim.clipsearch import Samples, Search
from bench.sim.sound import RATE_HZ, Clip, at_8khz, from_pcmu, to_pcmu

PER_MS = RATE_HZ // 1000
BLOCK = 160
"""20 ms: the grain in which damage is counted."""
_GRID = 80
"""10 ms: the grain of word borders that are guessed."""
_LEAST = 6
_PAUSE = 4


@dataclass(frozen=True, slots=True)
class Word:
    """One word and its span within a clip or a stream, ms. `text` as it is displayed, punctuation included."""

    text: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class BookClip:
    """A clip of the book: s16 samples at 8000 Hz, its words in order. `language` "": heard in every language."""

    name: str
    s16: bytes
    words: tuple[Word, ...]
    language: str = ""

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def primary(self) -> str:
        return self.language.split("-")[0].lower()

    @classmethod
    def of(cls, name: str, text: str, s16: bytes, *, rate_hz: int = RATE_HZ, language: str = "") -> BookClip:
        """A clip whose words share its time by their length and its pauses. Raises ValueError when it has no word."""
        line = at_8khz(s16, rate_hz)
        return cls(name, line, split_words(text, line), language)

    @classmethod
    def of_pcmu(cls, name: str, text: str, pcmu: bytes, *, language: str = "") -> BookClip:
        return cls.of(name, text, from_pcmu(pcmu), language=language)

    @classmethod
    def of_clip(cls, name: str, clip: Clip, *, language: str = "") -> BookClip:
        """What a simulated caller says."""
        return cls.of_pcmu(name, clip.text, clip.pcmu[: clip.speech_samples], language=language)

    @classmethod
    def of_parts(
        cls, name: str, parts: Sequence[tuple[str, bytes]], *, gap_ms: int = 60, language: str = ""
    ) -> BookClip:
        """A clip of words that were rendered apart, (text, s16 at 8000 Hz) each: their times are exact."""
        words, line = [], bytearray()
        for text, s16 in parts:
            line += bytes(2 * gap_ms * PER_MS) if line else b""
            start_ms = len(line) / 2 / PER_MS
            line += s16
            words.append(Word(text, start_ms, len(line) / 2 / PER_MS))
        return cls(name, bytes(line), tuple(words), language)


def split_words(text: str, s16: bytes) -> tuple[Word, ...]:
    """Share the time of a clip among the words of its text: by their letters, borders where it is quiet.

    Raises ValueError: no words, or less than 60 ms for each.
    """
    names = text.split()
    samples = np.frombuffer(s16, "<i2").astype(np.float32)
    size = samples.size // _GRID
    if not names or size < _LEAST * len(names):
        raise ValueError(f"expected words and at least 60 ms for each; got {text!r}, {samples.size} samples")
    loudness = np.sqrt((samples[: size * _GRID].reshape(size, _GRID) ** 2).mean(axis=1))
    smooth = np.convolve(loudness, np.ones(3) / 3, "same")
    # Pauses belong to no word: only what is audible is shared out.
    audible = np.flatnonzero(smooth >= 0.03 * smooth.max())
    if audible.size < _LEAST * len(names):
        audible = np.arange(size)
    heard = smooth[audible] / (smooth.max() + 1e-9)
    heard[1:][np.diff(audible) >= _PAUSE] = 0.0
    borders = _borders(names, heard)
    return tuple(
        Word(name, int(audible[low]) * _GRID / PER_MS, (int(audible[high - 1]) + 1) * _GRID / PER_MS)
        for name, low, high in zip(names, borders, borders[1:], strict=False)
    )


def _borders(names: Sequence[str], loudness: Samples) -> list[int]:
    """The cheapest borders: a word of twice or half its share costs as much as a border in the middle of a vowel."""
    size, count = loudness.size, len(names)
    weights = [2 + len(name.strip(",.;:?!")) for name in names]
    at_border = 2 * loudness.astype(np.float64) ** 0.5
    cost = np.full(size + 1, np.inf)
    cost[0] = 0.0
    steps: list[np.ndarray] = []
    for weight in weights:
        share = size * weight / sum(weights)
        best = np.full(size + 1, np.inf)
        step = np.zeros(size + 1, np.int32)
        for length in range(_LEAST, min(size - _LEAST * (count - 1), int(4 * share) + 20) + 1):
            these = cost[: size + 1 - length] + np.log2(length / share) ** 2
            cheaper = these < best[length:]
            best[length:][cheaper] = these[cheaper]
            step[length:][cheaper] = length
        cost = best
        cost[:size] += at_border
        steps.append(step)
    borders = [size]
    for step in reversed(steps):
        borders.append(borders[-1] - int(step[borders[-1]]))
    return borders[::-1]


class Clipbook:
    """The clips that a simulated recogniser knows; fixed. What is derived from them is made once, when first used."""

    def __init__(self, clips: Iterable[BookClip] = ()) -> None:
        self.clips = tuple(clips)
        self._by_language: dict[str, Clipbook] = {}

    @cached_property
    def search(self) -> Search:
        return Search([shapes[0] for shapes in self.shapes])

    @cached_property
    def shapes(self) -> list[tuple[Samples, Samples]]:
        """Each clip's samples, and the same half a sample later (a resampler on the way may have moved it)."""
        return [(samples, _half_later(samples)) for samples in map(_floats, self.clips)]

    def for_language(self, language: str) -> Clipbook:
        """The clips that somebody hears who expects `language` (a tag; its first part decides; "": all)."""
        wanted = language.split("-")[0].lower()
        if not wanted or all(clip.primary in ("", wanted) for clip in self.clips):
            return self
        if wanted not in self._by_language:
            self._by_language[wanted] = Clipbook(clip for clip in self.clips if clip.primary in ("", wanted))
        return self._by_language[wanted]

    def save(self, path: Path) -> None:
        """As JSON; samples as mu-law in base64."""
        clips = [
            {
                "name": clip.name,
                "language": clip.language,
                "pcmu": base64.b64encode(to_pcmu(clip.s16)).decode(),
                "words": [[word.text, round(word.start_ms, 2), round(word.end_ms, 2)] for word in clip.words],
            }
            for clip in self.clips
        ]
        path.write_text(json.dumps({"clips": clips}, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path) -> Clipbook:
        """A book that was saved, or a folder of NAME.wav with NAME.txt. Raises OSError, ValueError, KeyError."""
        if path.is_dir():
            return cls(_read_wav(wav) for wav in sorted(path.glob("*.wav")))
        return cls(
            BookClip(
                one["name"],
                from_pcmu(base64.b64decode(one["pcmu"])),
                tuple(Word(*word) for word in one["words"]),
                one.get("language", ""),
            )
            for one in json.loads(path.read_text())["clips"]
        )


def _floats(clip: BookClip) -> Samples:
    return np.frombuffer(clip.s16, "<i2").astype(np.float32)


def _half_later(samples: Samples) -> Samples:
    size = samples.size + 64
    turn = np.exp(-1j * np.pi * np.arange(size // 2 + 1) / size)
    return np.fft.irfft(np.fft.rfft(samples, size) * turn, size)[: samples.size].astype(np.float32)


def _read_wav(path: Path) -> BookClip:
    with wave.open(str(path), "rb") as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise ValueError(f"{path}: expected mono 16-bit")
        s16, rate_hz = file.readframes(file.getnframes()), file.getframerate()
    return BookClip.of(path.stem, path.with_suffix(".txt").read_text().strip(), s16, rate_hz=rate_hz)
