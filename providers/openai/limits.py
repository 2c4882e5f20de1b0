"""What a service says about its rate limits, who is told of it, and when to come back."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol, runtime_checkable

from providers.observer import Allowance

log = logging.getLogger(__name__)

LOW_SHARE = 0.1
"""Of an allowance: with less than that left it is said once in the log, and again after it was more."""
MAX_RETRY_AFTER_MS = 86_400_000  # a day; Groq's longest windows are days
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d)?")
_MS = {"d": 86_400_000.0, "h": 3_600_000.0, "m": 60_000.0, "s": 1000.0, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """The newest figures of one account. None where the service does not say.

    `reset_*_ms` is when the allowance is whole again, counted from `observed_ns` (monotonic). Groq counts requests by
    the day, the others by the minute.
    """

    observed_ns: int
    limit_requests: int | None = None
    limit_tokens: int | None = None
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_requests_ms: int | None = None
    reset_tokens_ms: int | None = None

    def allowances(self) -> Iterator[tuple[Allowance, int, int | None, int | None]]:
        """(of what, remaining, limit, ms until it is whole again) of each that the service told."""
        if self.remaining_requests is not None:
            yield "requests", self.remaining_requests, self.limit_requests, self.reset_requests_ms
        if self.remaining_tokens is not None:
            yield "tokens", self.remaining_tokens, self.limit_tokens, self.reset_tokens_ms


OnLimit = Callable[[Allowance, int, int | None], None]
"""(of what, remaining, limit): as ProviderObserver.on_limit for one provider."""


@runtime_checkable
class Limited(Protocol):
    """An adapter whose service tells its limits."""

    def tell_limits(self, on_limit: OnLimit) -> None:
        """From now on. Called in the event loop, after each answer that told them."""


class LimitWatch:
    """The newest figures of one account; who wants to know is told of each, the log when little is left."""

    __slots__ = ("_low", "_on_limit", "_provider", "newest")

    def __init__(self, provider: str) -> None:
        self.newest: RateLimits | None = None
        self._provider = provider
        self._on_limit: OnLimit | None = None
        self._low: set[Allowance] = set()

    def tell(self, on_limit: OnLimit) -> None:
        self._on_limit = on_limit

    def see(self, headers: Mapping[str, str]) -> None:
        """Of an answer, or of a refusal."""
        limits = read_limits(headers)
        if limits is None:
            return
        self.newest = limits
        for of, remaining, limit, reset_ms in limits.allowances():
            if self._on_limit is not None:
                self._on_limit(of, remaining, limit)
            if remaining and remaining >= LOW_SHARE * (limit or 0):
                self._low.discard(of)
            elif of not in self._low:
                self._low.add(of)
                self._say(of, remaining, limit, reset_ms)

    def _say(self, of: Allowance, remaining: int, limit: int | None, reset_ms: int | None) -> None:
        log.warning(
            "%s: %d %s left of the account's limit%s%s",
            self._provider,
            remaining,
            of,
            f" of {limit}" if limit is not None else "",
            f", whole again in {reset_ms / 1000:.0f} s" if reset_ms is not None else "",
            extra={"event": "provider_limit_low", "provider": self._provider, "of": of},
        )


def read_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """The x-ratelimit headers of an answer; None when there are none that can be read."""
    counts = {
        f"{what}_{of}": _count(headers.get(f"x-ratelimit-{what}-{of}"))
        for what in ("limit", "remaining")
        for of in ("requests", "tokens")
    }
    resets = {f"reset_{of}_ms": duration_ms(headers.get(f"x-ratelimit-reset-{of}")) for of in ("requests", "tokens")}
    if all(one is None for one in counts.values()):
        return None
    return RateLimits(observed_ns=time.monotonic_ns(), **counts, **resets)


def duration_ms(text: str | None) -> int | None:
    """`6m0s`, `350ms`, `2m59.56s`, `7.66s`, or bare seconds; None for anything else."""
    if not text:
        return None
    total_ms, at, text = 0.0, 0, text.strip()
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or (part[2] is None and part.end() - part.start() != len(text)):
            return None
        total_ms += float(part[1]) * _MS[part[2] or "s"]
        at = part.end()
    return round(total_ms) if total_ms < 1e15 else None


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """When the service wants to be asked again: `retry-after-ms`, else `retry-after` in seconds or as a date."""
    given = headers.get("retry-after-ms")
    wait_ms = _number(given)
    if wait_ms is None and (given := headers.get("retry-after")):
        seconds = _number(given)
        wait_ms = seconds * 1000 if seconds is not None else _until_ms(given)
    if wait_ms is None:
        return None
    return round(min(max(wait_ms, 0.0), MAX_RETRY_AFTER_MS))


def _until_ms(date: str) -> float | None:
    try:
        return (parsedate_to_datetime(date).timestamp() - time.time()) * 1000
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\s*\d{1,15}(\.\d{1,15})?\s*", text) else None


def _count(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,15}", text) else None
