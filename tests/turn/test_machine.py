"""The turn table: complete, connected, and refusing what it does not know."""

from __future__ import annotations

import pytest

from server.turn.machine import IGNORED, TRANSITIONS, TurnAction, TurnEvent, TurnState, UnexpectedEvent, transition


def test_every_state_is_listed_and_can_reach_the_end() -> None:
    assert set(TRANSITIONS) == set(IGNORED) == set(TurnState)
    for start in TurnState:
        reached = {start}
        while True:
            more = {row[0] for state in reached for row in TRANSITIONS[state].values()} - reached
            if not more:
                break
            reached |= more
        assert TurnState.ENDED in reached


def test_every_state_can_be_entered() -> None:
    entered = {row[0] for rows in TRANSITIONS.values() for row in rows.values()}
    assert entered == set(TurnState)


@pytest.mark.parametrize("state", TurnState)
def test_nothing_is_both_listed_and_ignored(state: TurnState) -> None:
    assert not set(TRANSITIONS[state]) & IGNORED[state]


def test_unlisted_event_is_an_error_and_ended_takes_anything() -> None:
    with pytest.raises(UnexpectedEvent, match="speech_started"):
        missing = {**TRANSITIONS[TurnState.LISTENING]}
        del TRANSITIONS[TurnState.LISTENING][TurnEvent.SPEECH_STARTED]
        try:
            transition(TurnState.LISTENING, TurnEvent.SPEECH_STARTED)
        finally:
            TRANSITIONS[TurnState.LISTENING] = missing
    for event in TurnEvent:
        assert transition(TurnState.ENDED, event) == (TurnState.ENDED, ())


def test_the_caller_always_wins_the_floor() -> None:
    state, actions = transition(TurnState.AGENT_SPEAKING, TurnEvent.SPEECH_CONFIRMED)
    assert (state, actions) == (TurnState.CALLER_SPEAKING, (TurnAction.INTERRUPT,))
