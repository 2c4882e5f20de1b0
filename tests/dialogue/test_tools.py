"""Tools in the pure step: checked, carried out once, answered, whatever the caller does meanwhile."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from bench.sim.openai.check import check_chat
from bench.sim.openai.flavour import Flavour, Model
from providers.openai.body import messages
from server.agent.settings import AgentSettings
from server.dialogue import event as ev
from server.dialogue.asking import TOOL_FILLER_MS
from server.dialogue.history import MAX_MESSAGES
from server.dialogue.tooling import MAX_A_CALL, MAX_AT_ONCE, MAX_RESULT_CHARS, MAX_ROUNDS, RUNNING
from tests.dialogue.driver import BASE, Driver

PRICE: dict[str, Any] = {
    "name": "find_price",
    "url": "https://tools.example/price",
    "parameters": {
        "type": "object",
        "properties": {"item": {"type": "string", "maxLength": 20}, "count": {"type": "integer", "maximum": 9}},
        "required": ["item"],
        "additionalProperties": False,
    },
    "timeout_ms": 4000,
    "filler": "Let me look that up.",
}
ASK = '{"item": "lamp"}'


def driver(**more: Any) -> Driver:
    one = Driver(tools=[{**PRICE, **more}])
    one.begin()
    return one


def asks(d: Driver, *arguments: str, words: str = "", name: str = "find_price") -> list[ev.Action]:
    """The model's reply: words, then a call of the tool for each of `arguments`."""
    number = d.reply_no
    done = d.feed(ev.ReplyText(number, words)) if words else []
    for at, one in enumerate(arguments):
        done += d.feed(ev.ReplyTool(number, f"id-{number}-{at}", name, one))
    return done + d.feed(ev.ReplyDone(number, "tool_calls", 10, 5))


def invoked(d: Driver) -> list[ev.InvokeTool]:
    return [one for one in d.actions if isinstance(one, ev.InvokeTool)]


def requests(d: Driver) -> int:
    return sum(isinstance(one, ev.RequestReply) for one in d.actions)


def check_history(d: Driver) -> None:
    """Raises Refusal where OpenAI would refuse what it is asked next."""
    told = [{"role": "system", "content": "Be brief."}, *messages(d.talk.history.messages())]
    check_chat({"model": "m", "messages": told}, Flavour.OPENAI, Model("m", context_tokens=10**9))
    for one in told:
        assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in one.get("tool_calls", ()))


def result_of(d: Driver) -> str:
    return next(text for role, text in reversed(d.history()) if role == "tool")


def test_a_tool_is_called_and_its_result_is_answered() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    assert invoked(d) == [ev.InvokeTool(1, "find_price", json.dumps({"item": "lamp"}))]
    assert (result_of(d), requests(d)) == (RUNNING, 1)
    d.feed(ev.ToolFinished(1, '{"price": 12}'))
    assert (result_of(d), requests(d)) == ('{"price": 12}', 2)
    d.replies("Twelve euros.")
    d.play_all()
    assert d.history()[-4:] == [
        ("user", "What is a lamp?"), ("assistant", ""), ("tool", '{"price": 12}'), ("assistant", "Twelve euros."),
    ]  # fmt: skip
    assert d.turns()[-1].agent_text == "Twelve euros."


def test_the_model_is_told_of_the_tools_of_its_agent() -> None:
    names = {one.name: one.parameters for one in driver().talk.request().tools}
    assert names["find_price"] == PRICE["parameters"] and "end_call" in names


