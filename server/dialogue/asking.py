"""Asking the model, and waiting for its answer or for the tools that it wants used first.

    ask ──► no tool at work: RequestReply ──► filler due, answer owed
        └─► a tool at work: the reply waits for it (filler, the tool's own deadline); ToolFinished asks
"""

from __future__ import annotations

from server.dialogue import event as ev
from server.dialogue.speech import AgentSpeech
from server.dialogue.state import NS_PER_MS, State
from server.turn.machine import TurnEvent, TurnState

# However late the answer was asked for: so long it may take before a filler, and before it is given up.
FILLER_GRACE_MS = 400
OWED_GRACE_MS = 1500
# So long a tool may work in silence.
TOOL_FILLER_MS = 1200


def ask(c: State, now_ns: int) -> None:
    """The model owes an answer: to the caller's words, or to what tools gave."""
    if c.turn_state is not TurnState.THINKING:
        c.turn(TurnEvent.AGENT_BEGINS)
    before = c.speech if c.speech is not None and c.speech.awaits_tools else None
    clauses = before.clauses if before is not None else []  # a filler that is still being said
    if c.running:
        c.speech = AgentSpeech("reply", began_ns=now_ns, awaits_tools=True, clauses=clauses)
        if c.tool_filler or c.settings.limits.fillers:
            c.set_timer("filler", now_ns + TOOL_FILLER_MS * NS_PER_MS)
        c.set_timer("owed", now_ns + (c.tool_wait_ms + OWED_GRACE_MS) * NS_PER_MS)
        return
    c.has_results = False
    c.tools = []  # of a reply that was cut off: nothing of it is done
    c.reply_no += 1
    c.speech = AgentSpeech("reply", c.reply_no, began_ns=now_ns, clauses=clauses)
    if c.account is not None and not c.account.llm_request:
        c.account.llm_request = now_ns
    c.do(ev.RequestReply(c.reply_no, len(c.history.messages())))
    limits = c.settings.limits
    owed_since_ns = c.account.speech_end if c.account is not None and c.account.speech_end else now_ns
    if limits.fillers and c.tool_rounds == 0:
        due_ns = owed_since_ns + limits.filler_after_ms * NS_PER_MS
        c.set_timer("filler", max(due_ns, now_ns + FILLER_GRACE_MS * NS_PER_MS))
    c.set_timer("owed", max(owed_since_ns + limits.apology_after_ms * NS_PER_MS, now_ns + OWED_GRACE_MS * NS_PER_MS))


def next_filler(c: State) -> str:
    """What to say while the caller waits; empty when the agent has nothing for it."""
    if c.running and c.tool_filler:
        return c.tool_filler
    fillers = c.settings.limits.fillers
    if not fillers:
        return ""
    c.filler_no += 1
    return fillers[c.filler_no % len(fillers)]
