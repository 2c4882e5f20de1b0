"""The score: what a listener at the caller's end makes of the calls. Pure, and shares no code with any server.

    turn of the caller      ▂▂▂▂  ▂▂▂            (a pause inside)
    the agent, cut-in             ▆▆             began before the turn was over
    the agent, late                       ▆▆▆    began more than LATE_MS after it
    cough or backchannel            ▂
    the agent went on         ▆▆▆▆▆▆  ▆▆▆▆▆▆▆    with the same answer, to its end
    the agent, lost           ▆▆▆▆▆▆             fell silent, or began another answer

Each rule takes one call and returns a mark for each thing that it judged; `figures.py` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.turns.call_log import CallLog, Kind, Overlap, Said

LATE_MS = 1500.0
START_MS = 40.0
"""Shorter agent sounds are no beginning of speech: what a buffer held when it was cleared."""
COLLISION_MS = 250.0
"""Who begins so soon after the other could not have heard it yet: people do that too, and it is no cut-in."""
NOTICED_MS = 500.0
"""So long after a caller went on an agent may be supposed to have noticed."""
CAUSED_MS = 1200.0
"""What the agent does so soon after a sound of the caller's may have been caused by it."""
NEAR_MS = 300.0
"""The agent is speaking when it was audible so short a time ago: between two words."""
SILENCED_BY_MS = 1200.0
WHOLE_SHARE = 0.9
"""Of the shortest answer: voices pause between sentences more or less long."""


@dataclass(frozen=True, slots=True)
class TurnMark:
    """One turn. latency_ms: last sample of speech → first audible sample of the answer; None: cut in, or no answer.

    margin_ms: of a cut-in, how much later the agent would have had to begin: until it could notice that the caller had
    gone on. collided: the agent began with the caller, which does not count as a cut-in.
    """

    turn: Said
    is_cut_in: bool
    margin_ms: float = 0.0
    latency_ms: float | None = None
    collided: bool = False

    @property
    def is_unanswered(self) -> bool:
        return not self.is_cut_in and self.latency_ms is None

    @property
    def is_late(self) -> bool:
        """A cut-in is counted as what it is, and not here again."""
        return self.is_unanswered or (self.latency_ms is not None and self.latency_ms > LATE_MS)


def turn_marks(log: CallLog) -> list[TurnMark]:
    """Every turn of a call."""
    return [_turn_mark(log, turn) for turn in log.turns]


def _turn_mark(log: CallLog, turn: Said) -> TurnMark:
    begun = [begin for begin, end in log.agent if turn.begin_ms < begin < turn.end_ms and end - begin >= START_MS]
    cut_in_ms = next((begin for begin in begun if begin >= turn.begin_ms + COLLISION_MS), None)
    if cut_in_ms is not None:
        return TurnMark(turn, True, margin_ms=_margin_ms(turn, cut_in_ms), collided=begun[0] < cut_in_ms)
    until_ms = next_sound_ms(log, turn.end_ms)
    arrived = next((at for at in log.arrivals if turn.end_ms <= at < until_ms), None)
    latency_ms = None if arrived is None else arrived - turn.end_ms
    return TurnMark(turn, False, latency_ms=latency_ms, collided=bool(begun))


def _margin_ms(turn: Said, begin_ms: float) -> float:
    """From a beginning in a pause, or soon after one, until going on could be noticed; else until the turn's end."""
    for since, until in turn.pauses:
        if since <= begin_ms < until + NOTICED_MS:
            return until + NOTICED_MS - begin_ms
    return turn.end_ms - begin_ms


def overlap_marks(log: CallLog, kinds: Sequence[Kind]) -> list[bool]:
    """For each cough or backchannel in an answer: whether the agent went on with that answer to its end."""
    marks = []
    for one in log.overlaps:
        began = max((at for at in log.openings if at <= one.begin_ms), default=None)
        # Without an opening it was no answer that was talked over: an apology, or the greeting.
        if one.kind in kinds and began is not None:
            marks.append(_went_on(log, one, began))
    return marks


def _went_on(log: CallLog, overlap: Overlap, began_ms: float) -> bool:
    until_ms = next_sound_ms(log, overlap.end_ms)
    if any(overlap.begin_ms < at < until_ms for at in log.openings):
        return False
    spoken_ms = max((min(end, until_ms) for begin, end in log.agent if begin < until_ms), default=0.0)
    return spoken_ms >= began_ms + WHOLE_SHARE * log.answer_ms


def silences_ms(log: CallLog) -> list[float | None]:
    """For each interruption: its first sample → the agent's last audible one; None: the agent did not stop."""
    return [_silence(log, one) for one in log.overlaps if one.kind == "interruption"]


def _silence(log: CallLog, overlap: Overlap) -> float | None:
    until_ms = max(overlap.end_ms, overlap.begin_ms + SILENCED_BY_MS)
    # What the agent answers to it is not what was interrupted.
    until_ms = min([until_ms, *(at for at in log.openings if overlap.begin_ms < at)])
    last_ms = max((min(end, until_ms) for begin, end in log.agent if begin < until_ms), default=0.0)
    return None if last_ms > until_ms - START_MS else max(0.0, last_ms - overlap.begin_ms)


def false_pauses(log: CallLog) -> list[float]:
    """Instants at which the agent was stopped though the caller had made no sound."""
    windows = _own_sounds(log)
    return [
        at for at in log.clears
        if any(begin <= at <= end + NEAR_MS for begin, end in log.agent)
        and not any(begin <= at <= end for begin, end in windows)
    ]  # fmt: skip


def unprovoked_ms(log: CallLog) -> float:
    """How long the agent spoke while nothing of the caller's could be the cause of a pause."""
    windows = _own_sounds(log)
    return sum(end - begin - _covered(begin, end, windows) for begin, end in log.agent)


def echo_marks(log: CallLog) -> list[bool]:
    """For each answer: whether the agent stopped though nothing but its own voice came from the caller."""
    pauses = false_pauses(log)
    marks = []
    for turn in log.turns:
        until_ms = next_sound_ms(log, turn.end_ms)
        if any(turn.end_ms <= at < until_ms for at in log.arrivals):
            marks.append(any(turn.end_ms <= at < until_ms for at in pauses))
    return marks


def next_sound_ms(log: CallLog, after_ms: float) -> float:
    """When the caller makes the next sound; the end of the call when none comes."""
    begins = [one.begin_ms for one in (*log.turns, *log.overlaps) if one.begin_ms >= after_ms]
    return min(begins, default=log.end_ms)


def _own_sounds(log: CallLog) -> list[tuple[float, float]]:
    """The caller's sounds with the time in which they may be the cause of something, merged."""
    merged: list[tuple[float, float]] = []
    for one in sorted((*log.turns, *log.overlaps), key=lambda one: one.begin_ms):
        begin, end = one.begin_ms, one.end_ms + CAUSED_MS
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _covered(begin: float, end: float, windows: Sequence[tuple[float, float]]) -> float:
    return sum(max(0.0, min(end, stop) - max(begin, start)) for start, stop in windows)
