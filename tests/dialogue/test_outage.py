"""Ears and voice that go out in a turn: no long silence, no sentence lost, and in the end somebody else."""

from __future__ import annotations

from server.dialogue import event as ev
from server.dialogue.floor import MAX_FAILURES
from server.turn.machine import TurnState
from tests.dialogue.driver import BASE, MS, Driver

PERSON = "+15550142"
APOLOGY = BASE["limits"]["apology"]
LIMITS = {**BASE["limits"], "fallback_number": PERSON, "hand_over": "I put you through."}


def speaks_to_deaf_ears(driver: Driver) -> int:
    """The caller says something of which nothing comes back; returns the instant of the last sample."""
    start = driver.now_ns // MS
    driver.feed(ev.SpeechStarted(start))
    driver.wait(1000)
    end_ns = driver.now_ns
    driver.wait(200)
    driver.feed(ev.SpeechStopped(start, end_ns // MS, end_ns))
    return end_ns


def waits_for_words(driver: Driver, since_ns: int) -> float:
    """How long after `since_ns` the agent says something more, in ms; at most 6,000."""
    said = len(driver.said())
    while len(driver.said()) == said and driver.now_ns - since_ns < 6_000 * MS:
        driver.wait(50)
    return (driver.now_ns - since_ns) / MS


def test_a_caller_of_deaf_ears_is_told_in_time_and_answered_when_they_are_back() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    ended_ns = speaks_to_deaf_ears(driver)
    assert waits_for_words(driver, ended_ns) <= 4_600 and driver.said()[-1] == APOLOGY
    # The ears are open again: the sentence is understood while the agent apologises.
    driver.final("When are you open?")
    driver.play_all()
    driver.wait(1000)
    assert driver.history()[-1] == ("user", "When are you open?")
    assert ("caller", "When are you open?") in driver.segments()
    driver.replies("From nine to six.")
    driver.play_all()
    assert driver.talk.state is TurnState.LISTENING and driver.history()[-1] == ("assistant", "From nine to six.")


def test_what_is_said_meanwhile_is_one_turn_with_what_was_said_before() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    waits_for_words(driver, speaks_to_deaf_ears(driver))
    driver.play_all()
    speaks_to_deaf_ears(driver)
    assert [one for one in driver.actions if isinstance(one, ev.ResumeUtterance)] == [ev.ResumeUtterance(1)]
    driver.final("When are you open? On Friday?")
    driver.wait(1000)
    assert driver.history()[-1] == ("user", "When are you open? On Friday?")


def test_ears_that_stay_out_lead_to_somebody_else() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    since_ns = speaks_to_deaf_ears(driver)
    for number in range(MAX_FAILURES):
        assert waits_for_words(driver, since_ns) <= 5_000, number
        driver.play_all()
        since_ns = driver.now_ns
    assert driver.said()[-1] == "I put you through."
    assert [one for one in driver.actions if isinstance(one, ev.HandOver)] == [ev.HandOver(PERSON)]


def test_interim_words_stand_when_their_final_is_late() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    speaks_to_deaf_ears(driver)
    driver.feed(ev.TranscriptInterim(driver.utterance_no, "When are you open"))
    driver.wait(3500)
    assert driver.history()[-1] == ("user", "When are you open") and APOLOGY not in driver.said()


def answers(driver: Driver) -> None:
    driver.speaks("When are you open?")
    driver.wait(500)
    driver.replies("From nine to six on weekdays. ", "On Saturday from ten to two.")


def test_a_voice_that_dies_in_the_middle_of_a_sentence_is_apologised_for() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    answers(driver)
    first = driver.talk.unheard_clauses()[0]
    driver.feed(ev.SpeechRequested(first), ev.SpeechFirstByte(first), ev.FirstSent(first))
    driver.heard = ((first, 4000, 4000),)
    driver.wait(500)
    driver.feed(ev.SpeechFailed(first, "gone"))
    assert driver.said()[-1] == APOLOGY
    driver.play_all()
    assert driver.talk.state is TurnState.LISTENING
    told = [text for role, text in driver.history() if role == "assistant"]
    assert "ten to two" not in " ".join(told), "history holds what was not heard"


def test_a_voice_that_dies_in_each_answer_ends_in_a_hand_over() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    for _ in range(MAX_FAILURES):
        answers(driver)
        first = driver.talk.unheard_clauses()[0]
        driver.feed(ev.SpeechRequested(first), ev.SpeechFirstByte(first), ev.FirstSent(first))
        driver.heard = ((first, 4000, 4000),)
        driver.feed(ev.SpeechFailed(first, "gone"))
        driver.play_all()
    assert [one for one in driver.actions if isinstance(one, ev.HandOver)] == [ev.HandOver(PERSON)]


def test_an_answer_that_was_heard_clears_what_failed_before() -> None:
    driver = Driver(limits=LIMITS)
    driver.begin()
    for _ in range(MAX_FAILURES - 1):
        driver.speaks("Hello?")
        driver.wait(500)
        driver.feed(ev.ReplyFailed(driver.reply_no, "gone"))
        driver.play_all()
    answers(driver)
    driver.play_all()
    driver.speaks("And on Sunday?")
    driver.wait(500)
    driver.feed(ev.ReplyFailed(driver.reply_no, "gone"))
    assert driver.said()[-1] == APOLOGY
