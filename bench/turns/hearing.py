"""From what a caller heard to the log: where the agent was audible, and where its answers began.

Each answer of the simulated model opens with the same words, and a simulated voice says them the same each time, so an
opening is found by correlation with them. Nothing of the server is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.sim.azure.render import render
from bench.sim.azure.ssml import Say, Script
from bench.sim.sound import AUDIBLE_PEAK, FRAME_MS, RATE_HZ, from_pcmu
from bench.turns.call_log import JOIN_MS, CallLog
from bench.turns.surroundings import Floats

FORM = "raw-8khz-8bit-mono-mulaw"
LEAST_MATCH = 0.75
APART_MS = 500.0
_BLOCK = 1 << 16


def said_by_agent(text: str, voice: str) -> Floats:
    """`text` as the simulated voice says it, without silence at either end. Raises KeyError, ValueError."""
    locale = "-".join(voice.split("-")[:2])
    sound = np.frombuffer(from_pcmu(render(Script((Say(text, voice, locale),), (voice,)), FORM).audio), "<i2").astype(
        np.float64
    )
    loud = np.flatnonzero(np.abs(sound) >= AUDIBLE_PEAK)
    if not loud.size:
        raise ValueError(f"the voice {voice} says nothing for {text!r}")
    return np.asarray(sound[int(loud[0]) : int(loud[-1]) + 1])


def note(log: CallLog, heard: Sequence[bytes], first_ms: float, opener: Floats) -> None:
    """Put what was heard into the log. `first_ms`: the instant at which the first of the frames began."""
    line = np.frombuffer(from_pcmu(b"".join(heard)), "<i2").astype(np.float64)
    log.agent = [(first_ms + begin, first_ms + end) for begin, end in audible(line)]
    log.openings = [first_ms + at * 1000 / RATE_HZ for at in places(line, opener)]


def audible(line: Floats) -> list[tuple[float, float]]:
    """Stretches in ms, to a frame."""
    size = RATE_HZ * FRAME_MS // 1000
    peaks = np.abs(line[: line.size // size * size].reshape(-1, size)).max(axis=1, initial=0)
    found: list[tuple[float, float]] = []
    for at in np.flatnonzero(peaks >= AUDIBLE_PEAK).tolist():
        begin, end = float(at * FRAME_MS), float((at + 1) * FRAME_MS)
        if found and begin - found[-1][1] <= JOIN_MS:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def places(line: Floats, opener: Floats) -> list[int]:
    """Samples at which `opener` begins."""
    size = opener.size
    if line.size < size:
        return []
    pattern = opener / float(np.sqrt((opener**2).sum()))
    sums = np.concatenate([[0.0], np.cumsum(line**2)])
    norms = np.sqrt(np.maximum(sums[size:] - sums[:-size], 1.0))
    spectrum = np.conj(np.fft.rfft(pattern, _BLOCK))
    match = np.empty(line.size - size + 1)
    step = _BLOCK - size + 1
    for at in range(0, match.size, step):
        block = np.fft.irfft(np.fft.rfft(line[at : at + _BLOCK], _BLOCK) * spectrum, _BLOCK)[:step]
        match[at : at + step] = block[: match.size - at]
    match /= norms
    found: list[int] = []
    for at in np.flatnonzero(match >= LEAST_MATCH).tolist():
        if not found or at - found[-1] > APART_MS * RATE_HZ / 1000:
            found.append(at)
        elif match[at] > match[found[-1]]:
            found[-1] = at
    return found
