"""Whose turn it is: the end of the caller's turn, the answer to it, and the floor after the answer."""

from __future__ import annotations

import re

from server.agent import stock
from server.dialogue import event as ev
from server.dialogue.account import TurnAccount
from server.dialogue.asking import ask, next_filler
from server.dialogue.speaking import HAND_OVER, end_after, interject, leave, say, settle, stop_speaking
from server.dialogue.state import NS_PER_MS, State
from server.turn.endpoint import endpoint_delay_ms
from server.turn.machine import TurnAction, TurnEvent, TurnState

# A recogniser that has not answered by then after the turn is over: its interim words stand, if there are any.
FINAL_WAIT_MS = 2500
# After so many answers in a row that could not be given the call is given up.
MAX_FAILURES = 3

_PUNCTUATION = re.compile(r"[^\w\s]")


def wait(c: State, now_ns: int) -> None:
    """Nobody speaks: start the idle timer."""
    c.set_timer("idle", now_ns + c.settings.limits.idle_timeout_ms * NS_PER_MS)


def schedule_endpoint(c: State, now_ns: int) -> None:
    """Set the instant at which the caller's turn is over, by the words as they stand."""
    if c.account is None:
        return
    turn = c.settings.turn
    delay_ms = endpoint_delay_ms(c.utterances.text(), c.settings.language, turn.min_delay_ms, turn.max_delay_ms)
    due_ns = c.account.speech_end + delay_ms * NS_PER_MS
    if due_ns <= now_ns:
        endpoint_passed(c, now_ns)
    else:
        c.set_timer("endpoint", due_ns)


def endpoint_passed(c: State, now_ns: int) -> None:
    if c.turn_state is not TurnState.ENDPOINTING or c.account is None:
        return
    c.cancel_timers("endpoint")
    c.account.endpoint = now_ns
    if c.utterances.is_settled():
        take_turn(c, now_ns)
    else:
        c.set_timer("final", now_ns + FINAL_WAIT_MS * NS_PER_MS)


def take_turn(c: State, now_ns: int) -> None:
    """The caller has finished: answer the words, or see to it that there were none."""
    c.cancel_timers("final")
    text = c.utterances.text()
    if text:
        c.record_caller()
        answer(c, text, now_ns)
        return
    c.utterances.clear()
    c.account = None
    unheard, c.unheard = c.unheard, ""
    actions = c.turn(TurnEvent.TURN_EMPTY)
    if unheard:
        # A noise stopped the agent: it says the rest.
        say(c, "repeat", unheard, now_ns)
    elif c.has_results:
        ask(c, now_ns)
    elif TurnAction.WAIT in actions:
        wait(c, now_ns)


def words_are_late(c: State, now_ns: int) -> None:
    """The turn is over and its final has not come: the interim words stand.

    Without any the ears are out. The caller is told when the silence has become long enough; what was said stays
    pending, because it may still be understood.
    """
    if c.turn_state is not TurnState.ENDPOINTING or c.account is None:
        return
    owed_ns = c.account.speech_end + c.settings.limits.apology_after_ms * NS_PER_MS
    if c.utterances.text():
        c.utterances.give_up()
        take_turn(c, now_ns)
    elif now_ns < owed_ns:
        c.set_timer("final", owed_ns)
    else:
        c.account = None
        apologise(c, now_ns)


def answer(c: State, text: str, now_ns: int, account: TurnAccount | None = None) -> None:
    """The caller's turn is `text`. `account`: of keyed digits, which have no speech to begin with."""
    if c.is_leaving:
        return  # somebody else is about to answer
    c.idle_count = c.tool_rounds = 0
    c.unheard = ""
    c.turn_no += 1
    c.turn_text = text
    c.tokens = (0, 0)
    c.model_provider = ""
    c.history.caller_said(text)
    c.turn(TurnEvent.TURN_TAKEN)
    c.account = account or c.account or TurnAccount(c.turn_no)
    c.account.stt_text = now_ns
    if normalised(text) in {normalised(phrase) for phrase in c.settings.limits.end_call_phrases}:
        end_after(c, c.settings.limits.goodbye, "goodbye", "agent", now_ns)
    else:
        ask(c, now_ns)


def filler_due(c: State, now_ns: int) -> None:
    """The caller has waited long enough for a sign of life, unless the answer is about to be heard."""
    speech = c.speech
    if speech is None or speech.kind != "reply" or speech.audible:
        return
    if c.account is not None and c.account.tts_first_byte:
        return
    if filler := next_filler(c):
        interject(c, speech, filler)


def reply_owed(c: State, now_ns: int) -> None:
    """The caller has waited too long: give the answer up and say so."""
    speech = c.speech
    if speech is not None and speech.kind == "reply" and not speech.audible:
        c.after_clear = apologise
        stop_speaking(c)


def apologise(c: State, now_ns: int) -> None:
    """An answer could not be given."""
    c.speech = None
    c.failures += 1
    if c.failures >= MAX_FAILURES:
        give_up(c, now_ns)
    else:
        say(c, "apology", stock.apology(c.settings), now_ns)


def give_up(c: State, now_ns: int) -> None:
    """The call cannot go on: put it through to somebody, or else end it politely."""
    if c.is_leaving or (c.speech is not None and c.speech.then):
        return
    if c.settings.limits.fallback_number and not c.was_handed_over:
        end_after(c, stock.hand_over(c.settings), "notice", HAND_OVER, now_ns)
    else:
        _farewell(c, now_ns)


def _farewell(c: State, now_ns: int) -> None:
    end_after(c, stock.farewell(c.settings), "goodbye", "error", now_ns)


def give_up_unsaid(c: State) -> None:
    """As `give_up`, without a voice to say so."""
    leave(c, HAND_OVER if c.settings.limits.fallback_number and not c.was_handed_over else "error")


def on_hand_over_failed(c: State, event: ev.HandOverFailed, now_ns: int) -> None:
    c.is_leaving = False
    _farewell(c, now_ns)


def check_over(c: State, now_ns: int) -> None:
    """When all of what was said has been heard, the floor is free, or the call over."""
    speech = c.speech
    if speech is None or not speech.is_over():
        return
    settle(c, speech, now_ns, interrupted=False)
    if speech.kind == "reply" and speech.heard():
        c.failures = 0
    if speech.then:
        leave(c, speech.then)
    else:
        floor_is_free(c, now_ns)


def floor_is_free(c: State, now_ns: int) -> None:
    actions = c.turn(TurnEvent.REPLY_OVER)
    if c.turn_state is not TurnState.LISTENING:
        return
    if c.utterances.is_open():
        # The caller began before the agent had finished.
        c.utterances.adopt()
        c.turn(TurnEvent.SPEECH_STARTED)
    elif c.utterances.has_words_pending():
        # Said while the agent could not be interrupted.
        c.turn(TurnEvent.SPEECH_STARTED)
        c.turn(TurnEvent.SPEECH_STOPPED)
        c.account = TurnAccount(c.turn_no + 1, speech_end=now_ns, detected=now_ns)
        schedule_endpoint(c, now_ns)
    elif c.has_results:
        ask(c, now_ns)
    elif TurnAction.WAIT in actions:
        wait(c, now_ns)


def normalised(text: str) -> str:
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())
