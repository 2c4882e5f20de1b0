"""Sound of a simulated telephone: G.711 and resampling by libraries that the product does not use for it.

audioop (the standard library's, or audioop-lts from Python 3.13 on) codes mu-law, soxr changes rates of whole clips
at high quality; so a mistake in the product's own kernels cannot cancel out against the same mistake here.
"""

from __future__ import annotations

import base64
import warnings
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

RATE_HZ = 8000
FRAME_MS = 20
FRAME_SAMPLES = 160
FRAME_NS = FRAME_MS * 1_000_000
SAMPLES_PER_MS = 8
SILENCE = b"\xff" * FRAME_SAMPLES
"""One frame of PCMU silence (ITU-T G.711: code 0xFF is +0)."""
SILENCE_B64 = base64.b64encode(SILENCE).decode()
AUDIBLE_PEAK = 200
"""Above this absolute sample value a listener hears something (-44 dBFS; line noise stays below)."""


def to_pcmu(s16: bytes) -> bytes:
    """Linear samples (s16, host order, 8000 Hz) as mu-law codes."""
    return bytes(audioop.lin2ulaw(s16, 2))


def from_pcmu(pcmu: bytes) -> bytes:
    return bytes(audioop.ulaw2lin(pcmu, 2))


def peak(pcmu: bytes) -> int:
    """Largest absolute sample of coded audio, 0..32124."""
    return int(audioop.max(audioop.ulaw2lin(pcmu, 2), 2))


def is_audible(pcmu: bytes) -> bool:
    return peak(pcmu) >= AUDIBLE_PEAK


def first_audible_sample(pcmu: bytes) -> int | None:
    """Index of the first audible sample; None when there is none."""
    levels = np.abs(np.frombuffer(from_pcmu(pcmu), "<i2").astype(np.int32))
    hits = np.flatnonzero(levels >= AUDIBLE_PEAK)
    return int(hits[0]) if hits.size else None


def at_8khz(s16: bytes, rate_hz: int) -> bytes:
    """A whole clip (s16 mono) at 8000 Hz, by soxr at its highest quality."""
    if rate_hz == RATE_HZ:
        return s16
    samples = np.frombuffer(s16, "<i2").astype(np.float32) / 32768
    out = soxr.resample(samples, rate_hz, RATE_HZ, "VHQ")
    return bytes((np.clip(out, -1.0, 32767 / 32768) * 32768).astype("<i2").tobytes())


@dataclass(frozen=True, slots=True)
class Clip:
    """Something a caller says: its sound as telephone frames, the words that are in it, and where it comes from.

    `pcmu` has no silence at either end and is padded to whole frames; `speech_samples` excludes the padding.
    """

    text: str
    source: str
    pcmu: bytes
    speech_samples: int
    frames_b64: tuple[str, ...] = field(repr=False)

    @property
    def duration_ms(self) -> int:
        return self.speech_samples // SAMPLES_PER_MS

    @property
    def frames(self) -> int:
        return len(self.frames_b64)

    @classmethod
    def from_s16(cls, s16: bytes, rate_hz: int, *, text: str, source: str, target_peak: int = 12000) -> Clip:
        """A clip from linear mono audio: at 8000 Hz, trimmed, at the level of a usual telephone call."""
        line = at_8khz(s16, rate_hz)
        top = audioop.max(line, 2)
        if top == 0:
            raise ValueError(f"{source}: the clip is silent")
        pcmu = to_pcmu(audioop.mul(line, 2, target_peak / top))
        return cls.from_pcmu(pcmu, text=text, source=source)

    @classmethod
    def from_pcmu(cls, pcmu: bytes, *, text: str, source: str) -> Clip:
        levels = np.abs(np.frombuffer(from_pcmu(pcmu), "<i2").astype(np.int32))
        loud = np.flatnonzero(levels >= AUDIBLE_PEAK)
        if not loud.size:
            raise ValueError(f"{source}: the clip is silent")
        speech = pcmu[int(loud[0]) : int(loud[-1]) + 1]
        padded = speech + b"\xff" * (-len(speech) % FRAME_SAMPLES)
        frames = tuple(
            base64.b64encode(padded[at : at + FRAME_SAMPLES]).decode() for at in range(0, len(padded), FRAME_SAMPLES)
        )
        return cls(text, source, padded, len(speech), frames)

    @classmethod
    def from_wav(cls, path: Path, *, text: str, source: str, start_ms: int = 0, end_ms: int | None = None) -> Clip:
        """A clip from a mono 16-bit WAV file, or from a part of it. Raises ValueError for other files."""
        with wave.open(str(path), "rb") as file:
            if file.getnchannels() != 1 or file.getsampwidth() != 2:
                raise ValueError(f"{path}: expected mono 16-bit")
            rate_hz = file.getframerate()
            file.setpos(start_ms * rate_hz // 1000)
            count = file.getnframes() - file.tell()
            if end_ms is not None:
                count = min(count, (end_ms - start_ms) * rate_hz // 1000)
            return cls.from_s16(file.readframes(count), rate_hz, text=text, source=source)


def write_stereo(path: Path, left_pcmu: bytes, right_pcmu: bytes) -> None:
    """Write two mu-law channels as one 16-bit stereo WAV at 8000 Hz; the shorter one is filled with silence."""
    length = max(len(left_pcmu), len(right_pcmu))
    both = np.zeros((length, 2), "<i2")
    for column, pcmu in enumerate((left_pcmu, right_pcmu)):
        samples = np.frombuffer(from_pcmu(pcmu), "<i2")
        both[: samples.size, column] = samples
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(both.tobytes())
