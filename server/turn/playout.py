"""What the caller has heard: a model of the carrier's playout buffer, corrected by marks.

The carrier plays what it is sent in order and without pause; `clear` empties it (Twilio and Telnyx, media
streams). Between marks the position is reckoned from bytes sent and time passed; a mark that comes back later
than reckoned shows how far the carrier lags behind, and the lag is taken off every later reckoning.

    sent ──► [ piece | piece | piece ] ──► played
                     ▲ cursor = reckoned time − lag

Guarantee: the reckoned position never runs ahead of what was sent, and never backwards for one clause.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class _Piece:
    clause_no: int
    samples: int
    start_ns: int


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of a clause was played when the buffer was cleared; `sent_samples` had left for the carrier."""

    clause_no: int
    heard_samples: int
    sent_samples: int


class PlayoutClock:
    """Reckons the carrier's playout position for one stream of `rate_hz`."""

    __slots__ = ("_free_ns", "_lag_ns", "_pieces", "rate_hz", "underruns")

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.underruns = 0
        self._pieces: deque[_Piece] = deque()
        self._free_ns = 0
        self._lag_ns = 0

    def sent(self, clause_no: int, samples: int, now_ns: int, *, first: bool) -> None:
        """`samples` of `clause_no` were handed to the carrier. `first`: silence before them was meant."""
        if self._free_ns < now_ns:
            if not first:
                self.underruns += 1
            self._free_ns = now_ns
        self._pieces.append(_Piece(clause_no, samples, self._free_ns))
        self._free_ns += samples * NS_PER_S // self.rate_hz

    def buffered_ns(self, now_ns: int) -> int:
        """Audio that the carrier still has to play, as reckoned from what was sent."""
        return max(0, self._free_ns - now_ns)

    def free_ns(self) -> int:
        """Instant at which the carrier's buffer runs empty."""
        return self._free_ns

    def marked(self, clause_no: int, now_ns: int) -> None:
        """The carrier says that all of `clause_no` has been played, and with it whatever was sent before."""
        last = max((at for at, one in enumerate(self._pieces) if one.clause_no == clause_no), default=-1)
        for _ in range(last):
            self._pieces.popleft()
        if last >= 0:
            piece = self._pieces.popleft()
            # A lag below zero would mean that the carrier plays faster than real time.
            self._lag_ns = max(0, now_ns - piece.start_ns - piece.samples * NS_PER_S // self.rate_hz)

    def clear(self, now_ns: int) -> tuple[Heard, ...]:
        """The buffer was dropped: how much of each unfinished clause had been heard."""
        cursor_ns = now_ns - self._lag_ns
        sent: dict[int, int] = {}
        heard: dict[int, int] = {}
        for piece in self._pieces:
            played = (cursor_ns - piece.start_ns) * self.rate_hz // NS_PER_S
            sent[piece.clause_no] = sent.get(piece.clause_no, 0) + piece.samples
            heard[piece.clause_no] = heard.get(piece.clause_no, 0) + min(max(played, 0), piece.samples)
        self._pieces.clear()
        self._free_ns = 0
        return tuple(Heard(no, heard[no], sent[no]) for no in sorted(sent))
