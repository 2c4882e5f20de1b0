"""What tells OpenAI, Groq and Azure OpenAI apart outside of a stream: addresses, keys, models, headers, error bodies.

One simulator plays one flavour, as one host does. `Refusal` is an answer that is no success; `refuse` makes the
vendors' own by name, so that a fault and a real reason look the same.

Source: the vendors' API references and the SDKs' types; Azure's gateway (401, 404, 429, 5xx) answers in another shape
than the model behind it (400).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Flavour(StrEnum):
    OPENAI = "openai"
    GROQ = "groq"
    AZURE = "azure"


@dataclass(frozen=True, slots=True)
class Model:
    """`task`: chat, transcription or speech. `reasons`: takes no `max_tokens` and no temperature (OpenAI, Azure)."""

    name: str
    task: str = "chat"
    context_tokens: int = 128_000
    reasons: bool = False


MODELS: dict[Flavour, tuple[Model, ...]] = {
    Flavour.OPENAI: (
        Model("gpt-4o-mini"), Model("gpt-4.1-mini", context_tokens=1_047_576), Model("gpt-4.1-nano"),
        Model("gpt-5-mini", context_tokens=400_000, reasons=True), Model("gpt-6-luna", context_tokens=400_000),
        Model("whisper-1", "transcription"), Model("gpt-4o-mini-transcribe", "transcription"),
        Model("gpt-4o-transcribe", "transcription"), Model("gpt-4o-mini-tts", "speech"), Model("tts-1", "speech"),
    ),
    Flavour.GROQ: (
        Model("openai/gpt-oss-120b", context_tokens=131_072), Model("openai/gpt-oss-20b", context_tokens=131_072),
        Model("qwen/qwen3.8-27b", context_tokens=131_042), Model("whisper-large-v3", "transcription"),
        Model("whisper-large-v3-turbo", "transcription"), Model("canopylabs/orpheus-v1-english", "speech"),
    ),
    # Names of deployments.
    Flavour.AZURE: (
        Model("gpt-4o-mini"), Model("gpt-4.1-mini", context_tokens=1_047_576), Model("gpt-5-mini", reasons=True),
        Model("whisper", "transcription"), Model("gpt-4o-mini-transcribe", "transcription"),
        Model("tts", "speech"), Model("gpt-4o-mini-tts", "speech"),
    ),
}  # fmt: skip


@dataclass(slots=True)
class Refusal(Exception):
    """An answer that is no success. `body` None: the flavour's error object is made of the rest."""

    status: int
    message: str
    kind: str | None = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    html: bool = False


# Name -> status, type, code, message; {model} is the request's.
_REFUSALS: dict[str, tuple[int, str | None, str | None, str]] = {
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "forbidden": (403, "request_forbidden", "unsupported_country_region_territory",
                  "Country, region, or territory not supported"),
    "model_not_found": (404, "invalid_request_error", "model_not_found",
                        "The model `{model}` does not exist or you do not have access to it."),
    "context_length": (400, "invalid_request_error", "context_length_exceeded",
                       "Please reduce the length of the messages or completion."),
    "content_filter": (400, None, "content_filter",
                       "The response was filtered due to the prompt triggering the content management policy. "
                       "Please modify your prompt and retry."),
    "unprocessable": (422, "invalid_request_error", "unprocessable_entity", "The request could not be processed."),
    "conflict": (409, "invalid_request_error", "conflict", "The request conflicts with another."),
    "rate_limit": (429, "tokens", "rate_limit_exceeded",
                   "Rate limit reached for model `{model}` in organization `org-sim` on tokens per minute (TPM)."),
    "insufficient_quota": (429, "insufficient_quota", "insufficient_quota",
                           "You exceeded your current quota, please check your plan and billing details."),
    "slow_down": (429, "rate_limit_error", "slow_down", "Please reduce the ramp of your requests."),
    "capacity": (498, "capacity_exceeded", "capacity_exceeded", "Flex tier capacity exceeded. Please try again later."),
    "tool_use_failed": (400, "invalid_request_error", "tool_use_failed",
                        "Failed to call a function. Please adjust your prompt. See 'failed_generation'."),
    "server_error": (500, "server_error", None, "The server had an error while processing your request."),
    "bad_gateway": (502, None, None, "Bad gateway"),
    "overloaded": (503, "service_unavailable_error", "server_is_overloaded",
                   "The server is currently overloaded with other requests."),
    "gateway_timeout": (504, "server_error", None, "The upstream did not answer in time."),
}  # fmt: skip
REFUSALS = frozenset(_REFUSALS)
# Azure's gateway speaks for these itself.
_AZURE_GATEWAY = {
    "unauthorized": ("401", "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide "
                            "a valid key for an active subscription."),
    "forbidden": ("403", "Access denied due to Virtual Network/Firewall rules."),
    "model_not_found": ("DeploymentNotFound", "The API deployment for this resource does not exist. If you created the "
                                              "deployment within the last 5 minutes, please wait a moment."),
    "rate_limit": ("429", "Requests to the ChatCompletions_Create Operation have exceeded the token rate limit of your "
                          "current pricing tier."),
    "server_error": ("500", "Internal server error"),
    "overloaded": ("503", "The service is temporarily unable to process your request. Please try again later."),
    "gateway_timeout": ("504", "The request timed out."),
}  # fmt: skip
SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}


