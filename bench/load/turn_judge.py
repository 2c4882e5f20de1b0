"""Whether an answer is the right one, by sound alone: the tone code of this caller, a new turn, the right words, and
all of it: docs/tone-code.md says how long the rest of an answer lasts.

An utterance that the server cut in two gives the words of both; both are then accepted, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.load.tone import CODE_SAMPLES, ToneCode, crc16, find_codes
from bench.sim.sound import FRAME_SAMPLES, is_audible

MAX_SPLIT = 8
"""Utterances of one turn: where the server's VAD cuts it, and noise before it that was taken for words."""
MAX_AHEAD = 127
"""A code has 8 bits of the turn's number: what is more than half of them ahead is an old turn."""
REST_FRAMES = 75
"""Audible in every answer after its code: ten words of 150 ms."""
MAX_LOST_FRAMES = 2
"""Of the rest: the begin of a code is known to 5 ms, and what is heard is cut into frames anywhere."""
MAX_EXTRA_FRAMES = 10
"""Beyond the rest: more was said than the answer, or some of it twice."""
MIN_AUDIBLE_FRAMES = 25
"""Half a second: an answer, not a click."""


@dataclass(slots=True)
class LoadRecord:
    """What a caller counted. Latencies: last speech sample sent → first audible sample received.

    broken_off: answers with the right code that ended before their end, though nobody interrupted.
    gaps: those of them that the server itself broke off by a clear, once the caller spoke into their silence.
    foreign: codes of other callers' answers. wrong: old turns, and answers to other words.
    overlong: answers that went on after their end. unasked_clears: came while the caller had been silent for a second.
    talked_over: turns of the caller into which the agent spoke.
    is_greeted: the agent spoke first, as it should. in_turn: the last turn was begun, and its answer is not judged yet.
    """

    turns_expected: int = 0
    turns_completed: int = 0
    is_greeted: bool = False
    in_turn: bool = False
    damaged: int = 0
    wrong: int = 0
    foreign: int = 0
    overlong: int = 0
    unasked_clears: int = 0
    talked_over: int = 0
    split: int = 0
    broken_off: int = 0
    gaps: int = 0
    latency_ms: list[float] = field(default_factory=list)
    speech_frames: int = 0
    frames: int = 0


class TurnJudge:
    """Judges the answers to one caller. `seen` is the whole number of the last turn that was answered right.

    `is_open`: the last answer ended before its end. What comes next may be the rest of it, too late.
    """

    __slots__ = ("_call_no", "_number", "_record", "is_open", "seen")

    def __init__(self, number: str, record: LoadRecord) -> None:
        self._number = number
        self._call_no = int(number[-4:])
        self._record = record
        self.is_open = False
        self.seen = 0

    def cleared(self) -> None:
        """The server dropped the rest of what it had to say: it was still inside the answer that had fallen silent."""
        self._record.gaps += self.is_open
        self.is_open = False

    def judge(self, heard: bytes, *, was_interrupted: bool = False) -> bool:
        """`heard` is all that was heard since the caller spoke; counts what it finds.

        Returns whether an answer was right and, unless `was_interrupted`, heard to its end. Of several, as for a turn
        that the server cut, the last is meant: those before it may have been cancelled by the caller's own words.
        """
        record, rest = self._record, None
        self.is_open = False
        found = find_codes(heard)
        for no, (at, code) in enumerate(found):
            if code is None:
                record.damaged += 1
            elif self._is_right(code):
                rest = heard[at + CODE_SAMPLES : found[no + 1][0] if no + 1 < len(found) else None]
            elif code.call != self._call_no:
                record.foreign += 1
            else:
                record.wrong += 1
        if rest is None:
            return False
        frames = audible_frames(rest)
        if not was_interrupted and frames < REST_FRAMES - MAX_LOST_FRAMES:
            record.broken_off += 1
            self.is_open = True
            return False
        record.overlong += not was_interrupted and frames > REST_FRAMES + MAX_EXTRA_FRAMES
        record.turns_completed += 1
        return True

    def _is_right(self, code: ToneCode) -> bool:
        """Whether it is this caller's, later than all before, and of the right words; then it is the last one seen."""
        ahead = (code.turn - self.seen) % 256
        if code.call != self._call_no or not 1 <= ahead <= MAX_AHEAD:
            return False
        turn = self.seen + ahead
        for parts in range(1, MAX_SPLIT + 1):
            words = " ".join(f"turn {n} of {self._number}" for n in range(turn - parts + 1, turn + 1))
            if crc16(words.encode()) == code.hash16:
                self._record.split += parts - 1
                self.seen = turn
                return True
        return False


def audible_frames(heard: bytes) -> int:
    return sum(is_audible(heard[at : at + FRAME_SAMPLES]) for at in range(0, len(heard), FRAME_SAMPLES))


class SoundJudge:
    """Where answers cannot prove themselves: something was said for a while after the caller spoke."""

    __slots__ = ("_record", "is_open", "seen")

    def __init__(self, record: LoadRecord) -> None:
        self._record = record
        self.is_open = False
        self.seen = 0

    def cleared(self) -> None:
        """How long an answer lasts is not known here."""

    def judge(self, heard: bytes) -> bool:
        if audible_frames(heard) < MIN_AUDIBLE_FRAMES:
            return False
        self._record.turns_completed += 1
        self.seen += 1
        return True
