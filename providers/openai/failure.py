"""What an SDK raises, or a service says in the middle of a stream, as the errors that a call can act on.

Guarantees: nothing of an SDK, its HTTP library or its JSON parser gets out, whatever came over the wire; a message
holds no key, no header and no word of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
import httpx2
import openai

from providers.errors import (
    Phase,
    ProviderError,
    ProviderFiltered,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    without_quotes,
)
from providers.openai.limits import retry_after_ms
from providers.openai.options import LinkOptions

# What the SDK and its transport raise for what came over the wire. TypeError and the like stay: they are our bugs.
SDK_ERRORS: tuple[type[Exception], ...] = (
    openai.OpenAIError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx2.HTTPError, httpx2.InvalidURL,
    httpx2.StreamError, ProviderError, OSError, ValueError,
)  # fmt: skip
MAX_SAID_CHARS = 200
_NO_MORE_MONEY = {"insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached"}
_FILTERED = {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
_BUSY = {"rate_limit_exceeded", "slow_down", "rate_limit_error", "429"}
_SECRET = re.compile(r"(?i)\b(?:sk|gsk|key|bearer)[-_ ][\w*.-]{6,}|\b[\w*-]{32,}\b")


def translate(error: Exception, *, provider: str, phase: Phase, link: LinkOptions) -> ProviderError:
    """The error of ours for one of SDK_ERRORS. `phase` is what was waited for."""
    for one in (error, error.__cause__):
        if isinstance(one, ProviderTimeout):
            return one
        if isinstance(one, ProviderUnavailable | ProviderProtocolError):
            return type(one)(str(one), provider=provider) if not one.provider else one
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        response = getattr(error, "response", None)
        headers = response.headers if response is not None else {}
        return refused(status, getattr(error, "body", None), headers, provider=provider)
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    for one in (cause, error):
        if isinstance(one, httpx.ConnectTimeout | httpx2.ConnectTimeout):
            return ProviderTimeout("connect", link.connect_ms, provider=provider)
        if isinstance(one, httpx.WriteTimeout | httpx2.WriteTimeout):
            return ProviderTimeout(phase, link.write_ms, provider=provider)
        if isinstance(one, httpx.TimeoutException | httpx2.TimeoutException):
            return ProviderTimeout(phase, link.read_ms, provider=provider)
        if isinstance(one, httpx.RemoteProtocolError | httpx2.RemoteProtocolError):
            return ProviderUnavailable(f"connection: {said(str(one))}", provider=provider)
        if isinstance(one, httpx.TransportError | httpx2.TransportError | OSError):
            return ProviderUnavailable(f"connection: {type(one).__name__} {said(str(one))}".rstrip(), provider=provider)
    body = getattr(error, "body", None)
    if isinstance(body, Mapping):
        return told(body, provider=provider)
    if isinstance(error, ValueError) or isinstance(cause, ValueError):
        return ProviderProtocolError(f"an answer that cannot be read ({type(cause).__name__})", provider=provider)
    return ProviderUnavailable(f"{type(error).__name__}", provider=provider)


def refused(status: int, body: object, headers: Mapping[str, str], *, provider: str) -> ProviderError:
    """The error for an answer that is no success. `body` is the service's error object, or anything else."""
    fields = error_fields(body)
    code, message = _code(fields), said(str(fields.get("message") or ""))
    request_id = re.sub(r"[^\w.-]", "", headers.get("x-request-id") or headers.get("apim-request-id") or "")[:64]
    where = f" (request {request_id})" if request_id else ""
    what = f"status {status}{f' {code}' if code else ''}: {message or 'no reason given'}{where}"
    after_ms = retry_after_ms(headers)
    if status in (401, 403):
        # The service's words may hold a part of the key.
        return ProviderRejected(
            f"status {status}: the key is not accepted, or not for this{where}",
            status=status, provider=provider, code=code,
        )  # fmt: skip
    if _is_filtered(fields):
        return ProviderFiltered(f"status {status}: content filter{where}", status=status, provider=provider, code=code)
    if status in (408, 409) or status >= 500:
        return ProviderUnavailable(what, provider=provider)
    retryable: bool | None = None
    if code in _NO_MORE_MONEY or fields.get("type") in _NO_MORE_MONEY:
        retryable = False
    elif code == "tool_use_failed":
        retryable = True  # the model wrote a call that is none; asked again it usually does better
    return ProviderRejected(
        what, status=status, retry_after_ms=after_ms, provider=provider, code=code, retryable=retryable
    )


def told(fields: Mapping[str, Any], *, provider: str) -> ProviderError:
    """The error for an error object inside a stream, where there is no status."""
    code = _code(fields)
    kinds = {code, str(fields.get("type") or "")}
    if _is_filtered(fields):
        return ProviderFiltered("content filter", status=400, provider=provider, code=code)
    message = f"in the stream: {code} {said(str(fields.get('message') or ''))}".rstrip()
    if kinds & _NO_MORE_MONEY:
        return ProviderRejected(message, status=429, provider=provider, code=code, retryable=False)
    if kinds & _BUSY:
        return ProviderRejected(message, status=429, provider=provider, code=code)
    if code == "tool_use_failed":
        return ProviderRejected(message, status=400, provider=provider, code=code, retryable=True)
    return ProviderUnavailable(message, provider=provider)


def error_fields(body: object) -> Mapping[str, Any]:
    """The error object of an answer's body: one SDK hands it over as it is, another unpacked."""
    fields = body if isinstance(body, Mapping) else {}
    inner = fields.get("error")
    return inner if isinstance(inner, Mapping) else fields


def said(text: str) -> str:
    """A service's words for our log: short, on one line, nothing that looks like a key or quotes several words."""
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SAID_CHARS])
    return _SECRET.sub("…", without_quotes(text))[:MAX_SAID_CHARS].strip()


def _code(fields: Mapping[str, Any]) -> str:
    code = fields.get("code") or fields.get("type") or ""
    return re.sub(r"[^\w.-]", "", str(code))[:64]


def _is_filtered(fields: Mapping[str, Any]) -> bool:
    inner = fields.get("innererror")
    codes = {fields.get("code"), inner.get("code") if isinstance(inner, Mapping) else None}
    return bool({one for one in codes if isinstance(one, str)} & _FILTERED)
