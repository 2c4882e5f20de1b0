"""When to leave a provider alone: a circuit breaker, and a budget for asking again. Pure: time comes in.

    closed ── 5 failures in a row, or half of 10 and more within 10 s ──► open ── pause, jittered ──► half open
      ▲                                                                    ▲                             │
      └── ramp: 10 % of requests, 10 % more each second ◄── success ───────┼──────────── one probe ──────┘
                                                                           └── failure: the pause doubles

The ramp keeps a service that has just come back from being hit by everybody at once. The breaker is advice: who has
nobody else to ask (`providers.order`) asks all the same, and a success closes it from any state.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from providers.observer import BreakerState

FAILURES_IN_A_ROW = 5
WINDOW_S = 10.0
WINDOW_MIN_REQUESTS = 10
WINDOW_MAX_REQUESTS = 256
FAILED_SHARE = 0.5
PAUSE_S = 2.0
MAX_PAUSE_S = 30.0
JITTER = 0.25  # of the pause, either way
PROBE_LOST_S = 30.0  # a probe that never reports is given up
RAMP_START = 0.1
RAMP_PER_S = 0.1


class Breaker:
    """One provider under one key. `dice` gives numbers in [0, 1)."""

    __slots__ = (
        "_dice",
        "_failures",
        "_open_until_s",
        "_pause_s",
        "_probe_until_s",
        "_ramp_credit",
        "_ramp_from_s",
        "_recent",
        "state",
    )

    def __init__(self, dice: Callable[[], float] = random.random) -> None:
        self.state: BreakerState = "closed"
        self._dice = dice
        self._failures = 0
        self._recent: deque[tuple[float, bool]] = deque(maxlen=WINDOW_MAX_REQUESTS)
        self._pause_s = PAUSE_S
        self._open_until_s = 0.0
        self._probe_until_s = 0.0
        self._ramp_from_s: float | None = None
        self._ramp_credit = 0.0

    def may(self, now_s: float) -> bool:
        """Whether a request would be welcome now. Changes nothing."""
        if self.state == "closed":
            return self._ramp_credit + self._ramp_share(now_s) >= 1
        return now_s >= (self._open_until_s if self.state == "open" else self._probe_until_s)

    def claim(self, now_s: float) -> bool:
        """`may`, by somebody who will make the request at once and report how it went.

        In the half-open state the first asker gets the probe; while the ramp lasts, refusals count towards the next
        request that is let through.
        """
        welcome = self.may(now_s)
        if self.state == "closed":
            share = self._ramp_share(now_s)
            self._ramp_credit = 0.0 if share >= 1 else self._ramp_credit + share - welcome
        elif welcome:
            self.state = "half_open"
            self._probe_until_s = now_s + PROBE_LOST_S
        return welcome

    def on_success(self, now_s: float) -> None:
        self._failures = 0
        self._recent.append((now_s, True))
        if self.state != "closed":
            self.state = "closed"
            self._pause_s = PAUSE_S
            self._recent.clear()
            self._ramp_from_s = now_s
            self._ramp_credit = 0.0

    def on_failure(self, now_s: float) -> None:
        self._failures += 1
        self._recent.append((now_s, False))
        if self.state == "half_open":
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
            self._open(now_s)
        elif self.state == "closed" and (self._failures >= FAILURES_IN_A_ROW or self._is_failing(now_s)):
            self._open(now_s)

    def on_dropped(self) -> None:
        """A request was given up by its asker before anything was known: if it was the probe, the next one may be."""
        if self.state == "half_open":
            self._probe_until_s = 0.0

    def _open(self, now_s: float) -> None:
        self.state = "open"
        self._ramp_from_s = None
        self._open_until_s = now_s + self._pause_s * (1 + JITTER * (2 * self._dice() - 1))

    def _is_failing(self, now_s: float) -> bool:
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()
        failed = sum(not fine for _, fine in self._recent)
        return len(self._recent) >= WINDOW_MIN_REQUESTS and failed >= FAILED_SHARE * len(self._recent)

    def _ramp_share(self, now_s: float) -> float:
        """Of the requests, how many are let through: all of them, but for the first seconds after an outage."""
        if self._ramp_from_s is None:
            return 1.0
        share = RAMP_START + RAMP_PER_S * (now_s - self._ramp_from_s)
        if share >= 1:
            self._ramp_from_s = None
        return min(1.0, share)


class Budget:
    """A token bucket that fills with use: at most `share` of the requests may be extra ones, and a few at the start."""

    __slots__ = ("_most", "_share", "_tokens")

    def __init__(self, share: float, most: float = 10.0, start: float = 2.0) -> None:
        self._share = share
        self._most = most
        self._tokens = start

    def on_request(self) -> None:
        self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Whether one more request may be made beside the usual ones; if so it is counted."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
