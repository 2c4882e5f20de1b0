"""Tools: each call of the model is checked, carried out once, and answered, whatever the caller does meanwhile.

    ReplyTool … ReplyDone ──► check: known here? JSON? schema? quota? ──► InvokeTool ──► ToolFinished ──► model
                                        └─ what is wrong goes back to the model, which may mend it

A call that was made stands in the history with its result, or with the word that it is still at work; the caller's
next words come after it. An interruption stops the voice and the model, never a tool.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

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
MAX_A_CALL = 20
MAX_ARGUMENT_CHARS = 4000
MAX_RESULT_CHARS = 4000
RUNNING = "still at work: no result yet"

END_CALL = ToolSpec("end_call", "Hang up, after what you say now has been heard.", {"type": "object", "properties": {}})


def specs(settings: AgentSettings) -> tuple[ToolSpec, ...]:
    """What the model is told of: the built-in tool and the agent's own."""
    own = (ToolSpec(one.name, one.description, one.parameters or END_CALL.parameters) for one in settings.tools)
    return (END_CALL, *own)


def invoke(c: State, calls: Sequence[ToolCall]) -> bool:
    """Have `calls` carried out that may be. False: too many rounds in this turn, nothing was done."""
    if not calls or c.tool_rounds >= MAX_ROUNDS:
        return False
    c.tool_rounds += 1
    c.tool_filler, c.tool_wait_ms = "", 0
    for at, call in enumerate(calls):
        tool = next((one for one in c.settings.tools if one.name == call.name), None)
        wrong = _refusal(c, call, tool) if at < MAX_AT_ONCE else f"at most {MAX_AT_ONCE} calls at once"
        if wrong or tool is None:
            c.history.tool_called(call, f"error: {wrong}")
            continue
        c.tool_no += 1
        c.running[c.tool_no] = call.id
        c.tool_filler = c.tool_filler or tool.filler
        c.tool_wait_ms = max(c.tool_wait_ms, tool.timeout_ms)
        c.history.tool_called(call, RUNNING)
        c.do(ev.InvokeTool(c.tool_no, tool.name, json.dumps(json.loads(call.arguments or "{}"))))
    c.has_results = True
    return True


def _refusal(c: State, call: ToolCall, tool: ToolSettings | None) -> str:
    """Why the call is not carried out, for the model to read; empty when it is."""
    if tool is None:
        return f"there is no tool named {call.name[:64]}"
    if c.tool_no >= MAX_A_CALL:
        return "no more tools in this conversation"
    if len(call.arguments) > MAX_ARGUMENT_CHARS:
        return "the arguments are too long"
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return "the arguments are not JSON"
    if not isinstance(arguments, dict):
        return "the arguments are not a JSON object"
    try:
        wrong = next(iter(_validator(json.dumps(dict(tool.parameters), sort_keys=True)).iter_errors(arguments)), None)
    except RecursionError:
        return "the arguments are nested too deep"
    if wrong is None:
        return ""
    where = ".".join(map(str, wrong.absolute_path))
    return f"{where or 'arguments'}: {wrong.message}"[:300]


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