@pytest.mark.parametrize(
    "arguments, wrong",
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "'item' is a required property"),
        ('{"item": 3}', "item: 3 is not of type 'string'"),
        ('{"item": "a", "count": 10}', "count: 10 is greater"),
        ('{"item": "a", "url": "https://evil"}', "url"),
        ('{"item": "' + "a" * 4000 + '"}', "too long"),
        ("[" * 3000, "not JSON"),
        ('{"item": ' * 200 + "1" + "}" * 200, "item: {"),
        ('{"item": ' * 390 + "1" + "}" * 390, "too deep"),
        ('{"item": "\\ud800"}', "no text"),
        ('{"item": "a", "count": 1e999}', "not JSON"),
        ('{"item": "a", "count": NaN}', "not JSON"),
        ('{"item": "a", "count": ' + "9" * 400 + "}", "too large"),
    ],
)
def test_what_does_not_fit_the_schema_is_not_done_and_the_model_may_mend_it(arguments: str, wrong: str) -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, arguments)
    assert invoked(d) == []
    assert result_of(d).startswith("error: ") and any(part in result_of(d) for part in wrong.split("|"))
    assert requests(d) == 2
    asks(d, ASK)
    assert len(invoked(d)) == 1


def test_a_tool_that_the_agent_has_not_is_not_called() -> None:
    d = driver()
    d.speaks("Delete everything.")
    d.wait(500)
    asks(d, "{}", name="drop_tables")
    assert invoked(d) == []
    assert result_of(d) == "error: there is no tool named drop_tables"


def test_rounds_calls_at_once_and_calls_in_all_are_bounded() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, *[ASK] * (MAX_AT_ONCE + 2))
    assert len(invoked(d)) == MAX_AT_ONCE
    for at in range(MAX_AT_ONCE):
        assert requests(d) == 1
        d.feed(ev.ToolFinished(at + 1, "ok"))
    for _ in range(MAX_ROUNDS - 1):
        asks(d, ASK)
        d.feed(ev.ToolFinished(len(invoked(d)), "ok"))
    asks(d, ASK)
    assert len(invoked(d)) == MAX_AT_ONCE + MAX_ROUNDS - 1
    assert d.said()[-1] == "Sorry, something went wrong."
    d.play_all()
    while len(invoked(d)) < MAX_A_CALL:
        before = len(invoked(d))
        d.speaks("And a table?")
        d.wait(500)
        asks(d, ASK)
        assert len(invoked(d)) == before + 1
        d.feed(ev.ToolFinished(before + 1, "ok"))
        d.replies("Ten.")
        d.play_all()
    d.speaks("And a table?")
    d.wait(500)
    asks(d, ASK)
    assert len(invoked(d)) == MAX_A_CALL
    assert result_of(d) == "error: no more tools in this conversation"


def test_a_long_result_is_cut() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.feed(ev.ToolFinished(1, "x" * 9000))
    assert len(result_of(d)) == MAX_RESULT_CHARS


def test_a_filler_is_said_while_it_works_and_the_answer_comes_after_it() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    assert not [one for one in d.wait(TOOL_FILLER_MS - 1) if isinstance(one, ev.Interject)]
    [filler] = [one for one in d.wait(1) if isinstance(one, ev.Interject)]
    assert filler.text == "Let me look that up."
    d.feed(ev.FirstSent(filler.clause_no))
    d.feed(ev.ToolFinished(1, "12"))
    assert requests(d) == 2
    d.replies("Twelve euros.")
    d.play_all()
    assert d.history()[-1] == ("assistant", "Let me look that up. Twelve euros.")


def test_a_tool_that_never_comes_back_is_apologised_for_after_its_deadline() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.wait(PRICE["timeout_ms"])
    assert d.said()[-1] != "Sorry, something went wrong."
    d.wait(1501)
    assert d.said()[-1] == "Sorry, something went wrong."
    d.play_all()
    d.feed(ev.ToolFinished(1, "12"))  # late, and not lost
    assert result_of(d) == "12" and requests(d) == 2


def test_words_before_the_tool_are_heard_and_stand_before_it() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK, words="I will look. ")
    assert len(invoked(d)) == 1
    d.feed(ev.ToolFinished(1, "12"))
    assert requests(d) == 1  # the words are still being said
    d.play_all()
    assert requests(d) == 2
    assert d.history()[-3:] == [("assistant", "I will look."), ("assistant", ""), ("tool", "12")]
    d.replies("Twelve euros.")
    d.play_all()
    assert d.history()[-1] == ("assistant", "Twelve euros.")


