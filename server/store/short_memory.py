"""What a process remembers for a while, so many things at most: all live equally long, the oldest goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from server.clock import Clock

T = TypeVar("T")


class ShortMemory(Generic[T]):
    """Attributes:
    evicted: things that were forgotten before their time, because more than `capacity` were remembered at once.
    """

    __slots__ = ("_capacity", "_clock", "_kept", "_ttl_ns", "evicted")

    def __init__(self, clock: Clock, *, ttl_s: int, capacity: int) -> None:
        self._clock = clock
        self._ttl_ns = ttl_s * 1_000_000_000
        self._capacity = capacity
        # In order of expiry, because all live equally long.
        self._kept: OrderedDict[str, tuple[int, T]] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> T | None:
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] > self._clock.now_ns() else None

    def add(self, key: str, thing: T) -> None:
        """Remember `thing` from now on, in the place of what `key` stood for."""
        now_ns = self._clock.now_ns()
        self._kept.pop(key, None)
        while self._kept and next(iter(self._kept.values()))[0] <= now_ns:
            self._kept.popitem(last=False)
        while len(self._kept) >= self._capacity:
            self._kept.popitem(last=False)
            self.evicted += 1
        self._kept[key] = (now_ns + self._ttl_ns, thing)

    def drop(self, key: str, thing: T) -> None:
        """Forget `thing`, unless `key` stands for another one by now."""
        found = self._kept.get(key)
        if found is not None and found[1] is thing:
            del self._kept[key]
