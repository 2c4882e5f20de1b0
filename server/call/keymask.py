"""What a capture holds of the keys that a caller presses, where its agent does not keep them: they may be a card.

Every keyed digit is written as 1, in the carrier's message and in the event. From the first key on so is every digit in
what may repeat keys: the model's text, arguments and results of its tools, errors, and all texts of decisions. What the
caller says stays as it was understood, and what the agent says in words ("four two") too: a transcript, not a key.

Which digit it was changes no decision but the texts that it stands in. So the events of such a capture lead to the
decisions of the call with their digits written as 1, and replay compares all but those. (One exception shows as a
difference: an end-call phrase of digits.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from server.call.scrub import MASKED_KEY, key_masked

_DIGIT = re.compile(r"\d")
_TEXTS = frozenset(("text", "heard_text", "caller_text", "agent_text", "result", "error"))
# What the caller said.
_HEARD = frozenset(("TranscriptInterim", "TranscriptFinal"))
_KEY = "DigitReceived"

Values = Mapping[str, Any]


class KeyMask:
    """Of one stream. `is_on`: a key was pressed, or may have been in the stream before."""

    __slots__ = ("is_on",)

    def __init__(self, *, resumed: bool) -> None:
        self.is_on = resumed

    def step(self, name: str, values: Values, actions: list[Any]) -> tuple[Values, list[Any]]:
        """The event's values and the actions ([name, values] each) of one step, as they may be kept."""
        if name == _KEY:
            self.is_on = True
            values = {**values, "digit": key_masked(values["digit"])}
        if not self.is_on:
            return values, actions
        if name not in _HEARD:
            values = _masked(values)
        return values, [[action, _masked(one)] for action, one in actions]


def _masked(values: Values) -> Values:
    """Digits of any script, each as the 1 of its own: as long as before, and numbers stay numbers."""
    found = {name: _DIGIT.sub(_one, values[name]) for name in _TEXTS & values.keys() if isinstance(values[name], str)}
    if isinstance(arguments := values.get("arguments"), str):
        found["arguments"] = _arguments(arguments)
    return {**values, **found} if found else values


def _arguments(text: str) -> str:
    """Of a tool: values only, since two names that differ in a digit must stay two."""
    try:
        return json.dumps(_value(json.loads(text)))
    except (ValueError, RecursionError):
        return _DIGIT.sub(_one, text)


def _value(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case str():
            return _DIGIT.sub(_one, value)
        case int():
            return int(_DIGIT.sub(_one, str(value)))
        case float():
            return 1.1
        case list():
            return [_value(one) for one in value]
    return {name: _value(one) for name, one in value.items()}


def _one(digit: re.Match[str]) -> str:
    return chr(ord(digit[0]) - int(digit[0]) + int(MASKED_KEY))
