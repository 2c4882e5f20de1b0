"""All state of one conversation, and the few things that every part of the step does to it.

Invariant: at most one AgentSpeech exists; history holds only what was heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from providers.base import ToolCall
from server.agent.settings import AgentSettings
from server.dialogue import event as ev
from server.dialogue.account import TurnAccount
from server.dialogue.history import History
from server.dialogue.speech import AgentSpeech, Clause
from server.dialogue.utterance import Utterances
from server.turn.machine import TurnAction, TurnEvent, TurnState, transition

NS_PER_MS = 1_000_000
TIMERS = ("endpoint", "final", "idle", "opening", "digits", "max_duration", "filler", "owed")


@dataclass(slots=True)
class State:
    """`out` collects the actions of the step that is being made."""

    settings: AgentSettings
    rate_hz: int
    turn_state: TurnState = TurnState.LISTENING
    history: History = field(default_factory=History)
    utterances: Utterances = field(default_factory=Utterances)
    speech: AgentSpeech | None = None
    account: TurnAccount | None = None
    out: list[ev.Action] = field(default_factory=list)
    # What follows a ClearPlayout, once it is known how much was heard.
    after_clear: Callable[[State, int], None] | None = None
    # The rest of an interrupted speech, to be said if the interruption meant nothing.
    unheard: str = ""
    turn_text: str = ""
    # What the reply asks for, each with whether it fits, where that is known already.
    tools: list[tuple[ToolCall, bool | None]] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    model_provider: str = ""
    digits: str = ""
    began_ns: int = 0
    media_offset_ms: int = 0
    clause_no: int = 0
    reply_no: int = 0
    segment_no: int = 0
    turn_no: int = 0
    idle_count: int = 0
    failures: int = 0
    filler_no: int = 0
    # The call is being put through; `was_handed_over`: that was tried once.
    is_leaving: bool = False
    was_handed_over: bool = False
    tool_rounds: int = 0
    tool_no: int = 0
    # Tools at work: their number -> the id of the call in the history.
    running: dict[int, str] = field(default_factory=dict)
    # What tools gave has not been put to the model.
    has_results: bool = False
    tool_filler: str = ""
    tool_wait_ms: int = 0

    def turn(self, event: TurnEvent) -> tuple[TurnAction, ...]:
        self.turn_state, actions = transition(self.turn_state, event)
        return actions

    def do(self, action: ev.Action) -> None:
        self.out.append(action)

    def set_timer(self, name: str, due_ns: int) -> None:
        self.out.append(ev.SetTimer(name, due_ns))

    def cancel_timers(self, *names: str) -> None:
        self.out.extend(ev.CancelTimer(name) for name in names)

    def since_began_ms(self, now_ns: int) -> int:
        return (now_ns - self.began_ns) // NS_PER_MS

    def reply(self, reply_no: int) -> AgentSpeech | None:
        """The reply `reply_no` while the model still writes it."""
        speech = self.speech
        return speech if speech is not None and speech.reply_no == reply_no and not speech.complete else None

    def clause(self, clause_no: int) -> Clause | None:
        return self.speech.clause(clause_no) if self.speech is not None else None

    def account_of_first(self, clause_no: int) -> TurnAccount | None:
        """The account of the turn that `clause_no` is the first sound of."""
        return self.account if self.speech is not None and self.speech.is_first(clause_no) else None

    def record(
        self,
        speaker: str,
        text: str,
        heard: str,
        start_ms: int,
        end_ms: int,
        confidence: float | None = None,
        *,
        interrupted: bool = False,
    ) -> None:
        self.segment_no += 1
        end_ms = max(start_ms, end_ms)
        self.do(ev.RecordSegment(self.segment_no, speaker, text, heard, start_ms, end_ms, confidence, interrupted))

    def record_caller(self) -> None:
        """Put the caller's settled utterances on record and start anew."""
        for one in self.utterances.take():
            if one.text:
                self.record("caller", one.text, one.text, one.start_ms, one.end_ms, one.confidence)
