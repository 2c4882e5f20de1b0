"""What the process believes of a provider: whether a call may count on it, and what it last failed with."""

from __future__ import annotations

import asyncio

import pytest

from providers.breaker import FAILURES_IN_A_ROW, MAX_PAUSE_S
from providers.errors import ProviderError, ProviderRejected, ProviderTimeout, ProviderUnavailable
from providers.health import NEWS_S, ProviderHealth

WRONG = ProviderRejected("language", status=400, provider="x")
DOWN = ProviderUnavailable("gone")
REFUSED = ProviderRejected("key", status=401, provider="x")


class Clock:
    now_s = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The loop's clock, moved by the test."""
    one = Clock()
    monkeypatch.setattr("providers.health._now_s", lambda: one.now_s)
    return one


def after(*reports: ProviderError | None) -> ProviderHealth:
    """A provider after these failures and successes (None)."""

    async def report() -> ProviderHealth:
        health = ProviderHealth("stt", "x")
        for one in reports:
            attempt = health.begin()
            attempt.succeeded() if one is None else attempt.failed(one)
        return health

    return asyncio.run(report())


@pytest.mark.parametrize(
    ("reports", "can_work", "last_error"),
    [
        ((), True, ""),
        ((None,), True, ""),
        # Never worked: one failure is enough to doubt it.
        ((REFUSED,), False, "rejected_401"),
        ((ProviderUnavailable("gone"),), False, "unavailable"),
        # It worked before: one failure is no outage, as many as open the breaker are.
        ((None, ProviderUnavailable("gone")), True, "unavailable"),
        ((None, *[ProviderTimeout("first", 5)] * FAILURES_IN_A_ROW), False, "timeout_first"),
        ((REFUSED, None), True, ""),
        # A wrong request says nothing of the provider; until it has worked it is shown.
        ((WRONG,), True, "rejected_400"),
        ((None, WRONG), True, ""),
        # Nor does it hide that it answers now.
        ((REFUSED, WRONG), True, "rejected_400"),
        ((None, *[DOWN] * FAILURES_IN_A_ROW, WRONG), False, "unavailable"),
    ],
)
def test_what_failures_and_successes_make_of_it(
    reports: tuple[ProviderError | None, ...], can_work: bool, last_error: str
) -> None:
    health = after(*reports)
    assert (health.can_work, health.last_error) == (can_work, last_error)


def test_a_probe_that_is_answered_with_our_own_fault_ends_the_outage(clock: Clock) -> None:
    health = ProviderHealth("stt", "x")
    for _ in range(FAILURES_IN_A_ROW):
        health.begin().failed(DOWN)
    assert health.breaker.state == "open" and not health.claim()
    clock.now_s += MAX_PAUSE_S
    assert health.claim() and health.breaker.state == "half_open"
    health.begin().failed(WRONG)
    assert health.breaker.state == "closed" and health.can_work


def test_an_old_failure_asks_for_news(clock: Clock) -> None:
    health = ProviderHealth("stt", "x")
    assert not health.needs_asking
    health.begin().failed(DOWN)
    assert health.needs_asking, "it never worked"
    health.begin().succeeded()
    health.begin().failed(DOWN)
    clock.now_s += NEWS_S - 1
    assert not health.needs_asking
    clock.now_s += 1
    assert health.needs_asking
    health.begin().failed(DOWN)
    assert not health.needs_asking, "that was the news"
    health.begin().succeeded()
    clock.now_s += NEWS_S
    health.begin().failed(WRONG)
    clock.now_s += NEWS_S
    assert not health.needs_asking
