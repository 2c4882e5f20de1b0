"""What was said and heard in one call, as the caller's end knows it; ms since the stream began. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

JOIN_MS = 100
Kind = Literal["backchannel", "interruption", "cough"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Of one caller. `noise` is empty on a clean line; `place` says what comes back of the agent's voice."""

    language: str
    speaker: str
    noise: str = ""
    snr_db: float | None = None
    place: str = "handset"

    @property
    def label(self) -> str:
        sound = f"{self.noise.split()[0]} {self.snr_db:g} dB" if self.noise and self.snr_db is not None else "clean"
        return f"{sound}, {self.place}"


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the caller: first and last sample of speech sent, and the pauses inside, (begin, end) each."""

    name: str
    begin_ms: float
    end_ms: float
    pauses: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Overlap:
    """A sound of the caller's while the agent spoke."""

    kind: Kind
    begin_ms: float
    end_ms: float


@dataclass(slots=True)
class CallLog:
    """One call.

    agent: (begin, end) of each stretch of audible agent speech as it was played to the caller, silences of JOIN_MS
    filled. arrivals: instants at which messages with audible sound came, earlier than they were played. clears:
    instants of the carrier's `clear`. openings: begins of answers in what was played (each answer opens with the same
    words). answer_ms: how long the shortest whole answer lasts. end_ms: when the caller hung up.
    """

    where: Surroundings
    answer_ms: float
    turns: list[Said] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    agent: list[tuple[float, float]] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    clears: list[float] = field(default_factory=list)
    openings: list[float] = field(default_factory=list)
    end_ms: float = 0.0
