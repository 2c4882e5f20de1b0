"""The recogniser's clock against ours: which utterance was fed at which tick.

The service counts ticks of 100 ns from the first byte it got. It got our utterances back to back, with the silence that
we put between them:

    fed     0 ──── 1 ────┬─ silence ─┬──── 2 ────
    media   1.2 s … 2.9 s│           │8.4 s …

So a tick names an utterance and an instant of the call. Pure; bounded to the last MAX_SPANS pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

TICKS_PER_S = 10_000_000
TICKS_PER_MS = 10_000
MAX_SPANS = 256


class Span:
    """Ticks [start, end) of the fed audio. `number` is the utterance, None for silence of ours."""

    __slots__ = ("end", "number", "start")

    def __init__(self, number: int | None, start: int) -> None:
        self.number = number
        self.start = start
        self.end = start


class Timeline:
    """What was fed, in order."""

    __slots__ = ("_bytes_per_s", "_fed_bytes", "_spans")

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._fed_bytes = 0
        self._spans: deque[Span] = deque(maxlen=MAX_SPANS)

    @property
    def position(self) -> int:
        """Ticks fed so far; whole samples are whole ticks at 8 and 16 kHz."""
        return self._fed_bytes * TICKS_PER_S // self._bytes_per_s

    def feed(self, number: int | None, size_bytes: int) -> None:
        if not self._spans or self._spans[-1].number != number:
            self._spans.append(Span(number, self.position))
        self._fed_bytes += size_bytes
        self._spans[-1].end = self.position

    def overlaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(utterance, ticks) for each utterance that has a part of [start, end), in the order of time."""
        ticks: dict[int, int] = {}
        for span in self._spans:
            common = min(end, span.end) - max(start, span.start)
            if span.number is not None and common > 0:
                ticks[span.number] = ticks.get(span.number, 0) + common
        yield from ticks.items()

    def owner(self, start: int, end: int) -> int | None:
        """The utterance that has most of [start, end); of an empty range, the last one before it."""
        best = max(self.overlaps(start, max(end, start + 1)), key=lambda one: one[1], default=None)
        if best is not None:
            return best[0]
        before = [span.number for span in self._spans if span.number is not None and span.start <= start]
        return before[-1] if before else None
