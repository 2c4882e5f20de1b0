"""Would the vendor take this chat request? Refused as the vendor refuses it, with the path of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from bench.sim.openai.answer import count_tokens
from bench.sim.openai.flavour import Flavour, Model, Refusal, refuse

_COMMON = {
    "model", "messages", "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
    "metadata", "n", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "seed",
    "service_tier", "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools",
    "top_logprobs", "top_p", "user", "functions", "function_call",
}  # fmt: skip
_OPENAI = _COMMON | {
    "audio", "modalities", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier", "verbosity", "web_search_options",
}  # fmt: skip
_GROQ = _COMMON | {
    "citation_options", "compound_custom", "disable_tool_validation", "documents", "exclude_domains",
    "include_domains", "include_reasoning", "reasoning_format", "search_settings",
}  # fmt: skip
_GROQ_REFUSED = ("logprobs", "top_logprobs", "logit_bias")
_ROLES = {"system", "developer", "user", "assistant", "tool"}
# Name -> accepted types, least, most.
_NUMBERS: dict[str, tuple[Any, float, float]] = {
    "temperature": ((int, float), 0, 2), "top_p": ((int, float), 0, 1), "frequency_penalty": ((int, float), -2, 2),
    "presence_penalty": ((int, float), -2, 2), "max_tokens": (int, 1, 1_000_000),
    "max_completion_tokens": (int, 1, 1_000_000), "n": (int, 1, 128), "top_logprobs": (int, 0, 20),
    "seed": (int, -(2**63), 2**63 - 1),
}  # fmt: skip
_BOOLS = ("stream", "logprobs", "store", "parallel_tool_calls", "include_reasoning", "disable_tool_validation")
_EFFORTS = {
    Flavour.OPENAI: {"none", "minimal", "low", "medium", "high", "xhigh", "max"},
    Flavour.AZURE: {"none", "minimal", "low", "medium", "high", "xhigh", "max"},
    Flavour.GROQ: {"none", "default", "low", "medium", "high"},
}
_TIERS = {
    Flavour.OPENAI: {"auto", "default", "flex", "scale", "priority", "fast"},
    Flavour.AZURE: {"auto", "default", "flex", "scale", "priority", "fast"},
    Flavour.GROQ: {"auto", "on_demand", "flex", "performance"},
}
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_TOOLS = 128
MAX_ID_CHARS = 40
MAX_STOPS = 4


def check_chat(raw: Any, flavour: Flavour, model: Model) -> int:
    """Check a request body.

    Returns:
        The tokens of its prompt.
    Raises:
        Refusal: 400.
    """
    if not isinstance(raw, dict):
        raise Refusal(400, "We could not parse the JSON body of your request.")
    _check_names(raw, flavour)
    _check_values(raw, flavour)
    _check_tools(raw, flavour)
    _check_messages(raw.get("messages"), flavour)
    if model.reasons and flavour is not Flavour.GROQ:
        _check_reasoning_model(raw)
    prompt = count_tokens(raw["messages"], raw.get("tools") or ())
    if prompt + (raw.get("max_completion_tokens") or raw.get("max_tokens") or 0) > model.context_tokens:
        refusal = refuse("context_length", flavour)
        if flavour is not Flavour.GROQ:
            refusal.message = (
                f"This model's maximum context length is {model.context_tokens} tokens. However, your messages "
                f"resulted in {prompt} tokens. Please reduce the length of the messages."
            )
        raise refusal
    return prompt


def is_one_of(value: Any, allowed: Collection[str]) -> bool:
    """Whether any JSON value is one of some strings."""
    return isinstance(value, str) and value in allowed


def _wrong(param: str, expected: str, code: str | None = None) -> Refusal:
    return Refusal(400, f"Invalid value for '{param}': expected {expected}.", code=code, param=param)


def _check_names(raw: Mapping[str, Any], flavour: Flavour) -> None:
    known = _GROQ if flavour is Flavour.GROQ else _OPENAI
    for name, value in raw.items():
        if name not in known:
            said = "property '{}' is unsupported" if flavour is Flavour.GROQ else "Unrecognized request argument: {}"
            raise Refusal(400, said.format(name), param=name)
        if flavour is Flavour.GROQ and name in _GROQ_REFUSED and value:
            raise Refusal(400, f"`{name}` is not supported with this model", param=name)


def _check_values(raw: Mapping[str, Any], flavour: Flavour) -> None:
    for name, (kinds, least, most) in _NUMBERS.items():
        value = raw.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _wrong(name, "a number", "invalid_type")
        if not least <= value <= most:
            raise _wrong(name, f"{least} to {most}", "integer_below_min_value" if value < least else "invalid_value")
    for name in _BOOLS:
        if raw.get(name) is not None and not isinstance(raw[name], bool):
            raise _wrong(name, "a boolean", "invalid_type")
    if flavour is Flavour.GROQ and raw.get("n") not in (None, 1):
        raise Refusal(400, "'n' : number must be at most 1", param="n")
    for name, allowed in (("reasoning_effort", _EFFORTS[flavour]), ("service_tier", _TIERS[flavour])):
        if raw.get(name) is not None and not is_one_of(raw[name], allowed):
            raise _wrong(name, f"one of {sorted(allowed)}", "invalid_value")
    if raw.get("max_tokens") is not None and raw.get("max_completion_tokens") is not None:
        raise Refusal(400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if raw.get("reasoning_format") is not None:
        if not is_one_of(raw["reasoning_format"], ("hidden", "raw", "parsed")):
            raise _wrong("reasoning_format", "hidden, raw or parsed")
        if raw.get("include_reasoning") is not None:
            raise Refusal(400, "cannot specify both `reasoning_format` and `include_reasoning`")
    _check_stop(raw.get("stop"))
    shape = raw.get("response_format")
    shapes = ("text", "json_object", "json_schema")
    if shape is not None and not (isinstance(shape, dict) and is_one_of(shape.get("type"), shapes)):
        raise _wrong("response_format", f"an object of type {' or '.join(shapes)}", "invalid_type")
    options = raw.get("stream_options")
    if options is not None:
        if not raw.get("stream"):
            raise Refusal(400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
            raise _wrong("stream_options", "include_usage and include_obfuscation")


def _check_stop(stop: Any) -> None:
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise _wrong("stop", "a string or an array of strings", "invalid_type")
    if len(stop) > MAX_STOPS:
        raise _wrong("stop", f"at most {MAX_STOPS} strings", "array_above_max_length")


def _check_tools(raw: Mapping[str, Any], flavour: Flavour) -> None:
    tools, choice = raw.get("tools"), raw.get("tool_choice")
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if raw.get(name) not in (None, "none"):
                raise Refusal(400, f"'{name}' is only allowed when 'tools' are specified.", param=name)
        return
    if not isinstance(tools, list) or not 1 <= len(tools) <= MAX_TOOLS:
        raise _wrong("tools", f"an array of 1 to {MAX_TOOLS} tools", "empty_array" if tools == [] else "invalid_type")
    names = []
    for at, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not _TOOL_NAME.fullmatch(str(function.get("name", ""))):
            raise _wrong(f"tools[{at}].function.name", f"a tool of type function, named by {_TOOL_NAME.pattern}")
        parameters = function.get("parameters", {})
        if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
            path = f"tools[{at}].function.parameters"
            raise _wrong(path, "a JSON schema of type object", "invalid_function_parameters")
        names.append(function["name"])
    if isinstance(choice, dict):
        wanted = choice.get("function")
        if choice.get("type") != "function" or not isinstance(wanted, dict) or wanted.get("name") not in names:
            raise _wrong("tool_choice", "a function that is in 'tools'")
    elif choice not in (None, "none", "auto", "required"):
        raise _wrong("tool_choice", "none, auto, required or a function")
    if flavour is Flavour.GROQ and (raw.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
        raise Refusal(400, "json mode cannot be combined with tool/function calling", param="response_format")


def _check_messages(messages: Any, flavour: Flavour) -> None:
    if not isinstance(messages, list):
        raise _wrong("messages", "an array of messages", "invalid_type")
    if not messages:
        raise _wrong("messages", "at least one message", "empty_array")
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        path = f"messages[{at}]"
        if not isinstance(message, dict) or not is_one_of(message.get("role"), _ROLES):
            raise _wrong(f"{path}.role", f"one of {sorted(_ROLES)}", "invalid_value")
        role = message["role"]
        if flavour is Flavour.GROQ and "name" in message:
            raise Refusal(400, f"'messages.{at}' : property 'name' is unsupported", param=path)
        if open_calls and role != "tool":
            raise Refusal(
                400,
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {sorted(open_calls)}",
                param=path,
            )
        _check_content(message, path)
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                said = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise Refusal(400, f"Invalid parameter: {said}", param=f"{path}.role")
            open_calls.discard(message["tool_call_id"])
        elif role == "assistant":
            open_calls = _check_calls(message, path)
    if open_calls:
        raise Refusal(400, f"tool_call_ids did not have response messages: {sorted(open_calls)}", param="messages")


def _check_content(message: Mapping[str, Any], path: str) -> None:
    content = message.get("content")
    if content is None and message["role"] == "assistant" and (message.get("tool_calls") or message.get("refusal")):
        return
    parts = content if isinstance(content, list) else ()
    texts = all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts)
    if not isinstance(content, str) and not (parts and texts):
        raise _wrong(f"{path}.content", "a string or an array of text parts", "invalid_type")


def _check_calls(message: Mapping[str, Any], path: str) -> set[str]:
    calls = message.get("tool_calls")
    if calls is None:
        return set()
    if not isinstance(calls, list) or not calls:
        raise _wrong(f"{path}.tool_calls", "a non-empty array", "empty_array")
    ids = set()
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str) or call.get("type") != "function":
            raise _wrong(f"{path}.tool_calls[{at}]", "id, type function and function", "invalid_type")
        if len(call["id"]) > MAX_ID_CHARS:
            raise _wrong(f"{path}.tool_calls[{at}].id", f"at most {MAX_ID_CHARS} characters", "string_above_max_length")
        if isinstance(function.get("name"), str) and not _TOOL_NAME.fullmatch(function["name"]):
            raise _wrong(f"{path}.tool_calls[{at}].function.name", f"a match of {_TOOL_NAME.pattern}", "invalid_value")
        if not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise _wrong(f"{path}.tool_calls[{at}].function", "a name and arguments as a string", "invalid_type")
        ids.add(call["id"])
    return ids


def _check_reasoning_model(raw: Mapping[str, Any]) -> None:
    if raw.get("max_tokens") is not None:
        said = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        raise Refusal(400, f"Unsupported parameter: {said}", code="unsupported_parameter", param="max_tokens")
    for name, only in (("temperature", 1), ("top_p", 1), ("presence_penalty", 0), ("frequency_penalty", 0)):
        if raw.get(name) not in (None, only):
            said = f"'{name}' does not support {raw[name]} with this model. Only the default ({only}) is supported."
            raise Refusal(400, f"Unsupported value: {said}", code="unsupported_value", param=name)
    if raw.get("stop") is not None:
        said = "'stop' is not supported with this model."
        raise Refusal(400, f"Unsupported parameter: {said}", code="unsupported_parameter", param="stop")
