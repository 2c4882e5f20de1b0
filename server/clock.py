"""Time as a dependency: monotonic nanoseconds inside, wall clock only at the edges."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Monotonic instant in nanoseconds."""

    def wall_s(self) -> float:
        """Unix time in seconds, for rows, tokens and log lines."""


class SystemClock:
    __slots__ = ()

    # Not methods written here: every message asks, and a function of Python costs more than the clock.
    now_ns = staticmethod(time.monotonic_ns)
    wall_s = staticmethod(time.time)


class ManualClock:
    """A clock that moves only when told to."""

    __slots__ = ("_now_ns", "_wall_s")

    def __init__(self, now_ns: int = 0, wall_s: float = 1_800_000_000.0) -> None:
        self._now_ns = now_ns
        self._wall_s = wall_s

    def now_ns(self) -> int:
        return self._now_ns

    def wall_s(self) -> float:
        return self._wall_s

    def advance_ms(self, ms: float) -> None:
        self._now_ns += round(ms * 1e6)
        self._wall_s += ms / 1e3