def refuse(name: str, flavour: Flavour, *, model: str = "", headers: dict[str, str] | None = None) -> Refusal:
    """The vendor's refusal of that name (a key of the table above)."""
    status, kind, code, message = _REFUSALS[name]
    refusal = Refusal(status, message.format(model=model), kind, code, headers=dict(headers or {}))
    if flavour is Flavour.AZURE and name in _AZURE_GATEWAY:
        refusal.code, refusal.message = _AZURE_GATEWAY[name]
        refusal.kind = "gateway"
    elif name == "unauthorized" and flavour is Flavour.GROQ:
        refusal.message = "Invalid API Key"
    elif name == "content_filter":
        refusal.param = "prompt"
        if flavour is Flavour.AZURE:
            result = SAFE | {"violence": {"filtered": True, "severity": "medium"}}
            inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": result}
            refusal.extra = {"status": 400, "innererror": inner}
    elif name == "context_length":
        refusal.param = "messages"
    elif name == "tool_use_failed":
        refusal.extra = {"failed_generation": '<function=end_call{"reason": </function>'}
    elif name == "bad_gateway":
        refusal.html = True  # a proxy in front answers, not the vendor
    return refusal


def error_body(refusal: Refusal, flavour: Flavour) -> dict[str, Any]:
    error: dict[str, Any] = {"message": refusal.message}
    if flavour is Flavour.AZURE and refusal.kind == "gateway":
        error = {"code": refusal.code, "message": refusal.message}
    elif flavour is Flavour.GROQ:
        error["type"] = refusal.kind or "invalid_request_error"
        if refusal.code:
            error["code"] = refusal.code
        if refusal.param:
            error["param"] = refusal.param
    else:
        error |= {"type": refusal.kind, "param": refusal.param, "code": refusal.code}
    return {"error": error | refusal.extra}


def duration(seconds: float, flavour: Flavour) -> str:
    """As in the reset headers: `6m0s`, `350ms`; Groq: `2m59.56s`, `7.66s`."""
    seconds = max(0.0, seconds)
    minutes, rest = divmod(seconds, 60)
    if flavour is Flavour.GROQ:
        return f"{int(minutes)}m{rest:.2f}s" if minutes else f"{rest:.2f}s"
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    return f"{int(minutes)}m{int(rest)}s" if minutes else f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


@dataclass(slots=True)
class RateMeter:
    """Requests and tokens of one organisation as two buckets that refill steadily; the headers tell their levels.

    Groq counts requests by the day, the others by the minute; all count tokens by the minute. The defaults are large
    plans, so that a load test is not limited by accident.
    """

    flavour: Flavour
    requests: int = 1_000_000
    tokens: int = 100_000_000
    _requests_left: float = field(init=False)
    _tokens_left: float = field(init=False)
    _at_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._requests_left, self._tokens_left, self._at_s = self.requests, self.tokens, time.monotonic()

    @property
    def _requests_per_s(self) -> float:
        return self.requests / (86400 if self.flavour is Flavour.GROQ else 60)

    def take(self, tokens: int) -> float:
        """Count one request of `tokens`. 0 when it fits, else seconds until it would; then nothing is counted."""
        now = time.monotonic()
        passed, self._at_s = now - self._at_s, now
        self._requests_left = min(self.requests, self._requests_left + passed * self._requests_per_s)
        self._tokens_left = min(self.tokens, self._tokens_left + passed * self.tokens / 60)
        wait_s = max((1 - self._requests_left) / self._requests_per_s, (tokens - self._tokens_left) * 60 / self.tokens)
        if wait_s > 0:
            return wait_s
        self._requests_left -= 1
        self._tokens_left -= tokens
        return 0.0

    def headers(self) -> dict[str, str]:
        if self.flavour is Flavour.AZURE:
            return {
                "x-ratelimit-remaining-requests": str(int(self._requests_left)),
                "x-ratelimit-remaining-tokens": str(int(self._tokens_left)),
            }
        requests_s = (self.requests - self._requests_left) / self._requests_per_s
        tokens_s = (self.tokens - self._tokens_left) * 60 / self.tokens
        return {
            "x-ratelimit-limit-requests": str(self.requests),
            "x-ratelimit-limit-tokens": str(self.tokens),
            "x-ratelimit-remaining-requests": str(int(self._requests_left)),
            "x-ratelimit-remaining-tokens": str(int(self._tokens_left)),
            "x-ratelimit-reset-requests": duration(requests_s, self.flavour),
            "x-ratelimit-reset-tokens": duration(tokens_s, self.flavour),
        }


def fixed_headers(flavour: Flavour, request_no: int, dice: random.Random) -> dict[str, str]:
    """The headers that every answer carries besides the rate limits."""
    hexes = f"{dice.getrandbits(96):024x}{request_no:08x}"
    if flavour is Flavour.GROQ:
        return {"x-request-id": f"req_01{hexes[:24]}", "x-groq-region": "sim"}
    if flavour is Flavour.AZURE:
        uuid = f"{hexes[:8]}-{hexes[8:12]}-4{hexes[13:16]}-8{hexes[17:20]}-{hexes[20:32]}"
        return {"x-request-id": uuid, "apim-request-id": uuid, "x-ms-region": "Simulated Central"}
    return {
        "x-request-id": f"req_{hexes}",
        "openai-organization": "org-sim",
        "openai-version": "2020-10-01",
        "openai-processing-ms": "12",
    }
