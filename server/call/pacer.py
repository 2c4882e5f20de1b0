"""One tick for the whole process: keeps every carrier's playout buffer at its lead.

Deadlines are absolute (start + n * tick), so lateness never adds up; ticks missed in a stall are skipped, since
each downlink looks at its own clock and catches up by itself. While nobody speaks there is no timer at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from server.clock import Clock

TICK_NS = 20_000_000


class Paced(Protocol):
    def tick(self, now_ns: int) -> bool:
        """Send what is due. Returns False when nothing is left to send or to wait for."""


class Pacer:
    """Ticks every active downlink each 20 ms. One for a process."""

    __slots__ = ("_active", "_clock", "_due_ns", "_handle", "_loop", "_on_late")

    def __init__(self, clock: Clock, on_late: Callable[[float], None]) -> None:
        self._clock = clock
        self._on_late = on_late
        self._active: dict[Paced, None] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due_ns = 0

    def add(self, paced: Paced) -> None:
        """`paced` has something to send: tick it until it says that it has not."""
        self._active[paced] = None
        if self._handle is None:
            self._loop = asyncio.get_running_loop()
            self._due_ns = self._clock.now_ns() + TICK_NS
            self._arm(self._loop)

    def remove(self, paced: Paced) -> None:
        self._active.pop(paced, None)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        delay_s = max(0, self._due_ns - self._clock.now_ns()) / 1e9
        self._handle = loop.call_later(delay_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_ns = self._clock.now_ns()
        late_ns = now_ns - self._due_ns
        self._on_late(late_ns / 1e9)
        try:
            for paced in [*self._active]:
                if paced not in self._active:
                    continue  # ended by what another one did in this tick
                # Taken out first: one that raises is not asked again, and the others keep their tick.
                del self._active[paced]
                if paced.tick(now_ns):
                    self._active[paced] = None
        finally:
            self._go_on(loop, late_ns)

    def _go_on(self, loop: asyncio.AbstractEventLoop, late_ns: int) -> None:
        if not self._active:
            self._handle = None
            return
        self._due_ns += TICK_NS * (1 + max(0, late_ns) // TICK_NS)
        self._arm(loop)
