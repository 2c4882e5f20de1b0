"""One tick for all simulated streams, on absolute deadlines, measured: a late generator must not accuse the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Ticked(Protocol):
    def step(self, now_ns: int) -> None:
        """Twenty milliseconds have passed."""


class Ticker:
    """Steps each stream once in `period_ns`; streams are spread over `slots` phases.

    After a stall of ours the missed ticks follow at once, so no frame is lost. `late_ms` holds one value for each
    tick that had a stream to serve. `on_slot` is told the time in every slot, before the streams are.
    """

    def __init__(self, period_ns: int, slots: int, on_slot: Callable[[int], None] | None = None) -> None:
        self._on_slot = on_slot
        self._period_ns = period_ns
        self._slot_ns = period_ns // slots
        self._slots: list[dict[Ticked, int]] = [{} for _ in range(slots)]
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._origin_ns = 0
        self._wake = 0
        self.late_ms: list[float] = []

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._origin_ns = time.monotonic_ns()
        self._schedule()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def add(self, stream: Ticked, opened_ns: int) -> None:
        """Serve a stream in the emptiest phase, the first time one period or more after it was opened."""
        slot = min(self._slots, key=len)
        first = (opened_ns + self._period_ns - self._origin_ns) // self._slot_ns + 1
        slot[stream] = first

    def remove(self, stream: Ticked) -> None:
        for slot in self._slots:
            slot.pop(stream, None)

    def _schedule(self) -> None:
        self._wake += 1
        ahead_ns = self._origin_ns + self._wake * self._slot_ns - time.monotonic_ns()
        self._handle = self._loop.call_later(max(0, ahead_ns) / 1e9, self._tick)

    def _tick(self) -> None:
        streams = self._slots[self._wake % len(self._slots)]
        if self._on_slot is not None:
            self._on_slot(time.monotonic_ns())
        if streams:
            now_ns = time.monotonic_ns()
            self.late_ms.append((now_ns - self._origin_ns - self._wake * self._slot_ns) / 1e6)
            for stream, first in tuple(streams.items()):
                if self._wake >= first:
                    stream.step(now_ns)
        self._schedule()
