"""What the SDK's cancellation codes mean to a call.

The codes are those of azure-cognitiveservices-speech 1.53; which failure on the wire gives which code was seen with
that version: 401 upgrade, 429 upgrade and close 4429 → TooManyRequests, 503, reset and refused → ConnectionFailure.
"""

from __future__ import annotations

import re

from azure.cognitiveservices.speech import CancellationErrorCode as Code

from providers.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    without_quotes,
)

_REJECTED = {
    Code.AuthenticationFailure: 401,
    Code.BadRequest: 400,
    Code.TooManyRequests: 429,
    Code.Forbidden: 403,
}
MAX_DETAIL_CHARS = 300


def failure(code: Code, details: str, provider: str, silent_ms: int) -> ProviderError:
    """The typed error of a canceled recognition or synthesis. `silent_ms` is named when the SDK itself gave up."""
    # The status in the text is more exact than the code: 403 comes as an authentication failure.
    status = re.search(r"\((4\d\d)\)", details)
    message = f"{code.name}: {without_quotes(details[: 4 * MAX_DETAIL_CHARS])[:MAX_DETAIL_CHARS]}"
    if re.search(r"Error code: 4429|\b4429\b", details):
        return ProviderRejected(message, status=429, provider=provider)
    if code in _REJECTED:
        return ProviderRejected(message, status=int(status[1]) if status else _REJECTED[code], provider=provider)
    if code == Code.ServiceTimeout:
        return ProviderTimeout("idle", silent_ms, provider=provider)
    if "ProtocolViolation" in details or "JSON" in details:
        return ProviderProtocolError(message, provider=provider)
    return ProviderUnavailable(message, provider=provider)
