"""What the process has learnt of one provider: its breaker, its budgets, how fast its first answer comes, and its pace.

One object for a service of a provider, shared by all calls; who asks the provider asks and tells this first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from providers.breaker import Breaker, Budget
from providers.errors import ProviderError, ProviderRejected, ProviderTimeout
from providers.observer import ProviderObserver, Service, Unobserved, failure_kind
from providers.pace import Pace

RETRY_SHARE = 0.1
HEDGE_SHARE = 0.05
FIRST_SAMPLES = 64
FIRST_MIN_SAMPLES = 16
# A wait that the provider asks for (429) is kept when it is no longer than this; else the next one is quicker.
MAX_POLITE_WAIT_MS = 400
# Failures that say nothing about the provider's health, but that it answers: the request was wrong.
OUR_FAULT = (400, 413, 422)
# A failure is news for so long; after that somebody should ask, or what is said of the provider is an old story.
NEWS_S = 30.0


@dataclass(slots=True)
class ProviderHealth:
    service: Service
    provider: str
    observer: ProviderObserver = field(default_factory=Unobserved)
    breaker: Breaker = field(default_factory=Breaker)
    retries: Budget = field(default_factory=lambda: Budget(RETRY_SHARE))
    hedges: Budget = field(default_factory=lambda: Budget(HEDGE_SHARE, start=1.0))
    pace: Pace = field(default_factory=Pace)  # of its voices
    last_error: str = ""  # kind of the last failure; empty when a request has succeeded since
    has_worked: bool = False
    _has_failed_first: bool = False
    _failed_at_s: float | None = None
    _first_ms: deque[float] = field(default_factory=lambda: deque(maxlen=FIRST_SAMPLES))

    def may(self) -> bool:
        """Whether a request would be welcome now; nothing is taken."""
        return self.breaker.may(_now_s())

    @property
    def can_work(self) -> bool:
        """Whether a call may count on it: it is not left alone, and if it has failed it has also worked."""
        return self.breaker.state == "closed" and not self._has_failed_first

    @property
    def needs_asking(self) -> bool:
        """Whether a request is wanted that tells how it is: a call may not count on it, or its last failure is old."""
        return not self.can_work or (self._failed_at_s is not None and _now_s() >= self._failed_at_s + NEWS_S)

    def claim(self) -> bool:
        """`may`, right before the request: who is let through must `begin` it."""
        before = self.breaker.state
        allowed = self.breaker.claim(_now_s())
        self._tell(before)
        return allowed

    def begin(self, patience_ms: int | None = None) -> Attempt:
        """A request is made now; whoever makes it settles the attempt.

        `patience_ms`: without output for so long it has failed, even if its asker would still have waited.
        """
        self.retries.on_request()
        self.hedges.on_request()
        self.observer.on_attempt(self.service, self.provider)
        return Attempt(self, patience_ms)

    def on_success(self) -> None:
        before = self.breaker.state
        self.has_worked, self._has_failed_first, self.last_error, self._failed_at_s = True, False, "", None
        self.breaker.on_success(_now_s())
        self._tell(before)

    def on_failure(self, error: ProviderError) -> None:
        kind = failure_kind(error)
        self.observer.on_failure(self.service, self.provider, kind)
        before = self.breaker.state
        if isinstance(error, ProviderRejected) and error.status in OUR_FAULT:
            if not self.has_worked:
                self.last_error, self._has_failed_first, self._failed_at_s = kind, False, None
            if before == "half_open":
                self.breaker.on_success(_now_s())  # it is there, which is what the probe was to tell
        else:
            self.last_error, self._failed_at_s = kind, _now_s()
            self._has_failed_first = not self.has_worked
            self.breaker.on_failure(_now_s())
        self._tell(before)

    def on_cut(self, error: ProviderError) -> None:
        """A stream that worked has broken. Counted as a failure, but no sign that a new one would fail.

        One restart of a service cuts the streams of all calls at once; if that opened the breaker, none of them could
        be opened again.
        """
        self.observer.on_failure(self.service, self.provider, failure_kind(error))

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


class Attempt:
    """One request on its way. The first report stands, so that a `finally` may say `dropped`."""

    __slots__ = ("_at_s", "_health", "_patience_ms", "has_output", "is_settled")

    def __init__(self, health: ProviderHealth, patience_ms: int | None = None) -> None:
        self.has_output = False
        self._health = health
        self._patience_ms = patience_ms
        self._at_s = _now_s()
        self.is_settled = False

    def took_ms(self) -> float:
        return (_now_s() - self._at_s) * 1000

    def saw_first(self) -> None:
        """The first useful output is there, or its asker waits for it no longer: it took at least so long."""
        self._health.saw_first(self.took_ms())

    def succeeded(self) -> None:
        if self._settle():
            self._health.on_success()

    def failed(self, error: ProviderError) -> None:
        if self._settle():
            self._health.on_failure(error)

    def dropped(self) -> None:
        """Its asker wants no more of it: interrupted, hung up, another one was quicker. Beyond the patience that
        one has with it, that is a timeout: who hangs must not look well because its asker left a little earlier.
        """
        if not self._settle():
            return
        if self.has_output:
            self._health.on_success()
        elif self._patience_ms is not None and self.took_ms() >= self._patience_ms:
            self._health.on_failure(ProviderTimeout("first", self._patience_ms, provider=self._health.provider))
        else:
            self._health.breaker.on_dropped()

    def _settle(self) -> bool:
        was_open, self.is_settled = not self.is_settled, True
        return was_open


def _now_s() -> float:
    return asyncio.get_running_loop().time()
