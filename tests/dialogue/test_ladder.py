"""What a caller hears while an answer is owed: a filler, an apology, a goodbye; never nothing, never an error."""

from __future__ import annotations

from typing import Any

import pytest

from server.dialogue import event as ev
from server.dialogue.floor import MAX_FAILURES
from server.turn.machine import TurnState
from tests.dialogue.driver import BASE, Driver

FILLERS = ("One moment.", "Let me see.")


def asked(**limits: Any) -> Driver:
    """A caller who has just asked something; the model has been asked and says nothing yet."""
    driver = Driver(limits={**BASE["limits"], "fillers": FILLERS, **limits})
    driver.begin()
    driver.speaks("When do you open on Saturday?")
    driver.wait(250)
    assert driver.reply_no == 1
    return driver


def fillers(driver: Driver) -> list[str]:
    return [one.text for one in driver.actions if isinstance(one, ev.Interject)]


def test_a_slow_answer_is_bridged_once_and_then_given() -> None:
    driver = asked()
    driver.wait(900)
    assert fillers(driver) == []
    driver.wait(200)
    assert len(fillers(driver)) == 1 and fillers(driver)[0] in FILLERS
    filler = next(one.clause_no for one in driver.actions if isinstance(one, ev.Interject))
    driver.render(filler)
    driver.feed(ev.PlayoutFinished(filler, True))
    driver.wait(1000)
    driver.replies("From ten to two.")
    driver.play_all()
    assert len(fillers(driver)) == 1
    assert driver.history()[-1] == ("assistant", f"{fillers(driver)[0]} From ten to two.")
    turn = driver.turns()[-1]
    # The latency is that of the answer, not of the filler.
    assert turn.latency_ms is not None and turn.latency_ms > 2500
    assert driver.talk.state is TurnState.LISTENING


def test_an_answer_that_is_about_to_be_heard_is_not_bridged() -> None:
    driver = asked()
    driver.feed(ev.ReplyText(1, "From ten to two. "), ev.ReplyDone(1, "stop"))
    clause = driver.talk.unheard_clauses()[0]
    driver.feed(ev.SpeechRequested(clause), ev.SpeechFirstByte(clause))
    driver.wait(3000)
    assert fillers(driver) == []


def test_fillers_take_turns() -> None:
    driver = asked()
    driver.wait(1200)
    driver.replies("Yes.")
    driver.play_all()
    driver.speaks("And on Sunday?")
    driver.wait(1500)
    assert sorted(fillers(driver)) == sorted(FILLERS)


def test_a_filler_without_a_clip_changes_nothing() -> None:
    driver = asked()
    driver.wait(1200)
    filler = next(one.clause_no for one in driver.actions if isinstance(one, ev.Interject))
    driver.feed(ev.SpeechRendered(filler, 0))
    driver.replies("Yes.")
    driver.play_all()
    assert driver.history()[-1] == ("assistant", "Yes.")


def test_an_answer_that_does_not_come_is_given_up_with_an_apology() -> None:
    driver = asked()
    driver.wait(3700)
    assert driver.said() == [BASE["opening"]["text"]]
    driver.wait(400)
    assert driver.said()[-1] == BASE["limits"]["apology"]
    assert any(isinstance(one, ev.CancelReply) for one in driver.actions)
    # What the model says afterwards is nobody's business.
    driver.feed(ev.ReplyText(1, "Too late. "), ev.ReplyDone(1, "stop"))
    driver.play_all()
    assert driver.said()[-1] == BASE["limits"]["apology"]
    assert driver.talk.state is TurnState.LISTENING


def test_dead_air_is_never_longer_than_five_seconds_and_ends_in_a_goodbye() -> None:
    """Nothing ever answers: each turn ends in an apology in time, the third one in the end of the call."""
    driver = asked()
    for number in range(1, MAX_FAILURES + 1):
        began_ns = driver.now_ns
        said = len(driver.said())
        while len(driver.said()) == said:
            driver.wait(100)
            assert driver.now_ns - began_ns < 5_000_000_000, "five seconds of dead air"
        driver.play_all()
        if number < MAX_FAILURES:
            driver.speaks("Hello? Can you hear me?")
            driver.wait(300)
    assert [one for one in driver.actions if isinstance(one, ev.HangUp)] == [ev.HangUp("error")]


@pytest.mark.parametrize("language", ["en-US", "es-ES", "de-DE", "fr-FR", "it-IT", "xx"])
def test_an_agent_without_an_apology_has_one_of_its_language(language: str) -> None:
    driver = Driver(language=language, limits={**BASE["limits"], "apology": ""})
    driver.begin()
    driver.speaks("Hello?")
    driver.wait(300)
    driver.feed(ev.ReplyFailed(1, "Traceback: secret"))
    assert driver.said()[-1] not in ("", BASE["opening"]["text"]) and "Traceback" not in driver.said()[-1]


def test_the_caller_who_goes_on_is_not_talked_over() -> None:
    driver = asked()
    driver.wait(900)
    start = driver.now_ns // 1_000_000
    driver.feed(ev.SpeechStarted(start))
    driver.wait(200)
    driver.feed(ev.SpeechConfirmed())
    driver.wait(5000)
    assert driver.said() == [BASE["opening"]["text"]]
    assert driver.talk.state is TurnState.CALLER_SPEAKING
