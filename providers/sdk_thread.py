"""From a vendor's threads into the event loop: one queue, one wake-up for many callbacks.

    vendor thread ─ callback(extract) ─┐
    vendor thread ─ callback(extract) ─┴─► queue ─ call_soon_threadsafe (once) ─► drain ─► deliver, in order

A native SDK calls back on threads of its own. What it says is read there (the vendor's objects may not outlive the
callback) and delivered in the loop, in the order in which it came. A queue that is not empty has its wake-up on the
way already, so a burst of callbacks costs one. Every channel is bounded: what does not fit is counted and told to the
owner as an error, because a transcript or a piece of sound must not go missing unsaid. An exception inside a callback,
which SDKs swallow, arrives at the owner too. Callbacks after the loop was closed are counted and dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E")

MAX_WAITING = 1024  # items of one channel: a loop that stands still for so many callbacks has lost the call
MAX_BATCH = 256  # items delivered before the loop may do something else


class SdkBridge:
    """The one way in for the threads of one SDK. Belongs to the loop it was made in."""

    __slots__ = ("_is_woken", "_lock", "_loop", "_queue", "after_close", "wakeups")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.wakeups = 0
        self.after_close = 0
        self._loop = loop
        self._lock = threading.Lock()  # held for the time of an append
        self._queue: deque[tuple[Channel[Any], Any]] = deque()
        self._is_woken = False

    def channel(
        self, deliver: Callable[[T], None], on_error: Callable[[Exception], None], *, max_waiting: int = MAX_WAITING
    ) -> Channel[T]:
        """A way for one call. Both functions run in the loop.

        Args:
            deliver: takes one item.
            on_error: takes what a callback raised, or BufferError once when items were dropped.
            max_waiting: items that may wait for the loop.
        """
        return Channel(self, deliver, on_error, max_waiting)

    def put(self, channel: Channel[T], item: T | _Failure) -> None:
        """Thread: any."""
        with self._lock:
            if channel.is_closed:
                return
            if channel.waiting >= channel.max_waiting:
                channel.dropped += 1
                if channel.dropped > 1:
                    return
                item = _Failure(BufferError(f"more than {channel.max_waiting} callbacks wait for the loop"))
            channel.waiting += 1
            self._queue.append((channel, item))
            if self._is_woken:
                return
            self._is_woken = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._drain)
            self.wakeups += 1
        except RuntimeError:  # the loop is closed: nobody is left to hear of it
            with self._lock:
                self.after_close += len(self._queue)
                self._queue.clear()
                self._is_woken = False

    def _drain(self) -> None:
        with self._lock:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            for channel, _ in batch:
                channel.waiting -= 1
            self._is_woken = bool(self._queue)
            if self._is_woken:
                self._loop.call_soon(self._drain)
        for channel, item in batch:
            if channel.is_closed:
                continue
            try:
                if isinstance(item, _Failure):
                    channel.on_error(item.error)
                else:
                    channel.deliver(item)
            except Exception as error:  # noqa: BLE001  one owner's bug must not take the items of the others
                self._loop.call_exception_handler({"message": "delivery from an SDK's thread", "exception": error})


class Channel(Generic[T]):
    """One owner's part of the bridge."""

    __slots__ = ("_bridge", "deliver", "dropped", "is_closed", "max_waiting", "on_error", "waiting")

    def __init__(
        self,
        bridge: SdkBridge,
        deliver: Callable[[T], None],
        on_error: Callable[[Exception], None],
        max_waiting: int,
    ) -> None:
        self.deliver = deliver
        self.on_error = on_error
        self.max_waiting = max_waiting
        self.is_closed = False
        self.waiting = 0
        self.dropped = 0
        self._bridge = bridge

    def callback(self, extract: Callable[[E], T | None]) -> Callable[[E], None]:
        """A function for the vendor's signal: `extract` reads the event in the vendor's thread; None is no item."""

        def on_vendor_event(event: E) -> None:
            try:
                item = extract(event)
            except Exception as error:  # noqa: BLE001  the SDK would swallow it; the owner hears of it
                self._bridge.put(self, _Failure(error))
                return
            if item is not None:
                self._bridge.put(self, item)

        return on_vendor_event

    def put(self, item: T) -> None:
        """Thread: any."""
        self._bridge.put(self, item)

    def close_nowait(self) -> None:
        """Nothing is delivered from here on."""
        self.is_closed = True


class _Failure:
    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error