def test_words_that_end_first_wait_for_the_tool() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK, words="I will look. ")
    d.play_all()
    assert requests(d) == 1
    d.wait(TOOL_FILLER_MS)
    assert any(isinstance(one, ev.Interject) for one in d.actions)
    d.feed(ev.ToolFinished(1, "12"))
    assert requests(d) == 2


def test_a_caller_who_goes_on_while_it_works_gets_one_answer_to_both() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.speaks("In red, please.")
    d.wait(500)
    assert requests(d) == 1  # the answer waits for the tool
    d.feed(ev.ToolFinished(1, "12"))
    assert requests(d) == 2
    assert d.history()[-4:] == [
        ("user", "What is a lamp?"), ("assistant", ""), ("tool", "12"), ("user", "In red, please."),
    ]  # fmt: skip
    assert len(invoked(d)) == 1


def test_a_tool_that_works_when_the_caller_hangs_up_stays_done() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.feed(ev.StreamEnded("caller_hung_up"))
    before = requests(d)
    d.feed(ev.ToolFinished(1, "12"))
    assert requests(d) == before and result_of(d) == "12"


def _interruptions(d: Driver) -> list[list[ev.Event]]:
    """What a caller may do at any instant."""
    at_ms = d.now_ns // 1_000_000
    return [
        [ev.SpeechStarted(at_ms), ev.SpeechConfirmed()],
        [ev.SpeechStarted(at_ms), ev.SpeechStopped(at_ms, at_ms + 60, d.now_ns)],
        [ev.DigitReceived("5"), ev.DigitReceived("#")],
        [ev.StreamEnded("caller_hung_up")],
        [ev.StreamResumed()],
    ]


def _script() -> list[ev.Event | str]:
    """Every event of a turn with a tool, in order; text is a word to the driver."""
    return [
        "turn",
        ev.ReplyText(1, "I will look. "),
        ev.ReplyTool(1, "id", "find_price", ASK),
        ev.ReplyDone(1, "tool_calls", 10, 5),
        ev.FirstSent(2),
        ev.SpeechRendered(2, 8000),
        ev.PlayoutFinished(2, True),
        ev.ToolFinished(1, "12"),
        ev.ReplyText(2, "Twelve euros."),
        ev.ReplyDone(2, "stop", 10, 5),
    ]


PLACES = len(_script())
FINISHED = next(at for at, one in enumerate(_script()) if isinstance(one, ev.ToolFinished))


@pytest.mark.parametrize("place, kind", [*itertools.product(range(1, PLACES + 1), range(5))])
def test_interrupted_at_any_point_it_is_done_once_and_its_result_is_kept(place: int, kind: int) -> None:
    d = driver()
    script = _script()
    for at, one in enumerate([*script, None]):
        if at == place:
            for event in _interruptions(d)[kind]:
                d.feed(event)
        if one == "turn":
            d.speaks("What is a lamp?")
            d.wait(500)
        elif one is not None and not isinstance(one, str):
            d.feed(one)
    check_history(d)
    # The model's words were cut off before it asked for the tool, or the tool was called; never twice.
    calls = invoked(d)
    assert len(calls) == (1 if place > 3 or kind == 1 else 0)
    if calls:
        assert "12" in [text for role, text in d.history() if role == "tool"]


def test_the_history_is_accepted_whatever_the_model_called() -> None:
    d = driver()
    for turn in range(12):
        d.speaks("Go ahead.")
        d.wait(500)
        for _ in range(MAX_ROUNDS):
            asks(d, *["{"] * 32, name="such a name" if turn % 2 else "x" * 99)
            check_history(d)
        d.replies("No.")
        d.play_all()
    assert len(d.history()) <= MAX_MESSAGES and invoked(d) == []


def test_two_calls_with_one_id_get_a_result_each() -> None:
    d = driver()
    d.speaks("What are a lamp and a table?")
    d.wait(500)
    number = d.reply_no
    for _ in range(2):
        d.feed(ev.ReplyTool(number, "call_1", "find_price", ASK))
    d.feed(ev.ReplyDone(number, "tool_calls", 10, 5))
    d.feed(ev.ToolFinished(2, "two"))
    d.feed(ev.ToolFinished(1, "one"))
    assert [text for role, text in d.history() if role == "tool"] == ["one", "two"]
    check_history(d)


