"""What the process wants to know of every provider: attempts, failures, fallbacks, hedges, breakers, usage.

The wrappers in fallback_*.py report here; the server's metrics implement it. Every call is exact: one for each event,
never sampled, so that counters can be held against faults that were injected.
"""

from __future__ import annotations

from typing import Literal, Protocol

from providers.errors import ProviderError, ProviderProtocolError, ProviderRejected, ProviderTimeout

Service = Literal["stt", "llm", "tts"]
Hedge = Literal["won", "lost"]
BreakerState = Literal["closed", "open", "half_open"]
Allowance = Literal["requests", "tokens"]
Unit = Literal["prompt_tokens", "cached_tokens", "completion_tokens", "wasted_tokens", "characters", "audio_ms"]


class ProviderObserver(Protocol):
    """Nothing here waits or raises."""

    def on_attempt(self, service: Service, provider: str) -> None:
        """A request is about to be made."""

    def on_failure(self, service: Service, provider: str, kind: str) -> None:
        """It failed; `kind` is one of `failure_kind`."""

    def on_retry(self, service: Service, provider: str) -> None:
        """The same provider is asked again."""

    def on_fallback(self, service: Service, provider: str, successor: str) -> None:
        """`successor` takes over from `provider`."""

    def on_hedge(self, provider: str, outcome: Hedge) -> None:
        """A second request beside a slow one was answered first, or in vain."""

    def on_breaker(self, service: Service, provider: str, state: BreakerState) -> None: ...

    def on_usage(self, service: Service, provider: str, unit: Unit, amount: int) -> None: ...

    def on_limit(self, service: Service, provider: str, of: Allowance, remaining: int, limit: int | None) -> None:
        """What the service said is left of the account's allowance; not every service tells the whole of it."""


class Unobserved:
    """Nobody looks."""

    __slots__ = ()

    def on_attempt(self, service: Service, provider: str) -> None: ...

    def on_failure(self, service: Service, provider: str, kind: str) -> None: ...

    def on_retry(self, service: Service, provider: str) -> None: ...

    def on_fallback(self, service: Service, provider: str, successor: str) -> None: ...

    def on_hedge(self, provider: str, outcome: Hedge) -> None: ...

    def on_breaker(self, service: Service, provider: str, state: BreakerState) -> None: ...

    def on_usage(self, service: Service, provider: str, unit: Unit, amount: int) -> None: ...

    def on_limit(self, service: Service, provider: str, of: Allowance, remaining: int, limit: int | None) -> None: ...


def failure_kind(error: ProviderError) -> str:
    """A word for the metrics: timeout_first, rejected_429, rejected, unavailable, protocol."""
    match error:
        case ProviderTimeout(phase=phase):
            return f"timeout_{phase}"
        case ProviderRejected(status=status):
            return f"rejected_{status}" if status in (400, 401, 403, 404, 429, 498) else "rejected"
        case ProviderProtocolError():
            return "protocol"
    return "unavailable"
