"""An event loop whose time passes only while nobody has anything to do: an hour of timers in seconds.

    nothing is ready ─► the clock jumps to the next timer, and as much further as `late_ns` says ─► its callback runs

asyncio's own loop in all else. `clock` is for the code under test; it and the loop's timers are the same time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

EPOCH_NS = 1_000_000_000


class VirtualClock:
    """server.clock.Clock, moved by the loop."""

    __slots__ = ("ns",)

    def __init__(self) -> None:
        self.ns = EPOCH_NS

    def now_ns(self) -> int:
        return self.ns

    def wall_s(self) -> float:
        return 1_800_000_000 + self.ns / 1e9


class _Impatient(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Does not wait: it lets the clock jump."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nobody will ever wake this loop")
        if not ready and timeout:
            self._jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`late_ns()` is how late the next callback runs, as on a machine that does other things too."""

    def __init__(self, late_ns: Callable[[], int] = lambda: 0) -> None:
        self.clock = VirtualClock()
        self._late_ns = late_ns
        super().__init__(_Impatient(self._jump))

    def _jump(self, seconds: float) -> None:
        # Timers are seconds as floats: to the next whole microsecond, so that none is due before it is.
        self.clock.ns += (round(seconds * 1e9) + 999) // 1000 * 1000 + self._late_ns()

    def time(self) -> float:
        return self.clock.ns / 1e9
