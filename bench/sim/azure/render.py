"""A script as sound: SVOX Pico in the requested voice and format, with the times of its words.

Deterministic: equal scripts give equal bytes. Rendered sentences are kept, for agents say the same things often. Costs
some 10 ms of CPU for each second of speech; call it off the event loop.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soxr

from bench.sim.azure.ssml import Bookmark, Pause, Say, Script
from bench.sim.azure.voices import VOICES, pico_language
from bench.sim.clipbook import Word, split_words
from bench.sim.sound import at_8khz, audioop
from bench.sim.voice import PICO_RATE_HZ, pico_s16

_BYTES_PER_MS = {"mulaw": 8, "alaw": 8}


@dataclass(frozen=True, slots=True)
class Format:
    """An output format by its public name. `coding`: pcm, mulaw or alaw."""

    name: str
    rate_hz: int
    coding: str

    @property
    def bytes_per_ms(self) -> float:
        return self.rate_hz / 1000 * (2 if self.coding == "pcm" else 1)

    @property
    def is_riff(self) -> bool:
        return self.name.startswith("riff-")


FORMATS: dict[str, Format] = {
    f"{head}-{khz}-{bits}-mono-{coding}": Format(f"{head}-{khz}-{bits}-mono-{coding}", rate_hz, coding)
    for head in ("raw", "riff")
    for khz, rate_hz, bits, coding in (
        ("8khz", 8000, "8bit", "mulaw"), ("8khz", 8000, "8bit", "alaw"), ("8khz", 8000, "16bit", "pcm"),
        ("16khz", 16_000, "16bit", "pcm"), ("22050hz", 22_050, "16bit", "pcm"), ("24khz", 24_000, "16bit", "pcm"),
        ("44100hz", 44_100, "16bit", "pcm"), ("48khz", 48_000, "16bit", "pcm"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rendered:
    """`words` and `marks` (name, ms) with their times in the sound. `audio` has no header."""

    audio: bytes
    words: tuple[Word, ...]
    marks: tuple[tuple[str, float], ...]
    format: Format

    @property
    def ms(self) -> float:
        return len(self.audio) / self.format.bytes_per_ms


@lru_cache(maxsize=128)
def render(script: Script, format_name: str) -> Rendered:
    """Raises KeyError for a format that it does not make."""
    form = FORMATS[format_name]
    line = bytearray()
    words: list[Word] = []
    marks: list[tuple[str, float]] = []
    for part in script.parts:
        at_ms = len(line) / 2 / (PICO_RATE_HZ / 1000)
        if isinstance(part, Pause):
            line += bytes(2 * (PICO_RATE_HZ // 1000) * part.ms)
        elif isinstance(part, Bookmark):
            marks.append((part.name, at_ms))
        else:
            s16 = _spoken(part)
            line += s16
            words += [Word(one.text, at_ms + one.start_ms, at_ms + one.end_ms) for one in _times(part.text, s16)]
    return Rendered(coded(bytes(line), form), tuple(words), tuple(marks), form)


def coded(s16: bytes, form: Format) -> bytes:
    """Linear samples at Pico's rate in another format, without a header."""
    line = s16
    if form.rate_hz == 8000:
        line = at_8khz(s16, PICO_RATE_HZ)
    elif form.rate_hz != PICO_RATE_HZ:
        samples = soxr.resample(np.frombuffer(s16, "<i2").astype(np.float32) / 32768, PICO_RATE_HZ, form.rate_hz)
        line = (np.clip(samples, -1, 32767 / 32768) * 32768).astype("<i2").tobytes()
    if form.coding == "mulaw":
        return bytes(audioop.lin2ulaw(line, 2))
    return bytes(audioop.lin2alaw(line, 2)) if form.coding == "alaw" else line


def riff_head(form: Format, size: int) -> bytes:
    """A RIFF/WAVE header for `size` bytes."""
    tag, width = {"pcm": (1, 2), "mulaw": (7, 1), "alaw": (6, 1)}[form.coding]
    shape = struct.pack("<HHIIHH", tag, 1, form.rate_hz, form.rate_hz * width, width, 8 * width)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + shape
        + b"data"
        + struct.pack("<I", size)
    )


@lru_cache(maxsize=512)
def _spoken(say: Say) -> bytes:
    """s16 at Pico's rate."""
    voice = VOICES[say.voice]
    try:
        s16 = pico_s16(
            say.text,
            language=pico_language(say.locale),
            pitch_percent=min(max(round(voice.pitch_percent * say.pitch), 50), 200),
            rate_percent=min(max(round(voice.rate_percent * say.rate), 20), 500),
        )
    except ValueError:
        return b""  # nothing audible, as of punctuation alone
    return s16 if say.volume == 1.0 else bytes(audioop.mul(s16, 2, say.volume))


def _times(text: str, s16: bytes) -> tuple[Word, ...]:
    try:
        return split_words(text, at_8khz(s16, PICO_RATE_HZ))
    except ValueError:
        return ()  # nothing audible, as of punctuation alone
