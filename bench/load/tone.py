"""The generator's own reading of the tone code, from docs/tone-code.md alone: what was heard, not what was meant.

A window of 20 ms over the preamble shows both of its tones far above all others; its start is refined with the whole
80 ms; then each nibble is the strongest low and the strongest high tone of the middle 30 ms of its symbol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.sim.sound import RATE_HZ, SAMPLES_PER_MS, from_pcmu

PREAMBLE_HZ = (400, 2600)
PREAMBLE_SAMPLES = 80 * SAMPLES_PER_MS
NEIGHBOUR_HZ = (250, 550, 1000, 1500, 2000, 2450, 2750, 3100)
LOW_HZ = (697, 770, 852, 941)
HIGH_HZ = (1209, 1336, 1477, 1633)
NIBBLES = {
    (941, 1336): 0x0, (697, 1209): 0x1, (697, 1336): 0x2, (697, 1477): 0x3,
    (770, 1209): 0x4, (770, 1336): 0x5, (770, 1477): 0x6, (852, 1209): 0x7,
    (852, 1336): 0x8, (852, 1477): 0x9, (697, 1633): 0xA, (770, 1633): 0xB,
    (852, 1633): 0xC, (941, 1633): 0xD, (941, 1209): 0xE, (941, 1477): 0xF,
}  # fmt: skip
SYMBOLS = 12
SYMBOL_AT_MS = 100
SYMBOL_EVERY_MS = 70
WINDOW = 20 * SAMPLES_PER_MS
STEP = 10 * SAMPLES_PER_MS
NIBBLE_SKIP_MS = 10
NIBBLE_WINDOW = 30 * SAMPLES_PER_MS
CODE_SAMPLES = (SYMBOL_AT_MS + SYMBOLS * SYMBOL_EVERY_MS) * SAMPLES_PER_MS
MIN_TONE = 0.05
"""Amplitude of one tone, of full scale; it is sent with 0.25."""
ABOVE_NEIGHBOURS = 4.0

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ToneCode:
    """One reply's proof: caller's number, utterance, CRC-16 of the text that the model saw."""

    call: int
    turn: int
    hash16: int


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc


def crc8(data: bytes) -> int:
    """CRC-8: polynomial 0x07, start 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _basis(count: int, tones_hz: tuple[int, ...]) -> NDArray[np.complex64]:
    at = np.arange(count)[:, None]
    waves = np.exp(-2j * np.pi * at * np.array(tones_hz) / RATE_HZ) * (2 / count)
    return np.asarray(waves, np.complex64)


_SEARCH = _basis(WINDOW, PREAMBLE_HZ + NEIGHBOUR_HZ)
_WHOLE = _basis(PREAMBLE_SAMPLES, PREAMBLE_HZ)
_NIBBLE = _basis(NIBBLE_WINDOW, LOW_HZ + HIGH_HZ)


def find_codes(pcmu: bytes) -> list[tuple[int, ToneCode | None]]:
    """Each preamble: the sample at which it begins and the code that follows, None where that is damaged or cut."""
    samples: Samples = np.frombuffer(from_pcmu(pcmu), "<i2").astype(np.float32) / np.float32(32768)
    found: list[tuple[int, ToneCode | None]] = []
    at = 0
    while (begin := _find_preamble(samples, at)) is not None:
        code = _read(samples, begin)
        found.append((begin, code))
        at = begin + (PREAMBLE_SAMPLES if code is None else CODE_SAMPLES)
    return found


def _find_preamble(samples: Samples, start: int) -> int | None:
    rest = samples[start:]
    count = (rest.size - WINDOW) // STEP + 1
    if count < 1:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(rest, WINDOW)[::STEP]
    level = np.abs(windows @ _SEARCH)
    wanted, others = level[:, :2].min(axis=1), level[:, 2:].max(axis=1)
    hits = np.flatnonzero((wanted > MIN_TONE) & (wanted > ABOVE_NEIGHBOURS * others))
    if not hits.size:
        return None
    return _refine(samples, start + int(hits[0]) * STEP)


def _refine(samples: Samples, near: int) -> int:
    """The start of the preamble: where the window of its length holds most of it."""
    first = max(0, near - PREAMBLE_SAMPLES // 2)
    last = min(near + WINDOW, samples.size - PREAMBLE_SAMPLES)
    if last <= first:
        return near
    starts = np.arange(first, last, SAMPLES_PER_MS)
    windows = np.lib.stride_tricks.sliding_window_view(samples, PREAMBLE_SAMPLES)[starts]
    level = np.abs(windows @ _WHOLE).sum(axis=1)
    return int(starts[int(level.argmax())])


def _read(samples: Samples, begin: int) -> ToneCode | None:
    value = 0
    for index in range(SYMBOLS):
        at = begin + (SYMBOL_AT_MS + index * SYMBOL_EVERY_MS + NIBBLE_SKIP_MS) * SAMPLES_PER_MS
        window = samples[at : at + NIBBLE_WINDOW]
        if window.size < NIBBLE_WINDOW:
            return None
        level = np.abs(window @ _NIBBLE)
        pair = (LOW_HZ[int(level[:4].argmax())], HIGH_HZ[int(level[4:].argmax())])
        value = value << 4 | NIBBLES[pair]
    raw = value.to_bytes(6, "big")
    if crc8(raw[:5]) != raw[5]:
        return None
    return ToneCode(int.from_bytes(raw[:2], "big"), raw[2], int.from_bytes(raw[3:5], "big"))
