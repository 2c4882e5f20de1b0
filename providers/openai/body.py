"""A ChatRequest as the JSON that a service takes: its names, its rules, and what it has refused before.

Which model takes which parameter changes monthly and differs by deployment. What is known is written down here; what
is not is learned: a 400 that names an optional parameter drops it for that model, and the request goes out again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.base import ChatRequest, Message, ToolSpec
from providers.errors import ProviderRejected
from providers.openai.options import LimitField

# These think before they speak and take neither temperature nor penalties (OpenAI's model pages).
_REASONS = re.compile(r"(?:o[134]|gpt-5)(?:-|$)")
_OPTIONAL = (
    "temperature", "frequency_penalty", "presence_penalty", "reasoning_effort", "stream_options", "reasoning_format",
    "include_reasoning", "max_tokens", "max_completion_tokens",
)  # fmt: skip
_UNFIT = re.compile(r"(?i)unsupported|unrecognized|unknown|not support|not (?:permitted|allowed)")
_OTHER_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
MAX_LEARNED_MODELS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one service takes.

    Args:
        limit: its name for the longest answer.
        include_usage: whether it may be asked for token counts. include_obfuscation: whether it pads its chunks with
            random text unless told not to (OpenAI).
        is_groq: Groq's parameters of reasoning.
        effort: of Groq's reasoning where the request does not say.
    """

    limit: LimitField = "max_completion_tokens"
    include_usage: bool = True
    include_obfuscation: bool = False
    is_groq: bool = False
    effort: str = ""


class BodyMaker:
    """Bodies for one account. Remembers refused parameters by model, for the newest MAX_LEARNED_MODELS models."""

    __slots__ = ("_dialect", "_refused")

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._refused: dict[str, set[str]] = {}

    def make(self, request: ChatRequest, model: str) -> dict[str, Any]:
        dialect = self._dialect
        body: dict[str, Any] = {
            "model": model,
            "messages": messages(request.messages),
            "stream": True,
            dialect.limit: request.max_tokens,
            "temperature": request.temperature,
        }
        if request.frequency_penalty:
            body["frequency_penalty"] = request.frequency_penalty
        if request.presence_penalty:
            body["presence_penalty"] = request.presence_penalty
        if request.tools:
            body["tools"] = [tool(one) for one in request.tools]
        options = {}
        if dialect.include_usage:
            options["include_usage"] = True
        if dialect.include_obfuscation:
            options["include_obfuscation"] = False
        if options:
            body["stream_options"] = options
        if dialect.is_groq:
            body |= _groq_reasoning(model, request.reasoning_effort or dialect.effort, bool(request.reasoning_effort))
        elif request.reasoning_effort:
            body["reasoning_effort"] = request.reasoning_effort
        if not dialect.is_groq and _REASONS.match(model):
            body.setdefault("reasoning_effort", "low")  # their default thinks for seconds before the first word
            for name in ("temperature", "frequency_penalty", "presence_penalty"):
                body.pop(name, None)
        for name in self._refused.get(model, ()):
            if name in body and (other := _OTHER_LIMIT.get(name)) is not None:
                body[other] = body[name]
            body.pop(name, None)
        return body

    def learn(self, error: ProviderRejected, param: str, message: str, body: Mapping[str, Any]) -> bool:
        """Whether `error` is about an optional parameter of `body`; the next body for the model is without it."""
        if error.status not in (400, 422) or not (_UNFIT.search(message) or error.code.startswith("unsupported_")):
            return False
        name = next((one for one in _OPTIONAL if param.split(".")[0] == one), "")
        if not name:
            name = next((one for one in _OPTIONAL if re.search(rf"\b{one}\b", message)), "")
        model = body["model"]
        refused = self._refused.get(model, set())
        if name not in body or _OTHER_LIMIT.get(name) in refused:
            return False
        self._refused.pop(model, None)
        if len(self._refused) >= MAX_LEARNED_MODELS:
            del self._refused[next(iter(self._refused))]
        self._refused[model] = refused | {name}
        return True


def _groq_reasoning(model: str, effort: str, is_asked: bool) -> dict[str, Any]:
    """gpt-oss always reasons and hides by `include_reasoning`; Qwen can be told not to and has formats.

    Of other models nothing is known: they get the agent's own wish, and no default.
    """
    if "gpt-oss" in model:
        return {"reasoning_effort": "low" if effort in ("", "none", "minimal") else effort, "include_reasoning": False}
    if "qwen" in model:
        thinks = effort in ("medium", "high")
        return {"reasoning_effort": "default" if thinks else "none", "reasoning_format": "hidden"}
    return {"reasoning_effort": effort} if is_asked else {}


def messages(of: Sequence[Message]) -> list[dict[str, Any]]:
    """The model context as these services take it. No names: Groq refuses them."""
    out: list[dict[str, Any]] = []
    for one in of:
        message: dict[str, Any] = {"role": one.role, "content": one.content}
        if one.role == "tool":
            message["tool_call_id"] = one.tool_call_id
        elif one.tool_calls:
            message["content"] = one.content or None
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in one.tool_calls
            ]
        out.append(message)
    return out


def tool(spec: ToolSpec) -> dict[str, Any]:
    parameters = dict(spec.parameters) or {"type": "object", "properties": {}}
    function = {"name": spec.name, "description": spec.description, "parameters": parameters}
    return {"type": "function", "function": function}
