"""A call that cannot go on: put through to somebody, or ended with a farewell; once, and by nobody twice."""

from __future__ import annotations

from typing import Any

import pytest

from server.agent import stock
from server.agent.settings import AgentSettings, SettingsError
from server.call.clips import fixed_texts
from server.dialogue import event as ev
from server.dialogue.floor import MAX_FAILURES
from tests.dialogue.driver import BASE, Driver

PERSON = "+15550142"
LIMITS = {**BASE["limits"], "fallback_number": PERSON, "hand_over": "I put you through."}


def leaving(driver: Driver) -> list[ev.Action]:
    return [one for one in driver.actions if isinstance(one, ev.HandOver | ev.HangUp)]


def fails(driver: Driver, times: int = MAX_FAILURES) -> None:
    for number in range(times):
        driver.speaks("Hello?")
        driver.wait(300)
        driver.feed(ev.ReplyFailed(driver.reply_no, "gone"))
        if number + 1 < times:
            driver.play_all()


def begun(**limits: Any) -> Driver:
    driver = Driver(limits={**LIMITS, **limits})
    driver.begin()
    return driver


def test_the_caller_is_told_first() -> None:
    driver = begun()
    fails(driver)
    assert driver.said()[-1] == "I put you through." and leaving(driver) == []
    driver.play_all()
    assert leaving(driver) == [ev.HandOver(PERSON)]


def test_without_a_number_the_last_words_are_a_farewell() -> None:
    driver = begun(fallback_number="")
    fails(driver)
    assert driver.said()[-2:] == [BASE["limits"]["apology"], BASE["limits"]["farewell"]]
    driver.play_all()
    assert leaving(driver) == [ev.HangUp("error")]


def test_a_recogniser_that_is_lost_for_good_hands_over_at_once() -> None:
    driver = begun()
    driver.feed(ev.TranscriberFailed("gone"))
    driver.play_all()
    assert leaving(driver) == [ev.HandOver(PERSON)]


def test_two_reasons_to_give_up_are_one_hand_over() -> None:
    driver = begun()
    fails(driver)
    said = driver.said()
    driver.feed(ev.TranscriberFailed("gone"))
    assert driver.said() == said
    driver.play_all()
    driver.feed(ev.TranscriberFailed("gone"))
    assert leaving(driver) == [ev.HandOver(PERSON)]


def test_a_hand_over_that_the_carrier_refuses_ends_in_a_farewell() -> None:
    driver = begun()
    fails(driver)
    driver.play_all()
    driver.feed(ev.HandOverFailed("404"))
    assert driver.said()[-1] == BASE["limits"]["farewell"]
    driver.play_all()
    assert leaving(driver) == [ev.HandOver(PERSON), ev.HangUp("error")]


@pytest.mark.parametrize("kind", ["apology", "hand_over"])
def test_without_a_voice_it_is_handed_over_unsaid(kind: str) -> None:
    driver = begun()
    fails(driver, 1 if kind == "apology" else MAX_FAILURES)
    driver.feed(ev.SpeechFailed(driver.talk.unheard_clauses()[0], "gone"))
    assert leaving(driver) == [ev.HandOver(PERSON)]
    driver.feed(ev.HandOverFailed("404"))
    driver.feed(ev.SpeechFailed(driver.talk.unheard_clauses()[0], "gone"))
    assert leaving(driver) == [ev.HandOver(PERSON), ev.HangUp("error")]


def test_nobody_answers_while_the_call_is_being_put_through() -> None:
    driver = begun()
    fails(driver)
    driver.play_all()
    asked = driver.reply_no
    driver.speaks("Are you there?")
    driver.wait(2000)
    assert driver.reply_no == asked


@pytest.mark.parametrize("number", ["15550142", "+0555", "+1555 0142", "sip:person@example.com", "+" + "1" * 16])
def test_only_a_number_that_can_be_dialled_is_taken(number: str) -> None:
    with pytest.raises(SettingsError, match=r"limits\.fallback_number"):
        AgentSettings.parse({"limits": {"fallback_number": number}})


@pytest.mark.parametrize("channel", ["telnyx", "browser"])
def test_a_channel_that_cannot_put_a_call_through_has_no_number(channel: Any) -> None:
    settings = AgentSettings.parse({"limits": {"fallback_number": PERSON}})
    assert settings.for_channel("twilio").limits.fallback_number == PERSON
    assert settings.for_channel(channel).limits.fallback_number == ""


@pytest.mark.parametrize("language", ["en-US", "es-ES", "de-DE", "fr-FR", "it-IT", "xx"])
def test_all_of_it_is_rendered_ahead(language: str) -> None:
    settings = AgentSettings.parse({"language": language, "limits": {"fallback_number": PERSON}})
    said = {stock.apology(settings), stock.farewell(settings), stock.hand_over(settings)}
    assert len(said) == 3 and said <= set(fixed_texts(settings))
    assert stock.hand_over(settings) not in fixed_texts(AgentSettings.parse({"language": language}))
