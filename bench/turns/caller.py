"""A caller of the score: says planned turns into its surroundings, and makes its sounds while the agent speaks.

    greeting ──quiet──→ thinking ──→ speaking ──end of turn──→ waiting ──answer heard and quiet──→ thinking …
                                                                  └── so much of the answer heard: cough, "mhm", "wait"

It hears by energy alone, as everybody here, and notes what was said and heard when (call_log.py). A caller who was cut
in on says the rest all the same; one whose agent does not come to an end talks over it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from bench.sim.party import Line
from bench.sim.sound import (
    FRAME_MS,
    FRAME_SAMPLES,
    SAMPLES_PER_MS,
    SILENCE,
    first_audible_sample,
    from_pcmu,
    is_audible,
    to_pcmu,
)
from bench.turns.call_log import CallLog, Overlap, Said
from bench.turns.plan import Event, Plan, Step, Utter
from bench.turns.surroundings import PLACES, Echo, Floats

QUIET_MS = 1000
"""Silence after which the agent has finished; longer than a voice's pause between sentences."""
SETTLED_MS = 4000
"""The same after a cough or a backchannel: the agent may have to find out what it was, and go on."""
PATIENCE_MS = 8000
LONGEST_MS = 20_000
"""An agent that speaks or stammers for longer is talked over."""
MAX_CALL_FRAMES = 50 * 900


@dataclass(slots=True)
class _Sounding:
    """An utterance on its way, and the instant of its first sample."""

    what: Utter
    at: int
    begin_ms: float

    def ms(self, sample: int) -> float:
        return self.begin_ms + sample / SAMPLES_PER_MS


class TurnCaller:
    """`log` is complete once the call is over, but for what `hearing.py` finds in `heard`."""

    __slots__ = (
        "_agent_frames", "_bed_at", "_echo", "_event", "_event_begun", "_frame", "_line", "_next", "_opened_ns",
        "_plan", "_quiet", "_soundings", "_state", "_waited", "first_heard_ms", "heard", "is_ready", "log", "stopping",
    )  # fmt: skip

    def __init__(self, plan: Plan, tails: dict[str, Floats], answer_ms: float) -> None:
        self.log = CallLog(plan.where, answer_ms)
        self.heard: list[bytes] = []
        self.first_heard_ms = 0.0
        self.stopping = False
        self.is_ready = False
        self._plan = plan
        place = PLACES[plan.where.place]
        self._echo = Echo(place, tails) if place.echo_db is not None else None
        self._soundings: list[_Sounding] = []
        self._state = "greeting"
        self._event: Event | None = None
        self._event_begun = False
        self._next = self._frame = self._bed_at = 0
        self._waited = self._quiet = self._agent_frames = 0
        self._opened_ns = 0
        self._line: Line

    # ── the party ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_start(self, line: Line, now_ns: int) -> None:
        self._line = line
        self._opened_ns = now_ns

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        now_ms = self._ms(now_ns)
        if not self._frame:
            self.first_heard_ms = now_ms - FRAME_MS
        self._frame += 1
        self._listen(heard)
        if self._decide(now_ms):
            return None
        return self._mixed(heard, now_ms)

    def on_media(self, pcmu: bytes, now_ns: int) -> None:
        if first_audible_sample(pcmu) is not None:
            self.log.arrivals.append(self._ms(now_ns))

    def on_clear(self, now_ns: int) -> None:
        self.log.clears.append(self._ms(now_ns))

    def on_end(self, now_ns: int) -> None:
        self.log.end_ms = self._ms(now_ns)

    # ── what to do ───────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, heard: bytes | None) -> None:
        if self._frame <= MAX_CALL_FRAMES:
            self.heard.append(heard or SILENCE)
        self._waited += 1
        if heard is not None and is_audible(heard):
            self._quiet = 0
            self._agent_frames += 1
        else:
            self._quiet += 1

    def _decide(self, now_ms: float) -> bool:
        """Begin what is due. Returns whether the caller hangs up."""
        if self._state == "speaking" or any(one.at < one.what.speech_samples for one in self._soundings):
            return False
        event = self._event if self._state == "waiting" and not self._event_begun else None
        if event is not None and self._agent_frames * FRAME_MS >= event.after_ms:
            self._begin_event(event, now_ms)
            return False
        if not self._is_over():
            return False
        if self.stopping or self._next >= len(self._plan.steps):
            return True
        self.is_ready = True
        self._begin_turn(self._plan.steps[self._next], now_ms)
        self._next += 1
        return False

    def _is_over(self) -> bool:
        """Whether the agent has finished and been thought about, or the caller's patience."""
        if self._waited * FRAME_MS >= (LONGEST_MS if self._agent_frames else PATIENCE_MS):
            return True
        if not self._agent_frames:
            return False
        quiet_ms = self._quiet * FRAME_MS
        if self._event_begun and self._event is not None and self._event.kind != "interruption":
            return quiet_ms >= SETTLED_MS
        think_ms = self._plan.steps[min(self._next, len(self._plan.steps) - 1)].think_ms
        return quiet_ms >= QUIET_MS + think_ms

    def _begin_turn(self, step: Step, now_ms: float) -> None:
        self._state = "speaking"
        self._event, self._event_begun = step.event, False
        self._line.end_utterance()
        self._soundings.append(_Sounding(step.turn, 0, now_ms - FRAME_MS))

    def _begin_event(self, event: Event, now_ms: float) -> None:
        self._event_begun = True
        one = _Sounding(event.sound, 0, now_ms - FRAME_MS)
        self._soundings.append(one)
        self.log.overlaps.append(Overlap(event.kind, one.begin_ms, one.ms(event.sound.speech_samples)))
        if event.kind == "interruption":
            # What is said takes the floor, and wants an answer of its own.
            self._line.end_utterance()

    def _spoken(self, one: _Sounding) -> None:
        """The last sample of a turn or of another sound is on its way."""
        if self._state == "speaking":
            pauses = tuple((one.ms(begin), one.ms(end)) for begin, end in one.what.pauses)
            self.log.turns.append(Said(one.what.name, one.begin_ms, one.ms(one.what.speech_samples), pauses))
            self._state = "waiting"
        elif self._event is None or self._event.kind != "interruption":
            return
        self._waited = self._quiet = self._agent_frames = 0

    # ── the line ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _mixed(self, heard: bytes | None, now_ms: float) -> str:
        line = self._bed()
        if self._echo is not None:
            played = np.frombuffer(from_pcmu(heard or SILENCE), "<i2").astype(np.float64)
            line = line + self._echo.through(played)
        for one in self._soundings:
            part = one.what.line[one.at : one.at + FRAME_SAMPLES]
            line[: part.size] += part
            ends = one.at < one.what.speech_samples <= one.at + FRAME_SAMPLES
            one.at += FRAME_SAMPLES
            if ends:
                self._spoken(one)
        self._soundings = [one for one in self._soundings if one.at < one.what.line.size]
        s16 = np.clip(line, -32768, 32767).astype("<i2").tobytes()
        return base64.b64encode(to_pcmu(s16)).decode()

    def _bed(self) -> Floats:
        bed = self._plan.bed
        if bed is None:
            return np.zeros(FRAME_SAMPLES)
        part = bed[self._bed_at : self._bed_at + FRAME_SAMPLES].copy()
        self._bed_at = (self._bed_at + FRAME_SAMPLES) % (bed.size // FRAME_SAMPLES * FRAME_SAMPLES)
        return part

    def _ms(self, now_ns: int) -> float:
        return (now_ns - self._opened_ns) / 1e6
