"""What the carrier plays to the caller: audio in arrival order, marks, clear (protocols: Twilio, section 5).

The buffer is consumed at real time, 160 codes every 20 ms, from the first media on. Positions are samples since the
stream began, so "how much is buffered" and "what is heard at this instant" are subtraction. Nothing here waits or
knows a clock; the time comes in as `at`, samples since the stream began.

    media ──→ [ piece │ piece │ mark │ piece ]──→ read(): 20 ms for the caller's ear
                                    └── mark names come back when the cursor passes them
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from bench.sim.sound import FRAME_SAMPLES, SAMPLES_PER_MS

LEAD_MS = 200
CHUNK_MS = 100
"""The pacing that the server promises; lateness is measured against it."""
JOIN_SAMPLES = 1500 * SAMPLES_PER_MS
"""Silence after which more audio is another utterance: longer than any pause inside one, shorter than an idle limit."""
MAX_BUFFERED_BYTES = 600 * 8000
"""Ten minutes. Twilio names no limit; without one a broken server would eat the bench."""


@dataclass(slots=True)
class PlayoutCounters:
    """`lateness_ms`: one value for each message but an utterance's first. `underruns`: dry inside one.

    `overfills`: messages that raised the buffer above lead + chunk, where `clear` would lose what it should not.
    """

    messages: int = 0
    samples: int = 0
    underruns: int = 0
    overfills: int = 0
    cleared_samples: int = 0
    overflows: int = 0
    lateness_ms: list[float] = field(default_factory=list)


class Playout:
    """The play-out buffer of one stream. `lead_ms`, `chunk_ms` are the server's, for lateness only."""

    __slots__ = ("_chunk_room_ms", "_end", "_heard", "_in_utterance", "_marks", "_most_ms", "_pieces", "counters")

    def __init__(self, lead_ms: int = LEAD_MS, chunk_ms: int = CHUNK_MS) -> None:
        self._pieces: deque[tuple[int, bytes]] = deque()  # (first sample's position, audio), ascending, no overlap
        self._marks: deque[tuple[int, str]] = deque()
        self._end = 0  # position at which the buffer runs dry
        self._heard = 0  # read() has answered up to here
        self._in_utterance = False
        self._chunk_room_ms = lead_ms - chunk_ms
        self._most_ms = lead_ms + chunk_ms
        self.counters = PlayoutCounters()

    def buffered_ms(self, at: float) -> float:
        return max(0.0, (self._end - at) / SAMPLES_PER_MS)

    def media(self, pcmu: bytes, at: float) -> None:
        """Audio arrived at `at`: it is played after what is buffered, or now."""
        if not pcmu:
            return
        counters = self.counters
        if (self._end - at) + len(pcmu) > MAX_BUFFERED_BYTES:
            counters.overflows += 1
            return
        counters.messages += 1
        counters.samples += len(pcmu)
        dry = at - self._end
        if self._in_utterance and dry < JOIN_SAMPLES:
            counters.lateness_ms.append(max(0.0, self._chunk_room_ms - self.buffered_ms(at)))
            if dry > 0:
                counters.underruns += 1
        self._in_utterance = True
        # The ear is served in whole frames: what has been read as silence cannot be filled any more.
        begin = max(self._end, int(at), self._heard)
        self._pieces.append((begin, pcmu))
        self._end = begin + len(pcmu)
        if self.buffered_ms(at) > self._most_ms:
            counters.overfills += 1

    def end_utterance(self) -> None:
        """The caller took the floor: the next audio is another utterance, however soon it comes."""
        self._in_utterance = False

    def mark(self, name: str, at: float) -> list[str]:
        """A mark arrived; returns it at once when nothing is buffered."""
        if self._end <= at and not self._marks:
            return [name]
        self._marks.append((self._end, name))
        return []

    def clear(self, at: float) -> list[str]:
        """Drop what has not been heard; returns every pending mark, in order."""
        cut = max(int(at), self._heard)
        while self._pieces and self._pieces[-1][0] >= cut:
            self._drop(len(self._pieces.pop()[1]))
        if self._pieces:
            begin, audio = self._pieces[-1]
            if begin + len(audio) > cut:
                self._drop(begin + len(audio) - cut)
                self._pieces[-1] = (begin, audio[: cut - begin])
        self._end = min(self._end, cut)
        self._in_utterance = False
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def marks_passed(self, at: float) -> list[str]:
        """Marks whose audio has been played by `at`; each is returned once."""
        names = []
        while self._marks and self._marks[0][0] <= at:
            names.append(self._marks.popleft()[1])
        return names

    def read(self) -> bytes | None:
        """The next 20 ms for the caller's ear; None when nothing plays in them."""
        start, stop = self._heard, self._heard + FRAME_SAMPLES
        self._heard = stop
        if not self._pieces or self._pieces[0][0] >= stop:
            return None
        frame = bytearray(b"\xff" * FRAME_SAMPLES)
        while self._pieces and self._pieces[0][0] < stop:
            begin, audio = self._pieces.popleft()
            skip = max(0, start - begin)
            take = audio[skip : stop - begin]
            at = begin + skip - start
            frame[at : at + len(take)] = take
            if begin + len(audio) > stop:
                self._pieces.appendleft((stop, audio[stop - begin :]))
        return bytes(frame)

    def _drop(self, samples: int) -> None:
        self.counters.cleared_samples += samples
