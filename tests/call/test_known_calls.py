"""What is remembered of calls: the open ones, and of those that ended the last thousand."""

from __future__ import annotations

from server.agent.settings import AgentSettings
from server.call.place import MAX_ENDED_CALLS, MAX_KNOWN_CALLS, Known, KnownCalls
from server.call.services import CallFacts
from server.dialogue.conversation import Conversation


def add(calls: KnownCalls, name: str) -> Known:
    return calls.add(
        CallFacts(
            call_id=name, carrier="twilio", carrier_call_id=name, from_number="", to_number="", agent_version_id="v"
        )
    )


def test_ended_calls_are_forgotten_and_open_ones_are_not() -> None:
    calls = KnownCalls()
    open_call, resumed = add(calls, "open"), add(calls, "resumed")
    calls.end(resumed, "media_lost")
    resumed.ended.clear()
    for n in range(MAX_ENDED_CALLS + 500):
        calls.end(add(calls, f"{n}"), "caller_hung_up")
    assert calls.get("open") is open_call and calls.get("resumed") is resumed
    assert calls.get("499") is None
    last = calls.get("500")
    assert last is not None and last.end_reason == "caller_hung_up" and last.ended.is_set()
    assert len(calls) == MAX_ENDED_CALLS + 2
    # The one that went on ends as others do, later.
    calls.end(resumed, "agent_hung_up")
    assert calls.get("resumed") is resumed and calls.get("500") is None


def test_a_call_that_ends_twice_takes_one_place() -> None:
    calls = KnownCalls()
    known = add(calls, "x")
    for _ in range(2 * MAX_ENDED_CALLS):
        calls.end(known, "media_lost")
    assert calls.get("x") is known and len(calls) == 1


def test_the_oldest_open_call_is_forgotten_when_there_are_too_many() -> None:
    calls = KnownCalls()
    for n in range(MAX_KNOWN_CALLS + 1):
        add(calls, f"{n}")
    assert len(calls) == MAX_KNOWN_CALLS
    assert calls.get("0") is None and calls.get("1") is not None


def test_what_was_said_is_kept_for_a_second_stream_for_a_while() -> None:
    calls = KnownCalls()
    first, again = add(calls, "first"), add(calls, "again")
    said = Conversation(AgentSettings.parse({}), 8000)
    calls.keep(first, said, 60.0)
    calls.keep(again, said, 60.0)
    calls.keep(again, said, 90.0)  # its second stream was promised
    calls.forget(59.9)
    assert first.conversation is said and again.conversation is said
    calls.forget(60.0)
    assert first.conversation is None and again.conversation is said
    calls.forget(90.0)
    assert again.conversation is None
