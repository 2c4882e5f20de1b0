"""The one place that decides: a pure step from (event, instant) to actions.

What the caller said, whose turn it is, what is spoken next, when to stop and when to hang up are all settled by
`step`, from the turn table (server.turn.machine) and the agent's settings. Nothing here waits, reads a clock or
touches a socket: the call feeds events in and carries the actions out, and a capture of the events leads to the
same actions again.

    hearing (speech, words, keys) ─┐
    replying (text, playout) ──────┼─► floor (whose turn) ─► speaking (say, stop) ─► actions
    opening, idle, limits (here) ──┘          all on one State
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from providers.base import ChatRequest, Message
from server.agent.settings import AgentSettings
from server.dialogue import event as ev
from server.dialogue import hearing, replying, speaking, tooling
from server.dialogue.asking import ask
from server.dialogue.floor import (
    endpoint_passed,
    filler_due,
    on_hand_over_failed,
    reply_owed,
    wait,
    words_are_late,
)
from server.dialogue.history import History
from server.dialogue.prompt import system_prompt
from server.dialogue.speaking import end_after, say, stop_speaking
from server.dialogue.state import NS_PER_MS, TIMERS, State
from server.turn.machine import TurnEvent, TurnState


class Conversation:
    """One conversation, from the first stream of the call to its end."""

    __slots__ = ("_state",)

    def __init__(self, settings: AgentSettings, rate_hz: int = 8000) -> None:
        self._state = State(settings, rate_hz)

    def step(self, event: ev.Event, now_ns: int) -> list[ev.Action]:
        """Take one event; return what is to be done, in order. Raises UnexpectedEvent for a caller's bug."""
        state = self._state
        state.out = []
        _STEPS[type(event)](state, event, now_ns)
        return state.out

    def request(self, caller: str = "") -> ChatRequest:
        """What to ask the model, as of the last RequestReply."""
        settings = self._state.settings
        return ChatRequest(
            messages=(Message("system", system_prompt(settings)), *self._state.history.messages()),
            tools=tooling.specs(settings),
            model=settings.llm.model,
            temperature=settings.llm.temperature,
            max_tokens=settings.llm.max_tokens,
            frequency_penalty=settings.llm.frequency_penalty,
            presence_penalty=settings.llm.presence_penalty,
            reasoning_effort=settings.llm.reasoning_effort,
            language=settings.language,
            caller=caller,
            script=settings.script or None,
        )

    @property
    def state(self) -> TurnState:
        return self._state.turn_state

    @property
    def history(self) -> History:
        return self._state.history

    def unheard_clauses(self) -> list[int]:
        """Clauses that are queued, being rendered or being played."""
        speech = self._state.speech
        return [] if speech is None else [one.clause_no for one in speech.clauses if one.heard is None]

    def is_awaiting_final(self) -> bool:
        """Words of the caller are still with the recogniser."""
        return not self._state.utterances.is_settled()


def _on_call_began(c: State, event: ev.CallBegan, now_ns: int) -> None:
    c.began_ns = now_ns
    c.set_timer("max_duration", now_ns + c.settings.limits.max_duration_ms * NS_PER_MS)
    opening = c.settings.opening
    if opening.mode == "speak" and opening.text:
        say(c, "opening", opening.text, now_ns, protected=c.settings.interruption.protected_opening)
    elif opening.mode == "delay" and opening.text:
        c.set_timer("opening", now_ns + opening.delay_ms * NS_PER_MS)
    else:
        wait(c, now_ns)


def _on_stream_resumed(c: State, event: ev.StreamResumed, now_ns: int) -> None:
    text, c.unheard = c.unheard or c.settings.opening.text, ""
    c.turn_state = TurnState.LISTENING
    c.utterances.drop()
    c.media_offset_ms = c.since_began_ms(now_ns)
    c.set_timer("max_duration", c.began_ns + c.settings.limits.max_duration_ms * NS_PER_MS)
    if text:
        say(c, "repeat", text, now_ns)
    elif c.has_results:
        ask(c, now_ns)
    else:
        wait(c, now_ns)


def _on_timer(c: State, event: ev.TimerFired, now_ns: int) -> None:
    if c.turn_state is TurnState.ENDED:
        return
    match event.name:
        case "endpoint":
            endpoint_passed(c, now_ns)
        case "final":
            words_are_late(c, now_ns)
        case "idle" if c.turn_state is TurnState.LISTENING:
            _idle(c, now_ns)
        case "opening" if c.turn_state is TurnState.LISTENING:
            say(c, "opening", c.settings.opening.text, now_ns)
        case "digits":
            hearing.take_digits(c, now_ns)
        case "filler":
            filler_due(c, now_ns)
        case "owed":
            reply_owed(c, now_ns)
        case "max_duration":
            end_after(c, c.settings.limits.max_duration_notice, "notice", "max_duration", now_ns)
        case _:
            pass  # set in a state that has passed


def _idle(c: State, now_ns: int) -> None:
    limits = c.settings.limits
    if c.idle_count < len(limits.idle_prompts):
        c.idle_count += 1
        say(c, "idle", limits.idle_prompts[c.idle_count - 1], now_ns)
    elif limits.idle_goodbye:
        say(c, "goodbye", limits.idle_goodbye, now_ns, then="idle")
    else:
        c.do(ev.HangUp("idle"))


def _on_stream_ended(c: State, event: ev.StreamEnded, now_ns: int) -> None:
    if c.turn_state is TurnState.ENDED:
        return
    c.cancel_timers(*TIMERS)
    c.turn(TurnEvent.CALL_ENDED)
    number = c.utterances.stop(c.since_began_ms(now_ns))
    if number is not None:
        c.do(ev.CommitUtterance(number))
    elif c.utterances.is_settled():
        c.record_caller()
    stop_speaking(c)


_STEPS: dict[type[Any], Callable[[State, Any, int], None]] = {
    ev.CallBegan: _on_call_began,
    ev.StreamResumed: _on_stream_resumed,
    ev.TimerFired: _on_timer,
    ev.HandOverFailed: on_hand_over_failed,
    ev.StreamEnded: _on_stream_ended,
    ev.SpeechStarted: hearing.on_speech_started,
    ev.SpeechConfirmed: hearing.on_speech_confirmed,
    ev.SpeechStopped: hearing.on_speech_stopped,
    ev.TranscriptInterim: hearing.on_interim,
    ev.TranscriptFinal: hearing.on_final,
    ev.TranscriberFailed: hearing.on_transcriber_failed,
    ev.DigitReceived: hearing.on_digit,
    ev.ReplyText: replying.on_text,
    ev.ReplyTool: replying.on_tool,
    ev.ReplyDone: replying.on_done,
    ev.ReplyFailed: replying.on_failed,
    ev.ToolFinished: tooling.on_finished,
    ev.SpeechRendered: replying.on_rendered,
    ev.SpeechFailed: replying.on_speech_failed,
    ev.PlayoutFinished: replying.on_playout_finished,
    ev.PlayoutCleared: replying.on_playout_cleared,
    ev.SpeechRequested: speaking.on_requested,
    ev.SpeechFirstByte: speaking.on_first_byte,
    ev.FirstSent: speaking.on_first_sent,
}
