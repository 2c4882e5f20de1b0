"""The agent's side: say, stop, and write down what was heard."""

from __future__ import annotations

from server.dialogue import event as ev
from server.dialogue.speech import AgentSpeech, Clause, Kind
from server.dialogue.state import State
from server.turn.machine import TurnEvent

HAND_OVER = "hand_over"


def say(c: State, kind: Kind, text: str, now_ns: int, *, protected: bool = False, then: str = "") -> None:
    """Say a text that answers no turn."""
    c.turn(TurnEvent.AGENT_BEGINS)
    c.speech = AgentSpeech(kind, protected=protected, then=then, complete=True, began_ns=now_ns)
    speak(c, c.speech, text, now_ns)


def speak(c: State, speech: AgentSpeech, text: str, now_ns: int) -> None:
    """Add one clause to what is being said."""
    c.clause_no += 1
    if c.account is not None and not c.account.first_clause:
        c.account.first_clause = now_ns
    speech.clauses.append(Clause(c.clause_no, text))
    c.do(ev.Speak(c.clause_no, text, speech.kind not in ("reply", "repeat")))


def interject(c: State, speech: AgentSpeech, text: str) -> None:
    """Say a filler before the first clause of the reply."""
    c.clause_no += 1
    speech.clauses.insert(0, Clause(c.clause_no, text, is_filler=True))
    c.do(ev.Interject(c.clause_no, text))


def stop_speaking(c: State) -> None:
    """Drop what is being said; PlayoutCleared settles it."""
    if c.speech is None:
        return
    if c.speech.kind == "reply":
        c.do(ev.CancelReply(c.speech.reply_no))
    c.do(ev.ClearPlayout())


def end_after(c: State, text: str, kind: Kind, reason: str, now_ns: int) -> None:
    """Say `text`, whoever has the floor, and leave the call when it was heard."""
    c.cancel_timers("endpoint", "final")
    if c.speech is not None:
        c.after_clear = lambda state, at_ns: end_after(state, text, kind, reason, at_ns)
        stop_speaking(c)
    elif text:
        say(c, kind, text, now_ns, protected=True, then=reason)
    else:
        leave(c, reason)


def leave(c: State, reason: str) -> None:
    """Give the call away: to the fallback number for the reason `hand_over`, else to nobody."""
    if reason == HAND_OVER:
        c.is_leaving = c.was_handed_over = True
        c.do(ev.HandOver(c.settings.limits.fallback_number))
    else:
        c.do(ev.HangUp(reason))


def settle(c: State, speech: AgentSpeech, now_ns: int, *, interrupted: bool) -> None:
    """`speech` is history: write down what was heard of it, and the turn that it answered."""
    c.speech = None
    heard = speech.heard()
    c.history.agent_said(heard, before_calls=speech.called_tools)
    if speech.clauses and speech.audible:
        begin_ms, end_ms = c.since_began_ms(speech.began_ns), c.since_began_ms(now_ns)
        c.record("agent", speech.text(), heard, begin_ms, end_ms, interrupted=interrupted)
    account, c.account = c.account, None
    if account is not None and c.turn_text:
        latency_ms, stages = account.latency_ms(), account.stages_ms()
        texts = (c.turn_text, speech.text())
        c.do(ev.RecordTurn(account.turn_no, latency_ms, stages, interrupted, *texts, *c.tokens, c.model_provider))
        c.turn_text = ""


def on_requested(c: State, event: ev.SpeechRequested, now_ns: int) -> None:
    account = c.account_of_first(event.clause_no)
    if account is not None:
        account.tts_request = now_ns


def on_first_byte(c: State, event: ev.SpeechFirstByte, now_ns: int) -> None:
    account = c.account_of_first(event.clause_no)
    if account is not None:
        account.tts_first_byte = now_ns


def on_first_sent(c: State, event: ev.FirstSent, now_ns: int) -> None:
    speech = c.speech
    if speech is None or not speech.is_first(event.clause_no):
        return
    speech.audible = True
    speech.began_ns = now_ns
    c.cancel_timers("filler", "owed")
    if c.account is not None and not c.account.first_sent:
        c.account.first_sent = now_ns
    c.turn(TurnEvent.REPLY_AUDIBLE)
