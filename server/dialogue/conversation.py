"""The one place that decides: a pure step from (event, instant) to actions.

What the caller said, whose turn it is, what is spoken next, when to stop and when to hang up are all settled
here, from the turn table (server.turn.machine) and the agent's settings. Nothing here waits, reads a clock or
touches a socket: the call feeds events in and carries the actions out, and a journal of the events steps to the
same actions again.

Invariant: at most one AgentSpeech exists; history holds only what was heard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from providers.base import ChatRequest, Message, ToolCall, ToolSpec
from server.agent.settings import AgentSettings
from server.dialogue import event as ev
from server.dialogue.account import TurnAccount
from server.dialogue.history import History
from server.dialogue.prompt import system_prompt
from server.dialogue.speech import AgentSpeech, Clause, Kind
from server.dialogue.utterance import Utterances
from server.turn.endpoint import endpoint_delay_ms
from server.turn.machine import TurnAction, TurnEvent, TurnState, transition

NS_PER_MS = 1_000_000
# A recogniser that has not answered by then after the turn is over is treated as having heard nothing.
FINAL_WAIT_MS = 4000
# Keyed digits form one answer when they are no further apart than this.
DIGIT_GAP_MS = 1500
MAX_DIGITS = 64
MAX_TOOL_ROUNDS = 3
# After so many answers in a row that could not be given the call ends politely.
MAX_FAILURES = 3

END_CALL = ToolSpec("end_call", "Hang up, after what you say now has been heard.", {"type": "object", "properties": {}})


class Conversation:
    """All state of one conversation. `step` is the only way to change it."""

    __slots__ = (
        "_account",
        "_after_clear",
        "_began_ns",
        "_clause_no",
        "_digits",
        "_failures",
        "_idle_count",
        "_media_offset_ms",
        "_out",
        "_rate_hz",
        "_reply_no",
        "_segment_no",
        "_settings",
        "_speech",
        "_tokens",
        "_tool_rounds",
        "_tools",
        "_turn_no",
        "_turn_text",
        "_unheard",
        "_utterances",
        "history",
        "state",
    )

    def __init__(self, settings: AgentSettings, rate_hz: int = 8000) -> None:
        self.state = TurnState.LISTENING
        self.history = History()
        self._settings = settings
        self._utterances = Utterances()
        self._speech: AgentSpeech | None = None
        self._account: TurnAccount | None = None
        self._out: list[ev.Action] = []
        self._tools: list[ToolCall] = []
        self._tokens = (0, 0)
        self._turn_text = ""
        self._unheard = ""
        self._digits = ""
        # What follows a ClearPlayout, once it is known how much was heard.
        self._after_clear: Callable[[int], None] | None = None
        self._rate_hz = rate_hz
        self._began_ns = 0
        self._media_offset_ms = 0
        self._clause_no = self._reply_no = self._segment_no = self._turn_no = 0
        self._idle_count = self._failures = self._tool_rounds = 0

    # ── the step ──────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, event: ev.Event, now_ns: int) -> list[ev.Action]:
        """Take one event; return what is to be done, in order. Raises UnexpectedEvent for a caller's bug."""
        self._out = []
        _STEPS[type(event)](self, event, now_ns)
        return self._out

    def request(self, caller: str = "") -> ChatRequest:
        """What to ask the model, as of the last RequestReply."""
        settings = self._settings
        return ChatRequest(
            messages=(Message("system", system_prompt(settings)), *self.history.messages()),
            tools=(END_CALL,),
            model=settings.llm.model,
            temperature=settings.llm.temperature,
            max_tokens=settings.llm.max_tokens,
            language=settings.language,
            caller=caller,
            script=settings.script or None,
        )

    # ── opening, idle, limits ─────────────────────────────────────────────────────────────────────────────────

    def _on_call_began(self, event: ev.CallBegan, now_ns: int) -> None:
        self._began_ns = now_ns
        self._set_timer("max_duration", now_ns + self._settings.limits.max_duration_ms * NS_PER_MS)
        opening = self._settings.opening
        if opening.mode == "speak" and opening.text:
            self._say("opening", opening.text, now_ns, protected=self._settings.interruption.protected_opening)
        elif opening.mode == "delay" and opening.text:
            self._set_timer("opening", now_ns + opening.delay_ms * NS_PER_MS)
        else:
            self._wait(now_ns)

    def _on_stream_resumed(self, event: ev.StreamResumed, now_ns: int) -> None:
        text, self._unheard = self._unheard or self._settings.opening.text, ""
        self.state = TurnState.LISTENING
        self._utterances.drop()
        self._media_offset_ms = (now_ns - self._began_ns) // NS_PER_MS
        self._set_timer("max_duration", self._began_ns + self._settings.limits.max_duration_ms * NS_PER_MS)
        if text:
            self._say("repeat", text, now_ns)
        else:
            self._wait(now_ns)

    def _on_timer(self, event: ev.TimerFired, now_ns: int) -> None:
        if self.state is TurnState.ENDED:
            return
        match event.name:
            case "endpoint":
                self._endpoint_passed(now_ns)
            case "final":
                self._utterances.give_up()
                self._take_turn(now_ns)
            case "idle" if self.state is TurnState.LISTENING:
                self._idle(now_ns)
            case "opening" if self.state is TurnState.LISTENING:
                self._say("opening", self._settings.opening.text, now_ns)
            case "digits":
                self._take_digits(now_ns)
            case "max_duration":
                self._end_after(self._settings.limits.max_duration_notice, "notice", "max_duration", now_ns)
            case _:
                pass  # set in a state that has passed

    def _idle(self, now_ns: int) -> None:
        limits = self._settings.limits
        if self._idle_count < len(limits.idle_prompts):
            self._idle_count += 1
            self._say("idle", limits.idle_prompts[self._idle_count - 1], now_ns)
        elif limits.idle_goodbye:
            self._say("goodbye", limits.idle_goodbye, now_ns, then="idle")
        else:
            self._out.append(ev.HangUp("idle"))

    # ── the caller's side ─────────────────────────────────────────────────────────────────────────────────────

    def _on_speech_started(self, event: ev.SpeechStarted, now_ns: int) -> None:
        self._cancel_timer("idle")
        self._cancel_timer("opening")
        overlapping = self.state in (TurnState.THINKING, TurnState.AGENT_SPEAKING)
        actions = self._turn(TurnEvent.SPEECH_STARTED)
        if TurnAction.BEGIN_UTTERANCE in actions:
            number = self._utterances.begin(event.start_ms + self._media_offset_ms, aside=overlapping)
            self._out.append(ev.BeginUtterance(number, event.start_ms))
        elif TurnAction.RESUME_UTTERANCE in actions:
            self._cancel_timer("endpoint")
            self._cancel_timer("final")
            self._account = None
            self._out.append(ev.ResumeUtterance(self._utterances.resume()))

    def _on_speech_confirmed(self, event: ev.SpeechConfirmed, now_ns: int) -> None:
        speech = self._speech
        if speech is not None and (speech.protected or not self._settings.interruption.allowed):
            # What is said now is answered when the agent has finished.
            self._utterances.adopt()
            return
        for action in self._turn(TurnEvent.SPEECH_CONFIRMED):
            self._utterances.adopt()
            if action is TurnAction.TAKE_BACK:
                self._take_back()
            elif action is TurnAction.INTERRUPT:
                self._stop_speaking()

    def _on_speech_stopped(self, event: ev.SpeechStopped, now_ns: int) -> None:
        number = self._utterances.stop(event.end_ms + self._media_offset_ms)
        if number is None:
            return
        self._turn(TurnEvent.SPEECH_STOPPED)
        self._out.append(ev.CommitUtterance(number))
        if self.state is TurnState.ENDPOINTING:
            self._account = TurnAccount(self._turn_no + 1, speech_end=event.end_ns, detected=now_ns)
            self._schedule_endpoint(now_ns)

    def _on_interim(self, event: ev.TranscriptInterim, now_ns: int) -> None:
        if self._utterances.interim(event.utterance_no, event.text) and self.state is TurnState.ENDPOINTING:
            self._schedule_endpoint(now_ns)

    def _on_final(self, event: ev.TranscriptFinal, now_ns: int) -> None:
        if not self._utterances.final(event.utterance_no, event.text, event.confidence):
            return
        if self.state is TurnState.ENDED:
            self._record_caller()
        elif self.state is TurnState.ENDPOINTING:
            if self._account is not None and self._account.endpoint:
                self._take_turn(now_ns)
            else:
                self._schedule_endpoint(now_ns)

    def _on_transcriber_failed(self, event: ev.TranscriberFailed, now_ns: int) -> None:
        self._end_after(self._settings.limits.apology, "apology", "error", now_ns)

    def _on_digit(self, event: ev.DigitReceived, now_ns: int) -> None:
        if self.state is TurnState.ENDED:
            return
        self._cancel_timer("idle")
        if event.digit == "#":
            self._take_digits(now_ns)
            return
        self._digits = (self._digits + event.digit)[-MAX_DIGITS:]
        self._account = TurnAccount(self._turn_no + 1, speech_end=now_ns, detected=now_ns)
        self._set_timer("digits", now_ns + DIGIT_GAP_MS * NS_PER_MS)

    def _take_digits(self, now_ns: int) -> None:
        self._cancel_timer("digits")
        digits, self._digits = self._digits, ""
        if not digits:
            return
        text = " ".join(digits)
        if self._account is not None:
            self._account.endpoint = now_ns
        if self._speech is None:
            self._answer(text, now_ns)
        else:
            # What was heard of the agent comes before the answer.
            account = self._account
            self._account = None
            self._after_clear = lambda at_ns: self._answer(text, at_ns, account)
            self._stop_speaking()

    # ── the end of a turn ─────────────────────────────────────────────────────────────────────────────────────

    def _schedule_endpoint(self, now_ns: int) -> None:
        account = self._account
        if account is None:
            return
        turn = self._settings.turn
        delay_ms = endpoint_delay_ms(
            self._utterances.text(), self._settings.language, turn.min_delay_ms, turn.max_delay_ms
        )
        due_ns = account.speech_end + delay_ms * NS_PER_MS
        if due_ns <= now_ns:
            self._endpoint_passed(now_ns)
        else:
            self._set_timer("endpoint", due_ns)

    def _endpoint_passed(self, now_ns: int) -> None:
        if self.state is not TurnState.ENDPOINTING or self._account is None:
            return
        self._cancel_timer("endpoint")
        self._account.endpoint = now_ns
        if self._utterances.is_settled():
            self._take_turn(now_ns)
        else:
            self._set_timer("final", now_ns + FINAL_WAIT_MS * NS_PER_MS)

    def _take_turn(self, now_ns: int) -> None:
        self._cancel_timer("final")
        text = self._utterances.text()
        if not text:
            self._utterances.clear()
            self._account = None
            self._nothing_understood(now_ns)
            return
        self._record_caller()
        self._answer(text, now_ns)

    def _nothing_understood(self, now_ns: int) -> None:
        unheard, self._unheard = self._unheard, ""
        actions = self._turn(TurnEvent.TURN_EMPTY)
        if unheard:
            # A noise stopped the agent: it says the rest.
            self._say("repeat", unheard, now_ns)
        elif TurnAction.WAIT in actions:
            self._wait(now_ns)

    def _answer(self, text: str, now_ns: int, account: TurnAccount | None = None) -> None:
        self._idle_count = self._tool_rounds = 0
        self._unheard = ""
        self._turn_no += 1
        self._turn_text = text
        self._tokens = (0, 0)
        self.history.caller_said(text)
        self._turn(TurnEvent.TURN_TAKEN)
        self._account = account or self._account or TurnAccount(self._turn_no)
        self._account.stt_text = now_ns
        if _normalised(text) in {_normalised(p) for p in self._settings.limits.end_call_phrases}:
            self._end_after(self._settings.limits.goodbye, "goodbye", "agent", now_ns)
            return
        self._request(now_ns)

    def _request(self, now_ns: int) -> None:
        self._reply_no += 1
        self._speech = AgentSpeech("reply", self._reply_no, began_ns=now_ns)
        if self._account is not None and not self._account.llm_request:
            self._account.llm_request = now_ns
        self._out.append(ev.RequestReply(self._reply_no, len(self.history.messages())))

    # ── the model ─────────────────────────────────────────────────────────────────────────────────────────────

    def _reply(self, reply_no: int) -> AgentSpeech | None:
        speech = self._speech
        return speech if speech is not None and speech.reply_no == reply_no and not speech.complete else None

    def _on_reply_text(self, event: ev.ReplyText, now_ns: int) -> None:
        speech = self._reply(event.reply_no)
        if speech is None:
            return
        if self._account is not None and not self._account.llm_first_token:
            self._account.llm_first_token = now_ns
        for text in speech.splitter.feed(event.text):
            self._speak(speech, text, now_ns)

    def _on_reply_tool(self, event: ev.ReplyTool, now_ns: int) -> None:
        speech = self._reply(event.reply_no)
        if speech is None:
            return
        if event.name == END_CALL.name:
            speech.then = "agent"
        else:
            self._tools.append(ToolCall(event.tool_id, event.name, event.arguments))

    def _on_reply_done(self, event: ev.ReplyDone, now_ns: int) -> None:
        speech = self._reply(event.reply_no)
        if speech is None:
            return
        self._tokens = (self._tokens[0] + event.prompt_tokens, self._tokens[1] + event.completion_tokens)
        self._failures = 0
        for text in speech.splitter.flush():
            self._speak(speech, text, now_ns)
        speech.complete = True
        tools, self._tools = self._tools, []
        if tools and self._tool_rounds < MAX_TOOL_ROUNDS and not speech.clauses:
            self._tool_rounds += 1
            for call in tools:
                # Only end_call exists so far; the model hears so and answers in words.
                self.history.tool_called(call, f"error: there is no tool named {call.name}")
            self._request(now_ns)
        elif not speech.clauses and speech.then:
            self._speech = None
            self._end_after(self._settings.limits.goodbye, "goodbye", speech.then, now_ns)
        elif not speech.clauses:
            self._apologise(now_ns)
        else:
            self._check_over(now_ns)

    def _on_reply_failed(self, event: ev.ReplyFailed, now_ns: int) -> None:
        speech = self._reply(event.reply_no)
        if speech is None:
            return
        self._tools = []
        if speech.clauses:
            # What was said stands; half a sentence in the splitter does not.
            speech.complete = True
            self._check_over(now_ns)
        else:
            self._apologise(now_ns)

    def _apologise(self, now_ns: int) -> None:
        self._speech = None
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self._end_after(self._settings.limits.apology, "apology", "error", now_ns)
        elif self._settings.limits.apology:
            self._say("apology", self._settings.limits.apology, now_ns)
        else:
            self._account = None
            self._floor_is_free(now_ns)

    # ── the agent's side ──────────────────────────────────────────────────────────────────────────────────────

    def _say(self, kind: Kind, text: str, now_ns: int, *, protected: bool = False, then: str = "") -> None:
        self._turn(TurnEvent.AGENT_BEGINS)
        speech = self._speech = AgentSpeech(kind, protected=protected, then=then, complete=True, began_ns=now_ns)
        self._speak(speech, text, now_ns)

    def _speak(self, speech: AgentSpeech, text: str, now_ns: int) -> None:
        self._clause_no += 1
        if self._account is not None and not self._account.first_clause:
            self._account.first_clause = now_ns
        speech.clauses.append(Clause(self._clause_no, text))
        self._out.append(ev.Speak(self._clause_no, text, speech.kind not in ("reply", "repeat")))

    def _end_after(self, text: str, kind: Kind, reason: str, now_ns: int) -> None:
        """Say `text`, whoever has the floor, and hang up when it was heard."""
        self._cancel_timer("endpoint")
        self._cancel_timer("final")
        if self._speech is not None:
            self._after_clear = lambda at_ns: self._end_after(text, kind, reason, at_ns)
            self._stop_speaking()
        elif text:
            self._say(kind, text, now_ns, protected=True, then=reason)
        else:
            self._out.append(ev.HangUp(reason))

    def _stop_speaking(self) -> None:
        speech = self._speech
        if speech is None:
            return
        if speech.kind == "reply":
            self._out.append(ev.CancelReply(speech.reply_no))
        self._out.append(ev.ClearPlayout())

    def _take_back(self) -> None:
        speech = self._speech
        self._stop_speaking()
        if speech is not None and speech.kind == "reply":
            self._utterances.put_before(self.history.take_back_caller())
            self._turn_no -= 1
            self._account = None

    def _clause(self, clause_no: int) -> Clause | None:
        return self._speech.clause(clause_no) if self._speech is not None else None

    def _is_first_of_turn(self, clause_no: int) -> bool:
        return self._account is not None and self._speech is not None and self._speech.is_first(clause_no)

    def _on_speech_requested(self, event: ev.SpeechRequested, now_ns: int) -> None:
        if self._account is not None and self._is_first_of_turn(event.clause_no):
            self._account.tts_request = now_ns

    def _on_first_byte(self, event: ev.SpeechFirstByte, now_ns: int) -> None:
        if self._account is not None and self._is_first_of_turn(event.clause_no):
            self._account.tts_first_byte = now_ns

    def _on_rendered(self, event: ev.SpeechRendered, now_ns: int) -> None:
        clause = self._clause(event.clause_no)
        if clause is not None:
            clause.samples = event.samples
            if event.samples == 0:
                clause.heard = ""
                self._check_over(now_ns)

    def _on_speech_failed(self, event: ev.SpeechFailed, now_ns: int) -> None:
        speech, clause = self._speech, self._clause(event.clause_no)
        if speech is None or clause is None or clause.heard is not None:
            return
        if speech.kind == "apology" or speech.then:
            # There is no voice left to say it with.
            self._out.append(ev.HangUp(speech.then or "error"))
        elif not speech.audible:
            self._after_clear = self._apologise
            self._stop_speaking()
        else:
            clause.heard = ""
            self._check_over(now_ns)

    def _on_first_sent(self, event: ev.FirstSent, now_ns: int) -> None:
        speech = self._speech
        if speech is None or not speech.is_first(event.clause_no):
            return
        speech.audible = True
        speech.began_ns = now_ns
        if self._account is not None and not self._account.first_sent:
            self._account.first_sent = now_ns
        self._turn(TurnEvent.REPLY_AUDIBLE)

    def _on_playout_finished(self, event: ev.PlayoutFinished, now_ns: int) -> None:
        clause = self._clause(event.clause_no)
        if clause is None or clause.heard is not None:
            return
        clause.heard = clause.text
        if self._account is not None and self._is_first_of_turn(event.clause_no) and clause.samples:
            # The mark comes at the end of the clause; its beginning was heard that much earlier.
            self._account.first_heard = now_ns - clause.samples * 1_000_000_000 // self._rate_hz
        self._check_over(now_ns)

    def _check_over(self, now_ns: int) -> None:
        speech = self._speech
        if speech is None or not speech.is_over():
            return
        self._settle(speech, now_ns, interrupted=False)
        if speech.then:
            self._out.append(ev.HangUp(speech.then))
            return
        self._floor_is_free(now_ns)

    def _floor_is_free(self, now_ns: int) -> None:
        actions = self._turn(TurnEvent.REPLY_OVER)
        if self.state is not TurnState.LISTENING:
            return
        if self._utterances.is_open():
            # The caller began before the agent had finished.
            self._utterances.adopt()
            self._turn(TurnEvent.SPEECH_STARTED)
        elif self._utterances.has_words_pending():
            self._turn(TurnEvent.SPEECH_STARTED)
            self._turn(TurnEvent.SPEECH_STOPPED)
            self._account = TurnAccount(self._turn_no + 1, speech_end=now_ns, detected=now_ns)
            self._schedule_endpoint(now_ns)
        elif TurnAction.WAIT in actions:
            self._wait(now_ns)

    def _on_playout_cleared(self, event: ev.PlayoutCleared, now_ns: int) -> None:
        speech = self._speech
        if speech is not None:
            unheard = speech.cut(event.heard)
            if speech.audible and not speech.then:
                self._unheard = unheard
            self._settle(speech, now_ns, interrupted=True)
        follow, self._after_clear = self._after_clear, None
        if follow is not None and self.state is not TurnState.ENDED:
            follow(now_ns)

    def _settle(self, speech: AgentSpeech, now_ns: int, *, interrupted: bool) -> None:
        """`speech` is history: write down what was heard of it."""
        self._speech = None
        heard = speech.heard()
        self.history.agent_said(heard)
        if speech.clauses and speech.audible:
            self._segment(
                "agent",
                speech.text(),
                heard,
                (speech.began_ns - self._began_ns) // NS_PER_MS,
                (now_ns - self._began_ns) // NS_PER_MS,
                None,
                interrupted,
            )
        account, self._account = self._account, None
        if account is not None and self._turn_text:
            self._out.append(
                ev.RecordTurn(
                    account.turn_no,
                    account.latency_ms(),
                    account.stages_ms(),
                    interrupted,
                    self._turn_text,
                    speech.text(),
                    *self._tokens,
                )
            )
            self._turn_text = ""

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────

    def _on_stream_ended(self, event: ev.StreamEnded, now_ns: int) -> None:
        if self.state is TurnState.ENDED:
            return
        for name in ("endpoint", "final", "idle", "opening", "digits", "max_duration"):
            self._cancel_timer(name)
        self._turn(TurnEvent.CALL_ENDED)
        number = self._utterances.stop((now_ns - self._began_ns) // NS_PER_MS)
        if number is not None:
            self._out.append(ev.CommitUtterance(number))
        elif self._utterances.is_settled():
            self._record_caller()
        self._stop_speaking()

    def is_awaiting_final(self) -> bool:
        """Words of the caller are still with the recogniser."""
        return not self._utterances.is_settled()

    # ── small things ──────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self, event: TurnEvent) -> tuple[TurnAction, ...]:
        self.state, actions = transition(self.state, event)
        return actions

    def _wait(self, now_ns: int) -> None:
        self._set_timer("idle", now_ns + self._settings.limits.idle_timeout_ms * NS_PER_MS)

    def _set_timer(self, name: str, due_ns: int) -> None:
        self._out.append(ev.SetTimer(name, due_ns))

    def _cancel_timer(self, name: str) -> None:
        self._out.append(ev.CancelTimer(name))

    def _record_caller(self) -> None:
        for one in self._utterances.take():
            if one.text:
                self._segment("caller", one.text, one.text, one.start_ms, one.end_ms, one.confidence, False)

    def _segment(
        self, speaker: str, text: str, heard: str, start_ms: int, end_ms: int, confidence: float | None, cut: bool
    ) -> None:
        self._segment_no += 1
        self._out.append(
            ev.RecordSegment(self._segment_no, speaker, text, heard, start_ms, max(start_ms, end_ms), confidence, cut)
        )


_PUNCTUATION = re.compile(r"[^\w\s]")


def _normalised(text: str) -> str:
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


_STEPS: dict[type[Any], Callable[[Conversation, Any, int], None]] = {
    ev.CallBegan: Conversation._on_call_began,
    ev.StreamResumed: Conversation._on_stream_resumed,
    ev.SpeechStarted: Conversation._on_speech_started,
    ev.SpeechConfirmed: Conversation._on_speech_confirmed,
    ev.SpeechStopped: Conversation._on_speech_stopped,
    ev.TranscriptInterim: Conversation._on_interim,
    ev.TranscriptFinal: Conversation._on_final,
    ev.TranscriberFailed: Conversation._on_transcriber_failed,
    ev.ReplyText: Conversation._on_reply_text,
    ev.ReplyTool: Conversation._on_reply_tool,
    ev.ReplyDone: Conversation._on_reply_done,
    ev.ReplyFailed: Conversation._on_reply_failed,
    ev.SpeechRequested: Conversation._on_speech_requested,
    ev.SpeechFirstByte: Conversation._on_first_byte,
    ev.SpeechRendered: Conversation._on_rendered,
    ev.SpeechFailed: Conversation._on_speech_failed,
    ev.FirstSent: Conversation._on_first_sent,
    ev.PlayoutFinished: Conversation._on_playout_finished,
    ev.PlayoutCleared: Conversation._on_playout_cleared,
    ev.DigitReceived: Conversation._on_digit,
    ev.TimerFired: Conversation._on_timer,
    ev.StreamEnded: Conversation._on_stream_ended,
}
