"""How late a carrier's messages reach the server: jitter and stalls of one TCP connection, by a seeded dice.

    message ──delay: log-normal──→ never before its predecessor ──→ the socket
                └── a stall: nothing arrives for two seconds, then all of it at once

One scheduler serves all streams; it is told the time by the carrier's tick, so delays are whole slots of that tick.
Only the way to the server is delayed: what comes back is judged by the playout clock, which has no business with it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

FRAME_MS = 20
Z_95 = 1.6449
"""The standard normal's 95th percentile."""
MAX_HELD = 1000
"""Messages of one stream on their way: twenty seconds; beyond that they are delivered at once, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """A carrier's usual network. `stall_share` of all time is spent in stalls of `stall_ms`."""

    median_ms: float = 5.0
    p95_ms: float = 25.0
    stall_share: float = 0.001
    stall_ms: float = 2000.0
    seed: int = 1


class Arrivals:
    """All messages that are on their way. `deliver_due` is called in every slot of the carrier's tick."""

    def __init__(self, weather: Weather) -> None:
        self._dice = random.Random(weather.seed)
        self._mu = math.log(weather.median_ms)
        self._sigma = math.log(weather.p95_ms / weather.median_ms) / Z_95
        self._stall_chance = weather.stall_share * FRAME_MS / weather.stall_ms
        self._stall_ns = int(weather.stall_ms * 1e6)
        self._due: list[tuple[int, int, Way]] = []
        self._count = 0
        self.stalls = 0

    def draw_ns(self) -> int:
        """The delay of one message; a stall is part of it."""
        delay_ns = int(math.exp(self._dice.gauss(self._mu, self._sigma)) * 1e6)
        if self._dice.random() < self._stall_chance:
            self.stalls += 1
            delay_ns += self._stall_ns
        return delay_ns

    def deliver_due(self, now_ns: int) -> None:
        while self._due and self._due[0][0] <= now_ns:
            heapq.heappop(self._due)[2].deliver_next()

    def add(self, due_ns: int, way: Way) -> None:
        self._count += 1
        heapq.heappush(self._due, (due_ns, self._count, way))


class Way:
    """One stream's way to the server. `deliver` puts a message on the socket."""

    __slots__ = ("_arrivals", "_deliver", "_held", "_last_ns")

    def __init__(self, arrivals: Arrivals, deliver: Callable[[bytes], None]) -> None:
        self._arrivals = arrivals
        self._deliver = deliver
        self._held: deque[bytes] = deque()
        self._last_ns = 0

    def send(self, message: bytes, now_ns: int) -> None:
        if len(self._held) >= MAX_HELD:
            self.deliver_all()
        self._held.append(message)
        self._last_ns = max(self._last_ns, now_ns + self._arrivals.draw_ns())
        self._arrivals.add(self._last_ns, self)

    def deliver_next(self) -> None:
        if self._held:
            self._deliver(self._held.popleft())

    def deliver_all(self) -> None:
        """The stream ends: what is on its way arrives before the close."""
        while self._held:
            self.deliver_next()
