"""The reply: from the model's text to clauses, and from played clauses to history."""

from __future__ import annotations

from providers.base import ToolCall
from server.dialogue import event as ev
from server.dialogue.asking import ask
from server.dialogue.floor import apologise, check_over, give_up_unsaid
from server.dialogue.speaking import end_after, leave, settle, speak, stop_speaking
from server.dialogue.state import State
from server.dialogue.tooling import END_CALL, invoke
from server.turn.machine import TurnState


def on_text(c: State, event: ev.ReplyText, now_ns: int) -> None:
    speech = c.reply(event.reply_no)
    if speech is None:
        return
    if c.account is not None and not c.account.llm_first_token:
        c.account.llm_first_token = now_ns
    for text in speech.splitter.feed(event.text):
        speak(c, speech, text, now_ns)


def on_tool(c: State, event: ev.ReplyTool, now_ns: int) -> None:
    speech = c.reply(event.reply_no)
    if speech is None:
        return
    if event.name == END_CALL.name:
        speech.then = "agent"
    else:
        c.tools.append((ToolCall(event.tool_id, event.name, event.arguments), event.fits))


def on_done(c: State, event: ev.ReplyDone, now_ns: int) -> None:
    speech = c.reply(event.reply_no)
    if speech is None:
        return
    c.model_provider = event.provider
    c.tokens = (c.tokens[0] + event.prompt_tokens, c.tokens[1] + event.completion_tokens)
    for text in speech.splitter.flush():
        speak(c, speech, text, now_ns)
    speech.complete = True
    tools, c.tools = c.tools, []
    called_before = c.tool_no
    speech.called_tools = invoke(c, tools)
    if speech.called_tools > c.tool_no - called_before:
        speech.then = ""  # one was refused: nobody hangs up on what the model may still mend
    if speech.has_words:
        check_over(c, now_ns)
    elif speech.then:
        c.speech = None
        end_after(c, c.settings.limits.goodbye, "goodbye", speech.then, now_ns)
    elif speech.called_tools:
        speech.awaits_tools = True
        ask(c, now_ns)
    else:
        apologise(c, now_ns)


def on_failed(c: State, event: ev.ReplyFailed, now_ns: int) -> None:
    speech = c.reply(event.reply_no)
    if speech is None:
        return
    c.tools = []
    if speech.has_words:
        # What was said stands; half a sentence in the splitter does not.
        speech.complete = True
        check_over(c, now_ns)
    else:
        apologise(c, now_ns)


def on_rendered(c: State, event: ev.SpeechRendered, now_ns: int) -> None:
    clause = c.clause(event.clause_no)
    if clause is None:
        return
    clause.samples = event.samples
    if event.samples == 0:
        # Nothing to be heard, so no mark will say that it was.
        clause.heard = ""
        check_over(c, now_ns)


def on_speech_failed(c: State, event: ev.SpeechFailed, now_ns: int) -> None:
    speech, clause = c.speech, c.clause(event.clause_no)
    if speech is None or clause is None or clause.heard is not None:
        return
    if speech.then:
        leave(c, speech.then)
    elif speech.kind == "apology":
        # There is no voice left to say it with.
        give_up_unsaid(c)
    else:
        # Whatever was heard of it: the rest will not come, and the caller must not wait for it.
        c.after_clear = apologise
        stop_speaking(c)


def on_playout_finished(c: State, event: ev.PlayoutFinished, now_ns: int) -> None:
    clause = c.clause(event.clause_no)
    if clause is None or clause.heard is not None:
        return
    clause.heard = clause.text
    account = c.account_of_first(event.clause_no)
    if account is not None and clause.samples and not account.first_heard:
        # The mark comes at the end of the clause; its beginning was heard that much earlier.
        account.first_heard = now_ns - clause.samples * 1_000_000_000 // c.rate_hz
    check_over(c, now_ns)


def on_playout_cleared(c: State, event: ev.PlayoutCleared, now_ns: int) -> None:
    speech = c.speech
    if speech is not None:
        unheard = speech.cut(event.heard)
        if speech.audible and not speech.then:
            c.unheard = unheard
        settle(c, speech, now_ns, interrupted=True)
    follow, c.after_clear = c.after_clear, None
    if follow is not None and c.turn_state is not TurnState.ENDED:
        follow(c, now_ns)
