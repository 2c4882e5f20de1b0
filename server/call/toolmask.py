"""What a capture holds of tools: not the arguments that the agent's settings redact, nor a result that repeats them.

Each letter of a redacted value is written as x, each digit as 1, in the model's call and in what is carried out; of a
call that is no JSON object the length stays. Whether such a value fits the tool's schema cannot be seen any more, nor
where pressed keys are masked (server/call/keymask.py). So the event that is kept says it (`ReplyTool.fits`), and replay
decides what the call decided.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from server.agent.tool_settings import REDACTED, ToolSettings, without
from server.dialogue.tooling import what_is_wrong

Values = Mapping[str, Any]
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")


class ToolMask:
    """Of one stream. `tools`: the agent's."""

    __slots__ = ("_given", "_redact", "_tools")

    def __init__(self, tools: Sequence[ToolSettings]) -> None:
        self._tools = {one.name: one for one in tools}
        self._redact = frozenset(name for one in tools for name in one.redact)
        # Of tools at work: what was asked for. At most the calls of one conversation.
        self._given: dict[int, tuple[ToolSettings, dict[str, Any]]] = {}

    def step(self, name: str, values: Values, actions: list[Any], *, masks_keys: bool) -> tuple[Values, list[Any]]:
        """The event's values and the actions ([name, values] each), as they may be kept.

        masks_keys: digits of arguments will be written as others.
        """
        if name == "ReplyTool" and (self._redact or masks_keys):
            values = self._asked(values)
        elif name == "ToolFinished" and self._redact:
            known = self._given.pop(values["tool_no"], None)
            # Asked for in a stream before this one: what it was is not known here.
            result = REDACTED if known is None else without(values["result"], known[1], known[0])
            values = {**values, "result": result}
        if not self._redact:
            return values, actions
        return values, [[action, self._done(one) if action == "InvokeTool" else one] for action, one in actions]

    def _asked(self, values: Values) -> Values:
        tool = self._tools.get(values["name"])
        fits = None if tool is None else not what_is_wrong(tool, values["arguments"])
        # What is asked of a tool that does not exist may be meant for any of those that do.
        redact = self._redact if tool is None else tool.redact
        return {**values, "arguments": _masked(values["arguments"], redact), "fits": fits}

    def _done(self, values: Values) -> Values:
        tool = self._tools[values["name"]]
        self._given[values["tool_no"]] = tool, json.loads(values["arguments"])
        return {**values, "arguments": _masked(values["arguments"], tool.redact)}


def _masked(arguments: str, redact: Collection[str]) -> str:
    if not redact:
        return arguments
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
