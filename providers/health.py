"""What the process has learnt of one provider: its breaker, its budgets, how fast its first answer comes.

One object for a service of a provider, shared by all calls; the wrappers in fallback_*.py ask and tell it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from providers.breaker import Breaker, Budget
from providers.errors import ProviderError, ProviderRejected, ProviderTimeout
from providers.observer import ProviderObserver, Service, Unobserved, failure_kind

RETRY_SHARE = 0.1
HEDGE_SHARE = 0.05
FIRST_SAMPLES = 64
FIRST_MIN_SAMPLES = 16
# A wait that the provider asks for (429) is kept when it is no longer than this; else the next one is quicker.
MAX_POLITE_WAIT_MS = 400
# Failures that say nothing about the provider's health: the request was wrong.
OUR_FAULT = (400, 413, 422)


@dataclass(slots=True)
class ProviderHealth:
    service: Service
    provider: str
    observer: ProviderObserver = field(default_factory=Unobserved)
    breaker: Breaker = field(default_factory=Breaker)
    retries: Budget = field(default_factory=lambda: Budget(RETRY_SHARE))
    hedges: Budget = field(default_factory=lambda: Budget(HEDGE_SHARE, start=1.0))
    _first_ms: deque[float] = field(default_factory=lambda: deque(maxlen=FIRST_SAMPLES))

    def allows(self) -> bool:
        before = self.breaker.state
        allowed = self.breaker.allows(_now_s())
        self._tell(before)
        return allowed

    def on_attempt(self) -> None:
        self.retries.on_request()
        self.hedges.on_request()
        self.observer.on_attempt(self.service, self.provider)

    def on_success(self) -> None:
        before = self.breaker.state
        self.breaker.on_success(_now_s())
        self._tell(before)

    def on_failure(self, error: ProviderError) -> None:
        self.observer.on_failure(self.service, self.provider, failure_kind(error))
        if isinstance(error, ProviderRejected) and error.status in OUR_FAULT:
            return
        before = self.breaker.state
        self.breaker.on_failure(_now_s())
        self._tell(before)

    def polite_wait_ms(self, error: ProviderError) -> int | None:
        """How long to wait before asking this provider again; None: it is not worth it, or not allowed.

        A deadline that has passed was the patience that there was.
        """
        if not error.retryable or isinstance(error, ProviderTimeout):
            return None
        asked_ms = error.retry_after_ms if isinstance(error, ProviderRejected) else None
        if asked_ms is not None and asked_ms > MAX_POLITE_WAIT_MS:
            return None
        if not self.retries.take():
            return None
        self.observer.on_retry(self.service, self.provider)
        return asked_ms or 0

    def saw_first(self, took_ms: float) -> None:
        self._first_ms.append(took_ms)

    def slow_first_ms(self, default_ms: float) -> float:
        """The p95 of the time to the first useful output, `default_ms` until enough of them were seen."""
        if len(self._first_ms) < FIRST_MIN_SAMPLES:
            return default_ms
        return sorted(self._first_ms)[int(0.95 * (len(self._first_ms) - 1))]

    def _tell(self, before: str) -> None:
        if self.breaker.state != before:
            self.observer.on_breaker(self.service, self.provider, self.breaker.state)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
