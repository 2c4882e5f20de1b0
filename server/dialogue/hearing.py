"""The caller's side: speech, words and keys."""

from __future__ import annotations

from server.dialogue import event as ev
from server.dialogue.account import TurnAccount
from server.dialogue.floor import answer, give_up, schedule_endpoint, take_turn
from server.dialogue.speaking import stop_speaking
from server.dialogue.state import NS_PER_MS, State
from server.turn.machine import TurnAction, TurnEvent, TurnState

# Keyed digits form one answer when they are no further apart than this.
DIGIT_GAP_MS = 1500
MAX_DIGITS = 64


def on_speech_started(c: State, event: ev.SpeechStarted, now_ns: int) -> None:
    c.cancel_timers("idle", "opening")
    overlapping = c.turn_state in (TurnState.THINKING, TurnState.AGENT_SPEAKING)
    actions = c.turn(TurnEvent.SPEECH_STARTED)
    if TurnAction.BEGIN_UTTERANCE in actions:
        number = c.utterances.begin(event.start_ms + c.media_offset_ms, aside=overlapping)
        c.do(ev.BeginUtterance(number, event.start_ms))
    elif TurnAction.RESUME_UTTERANCE in actions:
        c.cancel_timers("endpoint", "final")
        c.account = None
        c.do(ev.ResumeUtterance(c.utterances.resume()))


def on_speech_confirmed(c: State, event: ev.SpeechConfirmed, now_ns: int) -> None:
    if c.speech is not None and (c.speech.protected or not c.settings.interruption.allowed):
        # What is said now is answered when the agent has finished.
        c.utterances.adopt()
        return
    for action in c.turn(TurnEvent.SPEECH_CONFIRMED):
        c.utterances.adopt()
        if action is TurnAction.TAKE_BACK:
            _take_back(c)
        elif action is TurnAction.INTERRUPT:
            stop_speaking(c)


def _take_back(c: State) -> None:
    """Nothing of the answer was heard: the caller's words and what follows are one turn.

    Unless something was done already in answer to them: then they stand, and what follows is a turn of its own.
    """
    speech = c.speech
    stop_speaking(c)
    if speech is None or speech.kind != "reply":
        return
    if c.history.has_acted():
        # If it was a noise, the answer is still owed.
        c.has_results = True
    else:
        c.utterances.put_before(c.history.take_back_caller())
        c.turn_no -= 1
        c.account = None


def on_speech_stopped(c: State, event: ev.SpeechStopped, now_ns: int) -> None:
    number = c.utterances.stop(event.end_ms + c.media_offset_ms)
    if number is None:
        return
    c.turn(TurnEvent.SPEECH_STOPPED)
    c.do(ev.CommitUtterance(number))
    if c.turn_state is TurnState.ENDPOINTING:
        c.account = TurnAccount(c.turn_no + 1, speech_end=event.end_ns, detected=now_ns)
        schedule_endpoint(c, now_ns)


def on_interim(c: State, event: ev.TranscriptInterim, now_ns: int) -> None:
    if c.utterances.interim(event.utterance_no, event.text) and c.turn_state is TurnState.ENDPOINTING:
        schedule_endpoint(c, now_ns)


def on_final(c: State, event: ev.TranscriptFinal, now_ns: int) -> None:
    if not c.utterances.final(event.utterance_no, event.text, event.confidence):
        return
    if c.turn_state is TurnState.ENDED:
        c.record_caller()
    elif c.turn_state is TurnState.ENDPOINTING:
        if c.account is not None and c.account.endpoint:
            take_turn(c, now_ns)
        else:
            schedule_endpoint(c, now_ns)


def on_transcriber_failed(c: State, event: ev.TranscriberFailed, now_ns: int) -> None:
    if c.turn_state is not TurnState.ENDED:
        give_up(c, now_ns)


def on_digit(c: State, event: ev.DigitReceived, now_ns: int) -> None:
    if c.turn_state is TurnState.ENDED:
        return
    c.cancel_timers("idle")
    if event.digit == "#":
        take_digits(c, now_ns)
    else:
        c.digits = (c.digits + event.digit)[-MAX_DIGITS:]
        c.set_timer("digits", now_ns + DIGIT_GAP_MS * NS_PER_MS)


def take_digits(c: State, now_ns: int) -> None:
    """The keys pressed so far are the caller's answer; they interrupt what is being said."""
    c.cancel_timers("digits")
    digits, c.digits = c.digits, ""
    if not digits:
        return
    text = " ".join(digits)
    account = TurnAccount(c.turn_no + 1, speech_end=now_ns, detected=now_ns, endpoint=now_ns)
    if c.speech is None:
        answer(c, text, now_ns, account)
    elif not c.speech.protected:
        # What was heard of the agent comes before the answer.
        c.after_clear = lambda state, at_ns: answer(state, text, at_ns, account)
        stop_speaking(c)
