"""Two bounded queues, named for what they do when they are full.

`DropOldest` is for live audio and events whose value is their freshness: the newest always fits. `Backpressure`
is for text and commands, of which none may be lost: the producer waits, or is told no. Both are sized by a
measure (milliseconds, bytes, or 1 for each item), serve one consumer, and belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueClosed(Exception):
    """The queue was closed and holds nothing more."""


def _one(_item: object) -> int:
    return 1


class _Bounded(Generic[T]):
    __slots__ = ("_closed", "_getter", "_items", "_measure", "limit", "size")

    def __init__(self, limit: int, measure: Callable[[T], int] = _one) -> None:
        if limit <= 0:
            raise ValueError(f"limit: expected a positive number, got {limit}")
        self.limit = limit
        """What the measures of all items may add up to."""
        self.size = 0
        """What they add up to now."""
        self._measure = measure
        self._items: deque[T] = deque()
        self._getter: asyncio.Future[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def get_nowait(self) -> T | None:
        """The oldest item, or None when there is none."""
        if not self._items:
            return None
        item = self._items.popleft()
        self.size -= self._measure(item)
        return item

    async def get(self) -> T:
        """Wait for the oldest item. Raises QueueClosed after the last item of a closed queue."""
        while not self._items:
            if self._closed:
                raise QueueClosed
            if self._getter is not None:
                raise RuntimeError("a second consumer waits on the queue")
            self._getter = asyncio.get_running_loop().create_future()
            try:
                await self._getter
            finally:
                self._getter = None
        item = self.get_nowait()
        assert item is not None
        return item

    def close(self) -> None:
        """Refuse new items; the consumer still gets those that are inside."""
        self._closed = True
        self._wake()

    def clear(self) -> int:
        """Drop all items and say how many there were."""
        count = len(self._items)
        self._items.clear()
        self.size = 0
        return count

    def _add(self, item: T, measure: int) -> None:
        self._items.append(item)
        self.size += measure
        self._wake()

    def _wake(self) -> None:
        if self._getter is not None and not self._getter.done():
            self._getter.set_result(None)


class DropOldest(_Bounded[T]):
    """Putting always succeeds; what no longer fits leaves at the old end and is counted in `dropped`."""

    __slots__ = ("dropped",)

    def __init__(self, limit: int, measure: Callable[[T], int] = _one) -> None:
        super().__init__(limit, measure)
        self.dropped = 0

    def put_nowait(self, item: T) -> int:
        """Append `item`; returns how many old items had to leave.

        An item larger than the limit, or one that comes after `close`, is itself dropped and counted.
        """
        measure = self._measure(item)
        if measure > self.limit or self._closed:
            self.dropped += 1
            return 1
        left = 0
        while self.size + measure > self.limit:
            self.get_nowait()
            left += 1
        self.dropped += left
        self._add(item, measure)
        return left


class Backpressure(_Bounded[T]):
    """Nothing is dropped: `put` waits for room, `put_nowait` says no and counts it in `refused`."""

    __slots__ = ("_putters", "refused")

    def __init__(self, limit: int, measure: Callable[[T], int] = _one) -> None:
        super().__init__(limit, measure)
        self.refused = 0
        self._putters: deque[asyncio.Future[None]] = deque()

    def put_nowait(self, item: T) -> bool:
        """Append `item` if it fits and nobody waits before it; False otherwise. Raises QueueClosed."""
        if self._closed:
            raise QueueClosed
        measure = self._measure(item)
        if self._putters or not self._fits(measure):
            self.refused += 1
            return False
        self._add(item, measure)
        return True

    async def put(self, item: T) -> None:
        """Append `item` as soon as there is room, in order of arrival. Raises QueueClosed."""
        measure = self._measure(item)
        first = True
        while not self._closed and (not self._fits(measure) or (first and self._putters)):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # A producer that was woken in vain keeps its place.
            (self._putters.append if first else self._putters.appendleft)(waiter)
            first = False
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._putters:
                    self._putters.remove(waiter)
                self._admit()
                raise
        if self._closed:
            raise QueueClosed
        self._add(item, measure)
        self._admit()

    def get_nowait(self) -> T | None:
        item = super().get_nowait()
        self._admit()
        return item

    def clear(self) -> int:
        count = super().clear()
        self._admit()
        return count

    def close(self) -> None:
        super().close()
        while self._putters:
            self._release()

    def _fits(self, measure: int) -> bool:
        # An item larger than the limit goes alone, else its producer would wait for ever.
        return not self._items or self.size + measure <= self.limit

    def _admit(self) -> None:
        if self._putters and self.size < self.limit:
            self._release()

    def _release(self) -> None:
        waiter = self._putters.popleft()
        if not waiter.done():
            waiter.set_result(None)
