"""What the process believes of a provider: whether a call may count on it, and what it last failed with."""

from __future__ import annotations

import asyncio

import pytest

from providers.breaker import FAILURES_IN_A_ROW
from providers.errors import ProviderError, ProviderRejected, ProviderTimeout, ProviderUnavailable
from providers.health import ProviderHealth

WRONG = ProviderRejected("language", status=400, provider="x")
REFUSED = ProviderRejected("key", status=401, provider="x")


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
        ((REFUSED, WRONG), False, "rejected_401"),
    ],
)
def test_what_failures_and_successes_make_of_it(
    reports: tuple[ProviderError | None, ...], can_work: bool, last_error: str
) -> None:
    health = after(*reports)
    assert (health.can_work, health.last_error) == (can_work, last_error)
