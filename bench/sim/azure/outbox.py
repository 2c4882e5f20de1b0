"""Messages on their way to one client: in order, each not before its time, and what a fault makes of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from bench.sim.azure.fault import Fault, FaultBox

MOST = 20_000
"""Messages that may wait: minutes of audio. A client that lets more pile up is cut off."""


@dataclass(frozen=True, slots=True)
class Close:
    """The end of the connection, in its place among the messages."""

    code: int
    reason: str


Item = str | bytes | Close | Callable[[], None]


class Outbox:
    """`put` never waits; `run` sends until the connection is closed or cut. While `muted` nothing leaves."""

    __slots__ = ("_items", "_last_s", "_loop", "_request", "_wake", "_ws", "extra_s", "faults", "muted")

    def __init__(self, ws: web.WebSocketResponse, request: web.BaseRequest, faults: FaultBox) -> None:
        self._ws, self._request, self.faults = ws, request, faults
        self._items: deque[tuple[float, Item]] = deque()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._last_s = 0.0
        self.extra_s = 0.0
        self.muted = False

    def put(self, item: Item, after_ms: float = 0.0) -> None:
        """Send a message, close, or call a function, `after_ms` from now and after all that was put before."""
        self._last_s = max(self._loop.time() + after_ms / 1000 + self.extra_s, self._last_s)
        if len(self._items) >= MOST:
            self.cut()
            return
        self._items.append((self._last_s, item))
        self._wake.set()

    def forget(self) -> None:
        """Drop what has not been sent."""
        self._items.clear()
        self._last_s = 0.0

    def strike(self, fault: Fault) -> None:
        """Carry out, now, a fault of the connection as a whole."""
        self.faults.carried_out(fault)
        if fault.kind == "cut":
            self.cut()
        elif fault.kind == "close":
            self.forget()
            self.put(Close(fault.code, fault.reason))
        elif fault.kind == "slow":
            self.extra_s = fault.delay_ms / 1000
        else:
            self.muted = True

    def cut(self) -> None:
        """RST: nobody waits for what is still in the buffers."""
        self._items.clear()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def run(self) -> None:
        """Returns when the connection is over; cancel it when the client went."""
        while not self._ws.closed:
            if not self._items:
                self._wake.clear()
                await self._wake.wait()
                continue
            due_s, item = self._items[0]
            wait_s = due_s - self._loop.time()
            if wait_s > 0.0005:
                await asyncio.sleep(wait_s)
                continue
            self._items.popleft()
            await self._send(item)

    async def _send(self, item: Item) -> None:
        try:
            if callable(item):
                item()
            elif isinstance(item, Close):
                await self._ws.close(code=item.code, message=item.reason.encode()[:123])
            elif self.muted:
                return
            elif isinstance(item, str):
                await self._ws.send_str(item)
            else:
                await self._ws.send_bytes(item)
        except (ConnectionError, RuntimeError):
            # The client went first; the reader ends the connection.
            self._items.clear()
