"""The settings of one tool: what the model may ask for, where it is carried out, and what the caller hears meanwhile.

A tool is in the agent's list or it does not exist: that list is what a call may do. Its `parameters` are a JSON schema
(draft 2020-12), by which every call of the model is checked before anything happens (server/dialogue/tooling.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from server.agent import field as of

MAX_TOOLS = 32
MAX_SCHEMA_CHARS = 8000
LOOKED_UP = ("$ref", "$dynamicRef")
RESERVED = ("end_call",)
"""Built in."""
# Repeating one of these does what doing it once does (RFC 9110, 9.2.2).
IDEMPOTENT = ("GET", "PUT", "DELETE")
REDACTED = "(redacted)"
MIN_REDACTED_CHARS = 3
"""A shorter value is found in any answer, and says nothing there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSettings:
    name: str = of.pattern("", r"[A-Za-z_][A-Za-z0-9_-]{0,63}", "what the model calls it", "letters, digits, _ and -")
    description: str = of.text("", "tells the model what it does and when to use it", 1000)
    parameters: Mapping[str, Any] = of.mapping("JSON schema of its arguments, an object")
    url: str = of.http_url(
        "", "where it is carried out: https, at a public address unless TOOL_PRIVATE_HOSTS names the host"
    )
    method: Literal["POST", "GET", "PUT", "PATCH", "DELETE"] = of.one_of(
        "POST", "arguments are the JSON body, or the query of GET and DELETE"
    )
    secret: str = of.text("", "name of the entry in TOOL_SECRETS that is sent as `secret_header`", 64)
    secret_header: str = of.pattern(
        "Authorization", r"[A-Za-z][A-Za-z0-9-]{0,63}", "header that carries the secret", "a header's name"
    )
    timeout_ms: int = of.ranged(4000, 200, 20000, "for all attempts together; then the model is told that it failed")
    retries: int = of.ranged(0, 0, 3, "further attempts after 429, 5xx or no answer; only of what may be repeated")
    idempotent: bool = of.flag(
        False, "may be repeated whatever its method: the server knows repeats by their Idempotency-Key"
    )
    redact: tuple[str, ...] = of.texts("names of arguments that are not kept on record")
    filler: str = of.text("", "spoken when it takes longer than 1.2 s; empty is one of `limits.fillers`", 200)

    @property
    def may_repeat(self) -> bool:
        return self.idempotent or self.method in IDEMPOTENT


def problem(tool: ToolSettings) -> tuple[str, str] | None:
    """(setting, what is wrong with it) where its values do not make sense together; None when they do."""
    if not tool.name or tool.name in RESERVED:
        return "name", f"expected a name, none of {', '.join(RESERVED)}"
    if not _is_askable(tool.url):
        return "url", "expected an http or https URL in ASCII, without a fragment"
    if tool.retries and not tool.may_repeat:
        return "retries", f"{tool.method} is not repeated unless the tool is `idempotent`"
    try:
        if len(json.dumps(tool.parameters)) > MAX_SCHEMA_CHARS:
            return "parameters", f"expected at most {MAX_SCHEMA_CHARS} characters of JSON"
        Draft202012Validator.check_schema(tool.parameters)
    except RecursionError:
        return "parameters", "expected a schema that is nested less deep"
    except (SchemaError, TypeError, ValueError) as error:
        return "parameters", f"expected a JSON schema: {getattr(error, 'message', error)}"
    if tool.parameters.get("type", "object") != "object":
        return "parameters", "expected a schema of type object"
    if any(f'"{name}"' in json.dumps(tool.parameters) for name in LOOKED_UP):
        return "parameters", f"expected a schema without {' and '.join(LOOKED_UP)}: nothing is looked up"
    return None


def redacted(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`arguments` without the values of `names`."""
    hidden = frozenset(names)
    return {name: REDACTED if name in hidden else value for name, value in arguments.items()}


def without(text: str, arguments: Mapping[str, Any], tool: ToolSettings) -> str:
    """`text` without the values of redacted arguments: a server may repeat them in its answer."""
    for name in tool.redact:
        if name not in arguments:
            continue
        value = arguments[name]
        shown = value if isinstance(value, str) else json.dumps(value)
        if len(shown) >= MIN_REDACTED_CHARS:
            text = text.replace(shown, REDACTED)
    return text


def _is_askable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and url.isascii() and "#" not in url
    except ValueError:  # a port that is none, half an IPv6 address
        return False
