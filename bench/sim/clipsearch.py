"""Where in a book of clips a short piece of sound comes from: correlation by FFT at 2 kHz, confirmed at 8 kHz.

All clips stand in one line with silence between them; its spectra in blocks are made once. A search costs one
forward and some hundred inverse transforms: 1 to 6 ms for a book of one to four minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Samples = np.ndarray[Any, np.dtype[np.float32]]

DOWN = 4
WINDOW = 2048
"""Longest piece that is looked for, samples at 8 kHz (256 ms)."""
_FFT = 2048
_STEP = _FFT - WINDOW // DOWN
_GAP = WINDOW
_CANDIDATES = 6
_NEAR = 64
_LOW_SCORE = 0.4
_REFINE = 6


@dataclass(frozen=True, slots=True)
class Place:
    """The piece begins at sample `at` of clip `clip` (negative: before the clip); correlation at 8 kHz in `score`."""

    clip: int
    at: int
    score: float


def slower(samples: Samples) -> Samples:
    """A quarter of the rate, all above 1 kHz taken away."""
    even = samples[: samples.size // DOWN * DOWN]
    spectrum = np.fft.rfft(even)[: even.size // DOWN // 2 + 1]
    return np.fft.irfft(spectrum, even.size // DOWN).astype(np.float32)


class Search:
    """An index of clips, each float32 at 8 kHz. Immutable, may be shared by all streams."""

    __slots__ = ("_low_sums", "_spectra", "_starts", "_usual", "line")

    def __init__(self, clips: Sequence[Samples]) -> None:
        parts, starts, at = [np.zeros(_GAP, np.float32)], [], _GAP
        for clip in clips:
            starts.append(at)
            padded = np.zeros((clip.size // DOWN + 1) * DOWN + _GAP, np.float32)
            padded[: clip.size] = clip
            parts.append(padded)
            at += padded.size
        self.line = np.concatenate([*parts, np.zeros(_GAP, np.float32)])
        self._starts = np.array(starts, np.int64)
        self._usual: Samples | None = None
        low = slower(self.line)
        self._low_sums = np.concatenate(([0.0], np.cumsum(low.astype(np.float64) ** 2)))
        count = max(1, -(-(low.size - WINDOW // DOWN) // _STEP))
        padded = np.zeros(count * _STEP + _FFT, np.float32)
        padded[: low.size] = low
        blocks = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[: count * _STEP : _STEP]
        self._spectra = np.fft.rfft(blocks, axis=1).astype(np.complex64)

    def find(self, piece: Samples) -> list[Place]:
        """The places that fit `piece` (at most WINDOW samples), best first; none with a score below _LOW_SCORE."""
        if not self._starts.size or piece.size < 8 * DOWN:
            return []
        places = (self._refined(piece, low * DOWN) for low in self._peaks(slower(piece)))
        return sorted((place for place in places if place.score >= _LOW_SCORE), key=lambda place: -place.score)

    def _peaks(self, probe: Samples) -> list[int]:
        size = float(np.sqrt(np.dot(probe, probe)))
        if size <= 0:
            return []
        spectrum = np.conj(np.fft.rfft(probe, _FFT)).astype(np.complex64)
        match = np.fft.irfft(self._spectra * spectrum, _FFT, axis=1)[:, :_STEP].ravel()
        inverse = self._inverse_norms(probe.size)
        # The last places lie in the silence at the end of the line; either may reach further there.
        count = min(match.size, inverse.size)
        scores = match[:count] * inverse[:count]
        rows = scores[: scores.size // _NEAR * _NEAR].reshape(-1, _NEAR)
        best = rows.max(axis=1)
        return [
            int(row) * _NEAR + int(np.argmax(rows[row]))
            for row in np.argsort(best)[::-1][:_CANDIDATES]
            if best[row] >= _LOW_SCORE * size
        ]

    def _inverse_norms(self, size: int) -> Samples:
        """1 / energy of the line in a window of `size`, at each of its places; for the usual size kept."""
        if size == WINDOW // DOWN and self._usual is not None:
            return self._usual
        sums = self._low_sums
        norms = np.sqrt(np.maximum(sums[size:] - sums[:-size], 0))
        inverse: Samples = (1 / np.maximum(norms, 0.05 * float(norms.max()) + 1e-9)).astype(np.float32)
        if size == WINDOW // DOWN:
            self._usual = inverse
        return inverse

    def _refined(self, piece: Samples, at: int) -> Place:
        low = max(0, at - _REFINE)
        around = self.line[low : at + piece.size + _REFINE]
        match = np.correlate(around, piece, "valid")
        sums = np.concatenate(([0.0], np.cumsum(around.astype(np.float64) ** 2)))
        norms = np.sqrt(np.maximum(sums[piece.size :] - sums[: match.size], 1e-9))
        scores = match / norms / float(np.sqrt(np.dot(piece, piece)))
        best = int(np.argmax(scores))
        clip = max(0, int(np.searchsorted(self._starts, low + best + piece.size // 2, "right")) - 1)
        return Place(clip, low + best - int(self._starts[clip]), float(scores[best]))
