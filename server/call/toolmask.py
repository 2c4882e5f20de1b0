"""What a capture holds of the arguments that a tool does not keep on record (`tools[].redact` of the agent).

Each letter of a value is written as x, each digit as 1, in the model's call and in what is carried out: its kind, its
length and its punctuation stay, so the call fits most schemas as it did, and replay decides it the same. (A schema with
an enumeration or bounds that such a value does not fit shows as a difference.) A call that is no JSON object is refused
whatever it holds; of it the length stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from server.agent.tool_settings import ToolSettings

Values = Mapping[str, Any]
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_CALLS = ("ReplyTool", "InvokeTool")
"""Events and actions that hold a tool's `name` and its `arguments`, JSON."""


class ToolMask:
    """Of one agent's tools."""

    __slots__ = ("_redact",)

    def __init__(self, tools: Sequence[ToolSettings]) -> None:
        self._redact: dict[str, Collection[str]] = {one.name: one.redact for one in tools if one.redact}

    def __bool__(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._redact)

    def values(self, name: str, values: Values) -> Values:
        """The values of the event or action `name`, as they may be kept."""
        redact = self._redact.get(values["name"]) if name in _CALLS else None
        return values if redact is None else {**values, "arguments": _masked(values["arguments"], redact)}


def _masked(arguments: str, redact: Collection[str]) -> str:
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return "x" * len(arguments)
    return json.dumps({key: _blank(one) if key in redact else one for key, one in given.items()})


def _blank(value: Any) -> Any:
    """The same shape, without what it says."""
    if isinstance(value, str):
        return _DIGIT.sub("1", _LETTER.sub("x", value))
    if isinstance(value, dict):
        return {key: _blank(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_blank(one) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    return json.loads(_DIGIT.sub("1", json.dumps(value)))
