"""What can go wrong with a speech or language service, as types that a call can act on."""

from __future__ import annotations

import re
from typing import Literal

# A name in quotes ('max_tokens') says what is wrong; several words may be a piece of the conversation.
_QUOTED = re.compile(r"""(?s)(?<!\w)(["'`])(.*?)(?:\1(?!\w)|$)""")

Phase = Literal["connect", "first", "idle", "total"]


def without_quotes(text: str) -> str:
    """A service's words without what they quote of the request: our log must not hold what a caller said."""
    return _QUOTED.sub(lambda quote: f"{quote[1]}…{quote[1]}" if " " in quote[2] else quote[0], text)


class ProviderError(Exception):
    """A provider failed. `retryable` says whether the same request may succeed elsewhere or later.

    Args:
        message: what was expected and what came; never spoken to a caller.
        provider: name of the adapter, e.g. "azure-stt".
    """

    retryable = True

    def __init__(self, message: str, *, provider: str = "") -> None:
        super().__init__(f"{provider}: {message}" if provider else message)
        self.provider = provider


class ProviderTimeout(ProviderError):
    """A deadline of ours passed: `phase` is connect, first (useful output), idle or total."""

    def __init__(self, phase: Phase, limit_ms: int, *, provider: str = "") -> None:
        super().__init__(f"no answer within {limit_ms} ms ({phase})", provider=provider)
        self.phase: Phase = phase
        self.limit_ms = limit_ms


class ProviderUnavailable(ProviderError):
    """Connection failed or the service answered 5xx: retry within the budget."""


class ProviderRejected(ProviderError):
    """The service refused: 4xx or quota. Not retryable except 429, which may hold `retry_after_ms`.

    Args:
        code: the service's own word for the reason, where it has one.
        retryable: what this reason allows, where the status alone does not say it.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int,
        retry_after_ms: int | None = None,
        provider: str = "",
        code: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, provider=provider)
        self.status = status
        self.retry_after_ms = retry_after_ms
        self.code = code
        self.retryable = status in (429, 498) if retryable is None else retryable


class ProviderFiltered(ProviderRejected):
    """The service's content filter refused the question, or all of the answer: say it differently."""


class ProviderProtocolError(ProviderError):
    """A stream that we cannot parse."""