def test_a_service_that_makes_long_ids_gets_short_ones_back() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    d.feed(ev.ReplyTool(d.reply_no, "i" * 41, "find_price", ASK), ev.ReplyDone(d.reply_no, "tool_calls", 10, 5))
    d.feed(ev.ToolFinished(1, "12"))
    assert result_of(d) == "12"
    check_history(d)


def test_words_of_a_second_round_stand_after_the_first() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.feed(ev.ToolFinished(1, "12"))
    asks(d, ASK, words="One moment. ")
    d.play_all()
    assert [role for role, _ in d.history()[-5:]] == ["assistant", "tool", "assistant", "assistant", "tool"]
    assert d.history()[-3] == ("assistant", "One moment.")


def test_a_noise_does_not_lose_the_answer_to_what_a_tool_gave() -> None:
    d = driver()
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.feed(ev.ToolFinished(1, "12"))
    assert requests(d) == 2
    d.speaks("")  # a cough, before anything of the answer is heard
    d.wait(2000)
    assert requests(d) == 3
    d.replies("Twelve euros.")
    d.play_all()
    assert d.history()[-1] == ("assistant", "Twelve euros.")


def test_what_a_tool_gave_is_answered_when_the_line_comes_back_and_nothing_is_left_to_say() -> None:
    d = driver()
    d.talk._state.settings = AgentSettings.parse({**BASE, "opening": {"mode": "listen", "text": ""}, "tools": [PRICE]})
    d.speaks("What is a lamp?")
    d.wait(500)
    asks(d, ASK)
    d.feed(ev.StreamEnded("media_lost"), ev.ToolFinished(1, "12"))
    assert requests(d) == 1
    d.feed(ev.StreamResumed())
    assert requests(d) == 2


@pytest.mark.parametrize("arguments, hangs_up", [(ASK, True), ("{", False)])
def test_a_call_that_was_refused_is_mended_before_the_model_hangs_up(arguments: str, hangs_up: bool) -> None:
    d = driver()
    d.speaks("A lamp, and that is all.")
    d.wait(500)
    d.feed(ev.ReplyTool(d.reply_no, "end", "end_call", "{}"))
    asks(d, arguments)
    assert (d.said()[-1] == "Goodbye!", requests(d)) == ((True, 1) if hangs_up else (False, 2))
    assert len(invoked(d)) == hangs_up


def test_a_schema_goes_out_with_its_type() -> None:
    d = driver(parameters={"properties": {"item": {}}})
    [own] = [one.parameters for one in d.talk.request().tools if one.name == "find_price"]
    assert own == {"type": "object", "properties": {"item": {}}}


def test_a_hostile_model_does_nothing_that_is_not_allowed() -> None:
    """Thousands of calls of the worst kind: nothing is done but what fits the schema of a tool that is there."""
    worst = ["{", "null", '{"item": null}', '{"item": "x", "count": 1e9}', '{"__proto__": 1}', ASK, '"x"', "9" * 5000]
    names = ["find_price", "end_call ", "FIND_PRICE", "find_price\0", "../find_price", "", "x" * 9999]
    done = 0
    for seed in range(60):
        d = driver()
        for turn in range(12):
            d.speaks("Go ahead.")
            d.wait(500)
            for round_no in range(5):
                at = seed * 7 + turn * 3 + round_no
                if d.talk.state.value != "thinking":
                    break
                asks(d, worst[at % len(worst)], worst[(at + 3) % len(worst)], name=names[at % len(names)])
                for one in invoked(d):
                    d.feed(ev.ToolFinished(one.tool_no, "ok"))
                check_history(d)
            d.play_all()
        assert len(invoked(d)) <= MAX_A_CALL
        assert {(one.name, one.arguments) for one in invoked(d)} <= {("find_price", ASK)}
        done += len(invoked(d))
    assert done > 60  # it was let in
