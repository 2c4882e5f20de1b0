"""Who has the floor, as a table.

    ┌────────────► LISTENING ◄──────────────┐
    │ empty turn      │ speech               │ playout finished
ENDPOINTING ◄── CALLER_SPEAKING ◄── barge-in ┤
    │ turn taken  ▲       ▲                  │
    └──────► THINKING ────┴──────► AGENT_SPEAKING ──► ENDED
                 caller goes on
"""

from __future__ import annotations

from enum import Enum


class TurnState(Enum):
    LISTENING = "listening"
    CALLER_SPEAKING = "caller_speaking"
    ENDPOINTING = "endpointing"
    THINKING = "thinking"
    AGENT_SPEAKING = "agent_speaking"
    ENDED = "ended"


class TurnEvent(Enum):
    SPEECH_STARTED = "speech_started"  # the VAD opened a talkspurt
    SPEECH_CONFIRMED = "speech_confirmed"  # it has lasted long enough to take the floor
    SPEECH_STOPPED = "speech_stopped"  # it closed, hangover included
    TURN_TAKEN = "turn_taken"  # endpointing is over and there are words
    TURN_EMPTY = "turn_empty"  # endpointing is over and nothing was understood
    AGENT_BEGINS = "agent_begins"  # something is about to be spoken that answers no turn
    REPLY_AUDIBLE = "reply_audible"  # the first sample of the reply was sent
    REPLY_OVER = "reply_over"  # all of it was played, or nothing will come
    CALL_ENDED = "call_ended"


class TurnAction(Enum):
    BEGIN_UTTERANCE = "begin_utterance"
    RESUME_UTTERANCE = "resume_utterance"
    COMMIT_UTTERANCE = "commit_utterance"
    ANSWER = "answer"
    TAKE_BACK = "take_back"  # the reply has not been heard: cancel it, the caller's words go on
    INTERRUPT = "interrupt"  # the reply is being heard: clear it, keep what was heard
    WAIT = "wait"  # the floor is free: start the idle timer
    CLOSE = "close"


S = TurnState
E = TurnEvent
A = TurnAction

TRANSITIONS: dict[TurnState, dict[TurnEvent, tuple[TurnState, tuple[TurnAction, ...]]]] = {
    S.LISTENING: {
        E.SPEECH_STARTED: (S.CALLER_SPEAKING, (A.BEGIN_UTTERANCE,)),
        E.AGENT_BEGINS: (S.THINKING, ()),
        E.TURN_TAKEN: (S.THINKING, (A.ANSWER,)),  # digits keyed while nobody speaks
        E.CALL_ENDED: (S.ENDED, (A.CLOSE,)),
    },
    S.CALLER_SPEAKING: {
        E.SPEECH_STOPPED: (S.ENDPOINTING, (A.COMMIT_UTTERANCE,)),
        E.TURN_TAKEN: (S.THINKING, (A.ANSWER,)),  # digits keyed while something is said
        # The caller barged in, and what was still queued of the reply is gone.
        E.REPLY_OVER: (S.CALLER_SPEAKING, ()),
        E.AGENT_BEGINS: (S.THINKING, ()),
        E.CALL_ENDED: (S.ENDED, (A.CLOSE,)),
    },
    S.ENDPOINTING: {
        # The same utterance goes on: the recogniser gets the pause and what follows as one piece.
        E.SPEECH_STARTED: (S.CALLER_SPEAKING, (A.RESUME_UTTERANCE,)),
        E.TURN_TAKEN: (S.THINKING, (A.ANSWER,)),
        E.TURN_EMPTY: (S.LISTENING, (A.WAIT,)),
        E.AGENT_BEGINS: (S.THINKING, ()),
        E.CALL_ENDED: (S.ENDED, (A.CLOSE,)),
    },
    S.THINKING: {
        E.SPEECH_STARTED: (S.THINKING, (A.BEGIN_UTTERANCE,)),
        # Nothing of the answer was heard yet, so the caller simply has not finished.
        E.SPEECH_CONFIRMED: (S.CALLER_SPEAKING, (A.TAKE_BACK,)),
        E.SPEECH_STOPPED: (S.THINKING, (A.COMMIT_UTTERANCE,)),
        E.TURN_TAKEN: (S.THINKING, (A.ANSWER,)),
        E.REPLY_AUDIBLE: (S.AGENT_SPEAKING, ()),
        E.REPLY_OVER: (S.LISTENING, (A.WAIT,)),
        E.AGENT_BEGINS: (S.THINKING, ()),
        E.CALL_ENDED: (S.ENDED, (A.CLOSE,)),
    },
    S.AGENT_SPEAKING: {
        E.SPEECH_STARTED: (S.AGENT_SPEAKING, (A.BEGIN_UTTERANCE,)),
        # Barge-in: the caller wins the floor.
        E.SPEECH_CONFIRMED: (S.CALLER_SPEAKING, (A.INTERRUPT,)),
        E.SPEECH_STOPPED: (S.AGENT_SPEAKING, (A.COMMIT_UTTERANCE,)),
        E.TURN_TAKEN: (S.THINKING, (A.ANSWER,)),
        E.REPLY_AUDIBLE: (S.AGENT_SPEAKING, ()),
        E.REPLY_OVER: (S.LISTENING, (A.WAIT,)),
        E.AGENT_BEGINS: (S.AGENT_SPEAKING, ()),
        E.CALL_ENDED: (S.ENDED, (A.CLOSE,)),
    },
    S.ENDED: {},
}

# Events without a row above that may come all the same, and why they change nothing.
IGNORED: dict[TurnState, frozenset[TurnEvent]] = {
    # A talkspurt that began before the state was entered goes on or ends.
    S.LISTENING: frozenset({E.SPEECH_CONFIRMED, E.SPEECH_STOPPED, E.REPLY_OVER, E.TURN_EMPTY}),
    S.CALLER_SPEAKING: frozenset({E.SPEECH_STARTED, E.SPEECH_CONFIRMED, E.TURN_EMPTY}),
    S.ENDPOINTING: frozenset({E.SPEECH_CONFIRMED, E.SPEECH_STOPPED, E.REPLY_OVER}),
    # The final of a short talkspurt beside the answer decides nothing.
    S.THINKING: frozenset({E.TURN_EMPTY}),
    S.AGENT_SPEAKING: frozenset({E.TURN_EMPTY}),
    # The line is gone; what was on its way arrives nowhere.
    S.ENDED: frozenset(TurnEvent),
}


class UnexpectedEvent(ValueError):
    """The table has no such row: a bug in whoever fed the event."""


def transition(state: TurnState, event: TurnEvent) -> tuple[TurnState, tuple[TurnAction, ...]]:
    """Next state and what to do. Raises UnexpectedEvent for a pair that is neither listed nor ignored."""
    row = TRANSITIONS[state].get(event)
    if row is not None:
        return row
    if event in IGNORED[state]:
        return state, ()
    raise UnexpectedEvent(f"{event.value} in state {state.value}")
