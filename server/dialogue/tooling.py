"""Tools: each call of the model is checked, carried out once, and answered, whatever the caller does meanwhile.

    ReplyTool … ReplyDone ──► check: known here? JSON? schema? quota? ──► InvokeTool ──► ToolFinished ──► model
                                        └─ what is wrong goes back to the model, which may mend it

A call that was made stands in the history with its result, or with the word that it is still at work; the caller's
next words come after it. An interruption stops the voice and the model, never a tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

import orjson
from jsonschema import Draft202012Validator

from providers.base import ToolCall, ToolSpec
from server.agent.settings import AgentSettings
from server.agent.tool_settings import ToolSettings
from server.dialogue import event as ev
from server.dialogue.asking import ask
from server.dialogue.state import State
from server.turn.machine import TurnState

MAX_ROUNDS = 3
"""In one turn; then the model has to do with words."""
MAX_AT_ONCE = 4
MAX_ANSWERED = 8
"""Further calls of one reply are not even refused: the history has room for those that were made."""
MAX_A_CALL = 20
MAX_ARGUMENT_CHARS = 4000
MAX_RESULT_CHARS = 4000
RUNNING = "still at work: no result yet"

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
Asked = tuple[ToolCall, bool | None]
"""A call, and whether its arguments fit, where that is known already."""

END_CALL = ToolSpec("end_call", "Hang up, after what you say now has been heard.", {"type": "object", "properties": {}})


def specs(settings: AgentSettings) -> tuple[ToolSpec, ...]:
    """What the model is told of: the built-in tool and the agent's own."""
    # Services refuse a schema that leaves its type unsaid.
    own = (ToolSpec(one.name, one.description, {**END_CALL.parameters, **one.parameters}) for one in settings.tools)
    return (END_CALL, *own)


def invoke(c: State, calls: Sequence[Asked]) -> int:
    """Have `calls` carried out that may be. Returns how many are in the history now.

    None of them are after too many rounds in this turn: nothing was done.
    """
    if not calls or c.tool_rounds >= MAX_ROUNDS:
        return 0
    c.tool_rounds += 1
    c.tool_filler, c.tool_wait_ms = "", 0
    for at, (call, fits) in enumerate(calls[:MAX_ANSWERED]):
        tool = next((one for one in c.settings.tools if one.name == call.name), None)
        wrong = _refusal(c, call, tool, fits) if at < MAX_AT_ONCE else f"at most {MAX_AT_ONCE} calls at once"
        if wrong or tool is None:
            c.history.tool_called(_presentable(call), f"error: {wrong}")
            continue
        c.tool_no += 1
        c.tool_filler = c.tool_filler or tool.filler
        c.tool_wait_ms = max(c.tool_wait_ms, tool.timeout_ms)
        c.running[c.tool_no] = c.history.tool_called(_presentable(call), RUNNING)
        c.do(ev.InvokeTool(c.tool_no, tool.name, json.dumps(json.loads(call.arguments or "{}"))))
    c.has_results = True
    return min(len(calls), MAX_ANSWERED)


def _refusal(c: State, call: ToolCall, tool: ToolSettings | None, fits: bool | None) -> str:
    """Why the call is not carried out, for the model to read; empty when it is."""
    if tool is None:
        return f"there is no tool named {call.name[:64]}"
    if c.tool_no >= MAX_A_CALL:
        return "no more tools in this conversation"
    if fits is not None:
        return "" if fits else "the arguments do not fit"
    return what_is_wrong(tool, call.arguments)


def what_is_wrong(tool: ToolSettings, text: str) -> str:
    """Why `text` is none of the arguments that `tool` takes; empty when it is."""
    if len(text) > MAX_ARGUMENT_CHARS:
        return "the arguments are too long"
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return "the arguments are not JSON"
    if not isinstance(arguments, dict):
        return "the arguments are not a JSON object"
    try:
        # NaN, half a surrogate pair, numbers without end, and what is too deep: no record and no server takes them.
        if orjson.loads(orjson.dumps(arguments)) != arguments:
            return "the arguments are not JSON"
        wrong = next(iter(_validator(json.dumps(dict(tool.parameters))).iter_errors(arguments)), None)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        return "the arguments hold what cannot be sent: too large, too deep, or no text"
    if wrong is None:
        return ""
    where = ".".join(map(str, wrong.absolute_path))
    return f"{where or 'arguments'}: {wrong.message}"[:300]


def _presentable(call: ToolCall) -> ToolCall:
    """As every service takes it back in the history: it refuses whole requests for names and arguments of its own."""
    name = _NO_NAME.sub("_", call.name)[:64] or "unnamed"
    arguments = call.arguments or "{}"
    try:
        is_object = len(arguments) <= MAX_ARGUMENT_CHARS and isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    return ToolCall(call.id, name, arguments if is_object else "{}")


@lru_cache(256)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))


def on_finished(c: State, event: ev.ToolFinished, now_ns: int) -> None:
    call_id = c.running.pop(event.tool_no, None)
    if call_id is None:
        return
    c.history.tool_answered(call_id, event.result[:MAX_RESULT_CHARS] or "done")
    if c.running or c.turn_state is TurnState.ENDED or c.is_leaving:
        return
    # Whoever has the floor keeps it: the result goes to the model when it is free, or with the caller's next words.
    if (c.speech is not None and c.speech.awaits_tools) or (c.speech is None and c.turn_state is TurnState.LISTENING):
        c.cancel_timers("idle")
        ask(c, now_ns)
