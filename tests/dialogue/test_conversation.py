"""The decisions of a conversation, told as a caller would tell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialogue import event as ev
from server.dialogue.state import TIMERS
from server.turn.machine import TurnState
from tests.dialogue.driver import MS, Driver, kinds


def test_opens_answers_and_accounts_for_every_millisecond() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("what are your hours")
    assert driver.talk.state is TurnState.ENDPOINTING
    driver.wait(200)  # 500 ms after the last speech sample
    assert driver.talk.state is TurnState.THINKING
    driver.wait(80)
    driver.replies("We are open ", "from nine to five. ", "Anything else?")
    driver.wait(30)
    driver.play_all()
    assert driver.talk.state is TurnState.LISTENING
    assert driver.segments() == [
        ("agent", "Hello, how can I help?"),
        ("caller", "what are your hours"),
        ("agent", "We are open from nine to five. Anything else?"),
    ]
    (turn,) = driver.turns()
    assert turn.latency_ms == pytest.approx(500 + 80 + 30)
    stages = dict(turn.stages)
    assert stages["detect"] == 200 and stages["endpointing"] == 300 and stages["llm"] == 80
    assert sum(ms for name, ms in turn.stages if name != "playout") == pytest.approx(turn.latency_ms)
    assert (turn.prompt_tokens, turn.completion_tokens) == (10, 5)


def test_late_final_is_charged_to_the_recogniser() -> None:
    driver = Driver()
    driver.begin()
    driver.feed(ev.SpeechStarted(0))
    driver.wait(800)
    end_ns = driver.now_ns
    driver.wait(200)
    driver.feed(ev.SpeechStopped(0, 800, end_ns))
    driver.wait(700)  # the policy's instant passed 400 ms ago
    assert driver.talk.state is TurnState.ENDPOINTING
    driver.final("hello there")
    driver.replies("Hi.")
    driver.play_all()
    assert dict(driver.turns()[0].stages)["stt"] == pytest.approx(400)


def test_open_ended_words_wait_longer() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("I would like to book and")
    driver.wait(1100)
    assert driver.talk.state is TurnState.ENDPOINTING
    driver.wait(150)
    assert driver.talk.state is TurnState.THINKING


def test_pause_inside_an_utterance_resumes_it() -> None:
    driver = Driver()
    driver.begin()
    driver.feed(ev.SpeechStarted(0))
    driver.wait(500)
    driver.feed(ev.SpeechStopped(0, 500, driver.now_ns - 200 * MS))
    driver.wait(100)
    driver.final("half")
    assert kinds(driver.feed(ev.SpeechStarted(900))) == ["ResumeUtterance"]
    driver.wait(500)
    end_ns = driver.now_ns
    driver.wait(200)
    driver.feed(ev.SpeechStopped(0, 1500, end_ns))
    driver.feed(ev.TranscriptFinal(1, "half of a whole"))
    driver.wait(300)
    assert driver.history()[-1] == ("user", "half of a whole")
    assert driver.segments()[-1] == ("caller", "half of a whole")


def test_barge_in_clears_and_keeps_only_what_was_heard() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("tell me everything")
    driver.wait(300)
    driver.replies("One two three four five six seven eight.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause, samples=16000)
    driver.wait(1000)
    driver.heard = ((clause, 8000, 9600),)
    driver.feed(ev.SpeechStarted(5000))
    driver.wait(200)
    done = driver.feed(ev.SpeechConfirmed())
    assert "ClearPlayout" in kinds(done)
    assert driver.talk.state is TurnState.CALLER_SPEAKING
    assert driver.segments()[-1] == ("agent", "One two three four")
    assert driver.history()[-1] == ("assistant", "One two three four")
    assert driver.turns()[-1].interrupted
    # Text that still arrives of the cancelled reply is nobody's.
    assert driver.feed(ev.ReplyText(driver.reply_no, " nine ten.")) == []


def test_short_noise_over_the_agent_changes_nothing() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("tell me")
    driver.wait(300)
    driver.replies("A long answer.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause)
    driver.feed(ev.SpeechStarted(5000))
    driver.wait(100)
    driver.feed(ev.SpeechStopped(5000, 5100, driver.now_ns))
    driver.final("mhm")
    assert driver.talk.state is TurnState.AGENT_SPEAKING
    driver.feed(ev.PlayoutFinished(clause, True))
    assert driver.talk.state is TurnState.LISTENING
    assert ("caller", "mhm") not in driver.segments()


def test_caller_who_starts_as_the_agent_ends_is_answered() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("hello")
    driver.wait(300)
    driver.replies("Yes?")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause)
    driver.feed(ev.SpeechStarted(9000))
    driver.feed(ev.PlayoutFinished(clause, True))
    assert driver.talk.state is TurnState.CALLER_SPEAKING
    driver.wait(500)
    driver.feed(ev.SpeechConfirmed(), ev.SpeechStopped(9000, 9400, driver.now_ns - 200 * MS))
    driver.final("I need a doctor")
    driver.wait(500)
    assert driver.history()[-1] == ("user", "I need a doctor")


def test_caller_who_goes_on_before_the_answer_is_heard_is_not_cut() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("I want a table")
    driver.wait(300)
    assert driver.talk.state is TurnState.THINKING
    driver.feed(ev.SpeechStarted(9000))
    driver.wait(200)
    done = driver.feed(ev.SpeechConfirmed())
    assert "CancelReply" in kinds(done)
    driver.wait(300)
    driver.feed(ev.SpeechStopped(9000, 9500, driver.now_ns - 200 * MS))
    driver.final("for four people")
    driver.wait(400)
    assert driver.history()[-1] == ("user", "I want a table for four people")
    assert [m for m in driver.history() if m[0] == "user"] == [("user", "I want a table for four people")]
    assert driver.segments()[-2:] == [("caller", "I want a table"), ("caller", "for four people")]


def test_protected_opening_is_finished_first() -> None:
    driver = Driver(interruption={"protected_opening": True})
    driver.feed(ev.CallBegan())
    driver.render(1)
    driver.feed(ev.SpeechStarted(100))
    driver.wait(200)
    driver.feed(ev.SpeechConfirmed())
    assert driver.talk.state is TurnState.AGENT_SPEAKING
    driver.feed(ev.SpeechStopped(100, 900, driver.now_ns))
    driver.final("I am in a hurry")
    driver.feed(ev.PlayoutFinished(1, True))
    driver.wait(600)
    assert driver.history()[-1] == ("user", "I am in a hurry")


def test_noise_that_stopped_the_agent_makes_it_say_the_rest() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("tell me")
    driver.wait(300)
    driver.replies("One two three four.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause, 8000)
    driver.heard = ((clause, 4000, 8000),)
    driver.feed(ev.SpeechStarted(0))
    driver.wait(200)
    driver.feed(ev.SpeechConfirmed())
    driver.feed(ev.SpeechStopped(0, 300, driver.now_ns))
    driver.final("")
    driver.wait(600)
    assert driver.said()[-1] == "three four."


def test_silent_caller_is_prompted_then_bid_goodbye() -> None:
    driver = Driver()
    driver.begin()
    driver.wait(8000)
    assert driver.said()[-1] == "Are you still there?"
    driver.play_all()
    driver.wait(8000)
    assert driver.said()[-1] == "I will hang up now."
    assert ev.HangUp("idle") in driver.play_all()


def test_idle_never_fires_while_somebody_speaks() -> None:
    driver = Driver()
    driver.begin()
    driver.wait(7900)
    driver.feed(ev.SpeechStarted(9000))
    driver.wait(20_000)
    assert driver.said() == ["Hello, how can I help?"]


def test_end_call_phrase_and_tool_hang_up_after_the_goodbye() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("Goodbye!")
    driver.wait(500)
    assert driver.said()[-1] == "Goodbye!"
    assert ev.HangUp("agent") in driver.play_all()

    driver = Driver()
    driver.begin()
    driver.speaks("that is all")
    driver.wait(500)
    driver.replies("Have a nice day.", tools=["end_call"])
    done = driver.play_all()
    assert done[-1] == ev.HangUp("agent")


def test_longest_call_ends_with_a_notice_even_over_a_reply() -> None:
    driver = Driver()
    driver.begin()
    driver.wait(50_000 - 8000)
    driver.speaks("tell me a story")
    driver.wait(500)
    driver.replies("Once upon a time.")
    driver.render(max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak)))
    driver.wait(60_000)
    assert "Our time is up." in driver.said()
    assert ev.HangUp("max_duration") in driver.play_all()


def test_model_that_fails_is_apologised_for_and_three_times_end_the_call() -> None:
    driver = Driver()
    driver.begin()
    for attempt in range(3):
        driver.speaks(f"question {attempt}")
        driver.wait(500)
        driver.feed(ev.ReplyFailed(driver.reply_no, "down"))
        assert driver.said()[-1] == ("Sorry, something went wrong." if attempt < 2 else "We cannot go on. Goodbye.")
        last = driver.play_all()
    assert ev.HangUp("error") in last


def test_voice_that_fails_ends_in_a_hang_up_not_in_silence() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("hello")
    driver.wait(500)
    driver.replies("Yes.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.feed(ev.SpeechFailed(clause, "no voice"))
    assert driver.said()[-1] == "Sorry, something went wrong."
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    assert ev.HangUp("error") in driver.feed(ev.SpeechFailed(clause, "no voice"))


def test_recogniser_that_fails_ends_the_call_politely() -> None:
    driver = Driver()
    driver.begin()
    driver.feed(ev.TranscriberFailed("gone"))
    assert driver.said()[-1] == "We cannot go on. Goodbye."
    assert ev.HangUp("error") in driver.play_all()


def test_recogniser_that_never_answers_does_not_stop_the_call() -> None:
    driver = Driver()
    driver.begin()
    driver.feed(ev.SpeechStarted(0))
    driver.wait(500)
    driver.feed(ev.SpeechStopped(0, 300, driver.now_ns))
    driver.wait(5000)
    assert driver.said()[-1] == "Sorry, something went wrong."
    driver.feed(ev.TranscriptFinal(driver.utterance_no, ""))
    driver.play_all()
    driver.wait(1000)
    assert driver.talk.state is TurnState.LISTENING


def test_digits_are_an_answer_and_interrupt() -> None:
    driver = Driver()
    driver.begin()
    for digit in "12#":
        driver.feed(ev.DigitReceived(digit))
    assert driver.history()[-1] == ("user", "1 2")
    driver.replies("Thanks.")
    driver.render(max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak)))
    driver.feed(ev.DigitReceived("7"))
    driver.wait(1600)
    assert driver.history()[-1] == ("user", "7")


def test_unknown_tool_is_refused_and_the_model_asked_again_only_so_often() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("do it")
    driver.wait(500)
    for _ in range(4):
        driver.replies(tools=["format_disk"])
    assert driver.said()[-1] == "Sorry, something went wrong."
    assert [role for role, _ in driver.history()].count("tool") == 3


def test_hang_up_in_mid_sentence_keeps_the_words() -> None:
    driver = Driver()
    driver.begin()
    driver.feed(ev.SpeechStarted(3000))
    driver.wait(700)
    done = driver.feed(ev.StreamEnded("caller_hung_up"))
    assert "CommitUtterance" in kinds(done)
    assert driver.talk.is_awaiting_final()
    driver.final("I wanted to")
    assert driver.segments()[-1] == ("caller", "I wanted to")
    assert not driver.timers


def test_broken_stream_goes_on_where_the_caller_stopped_hearing() -> None:
    driver = Driver()
    driver.begin()
    driver.speaks("tell me")
    driver.wait(300)
    driver.replies("One two three four.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause, 8000)
    driver.heard = ((clause, 4000, 8000),)
    driver.feed(ev.StreamEnded("media_lost"))
    assert driver.history()[-1] == ("assistant", "One two")
    driver.wait(2000)
    driver.feed(ev.StreamResumed())
    assert driver.said()[-1] == "three four."


# ── any order of events ───────────────────────────────────────────────────────────────────────────────────────

EVENTS = st.one_of(
    st.builds(ev.SpeechStarted, st.integers(0, 10_000)),
    st.just(ev.SpeechConfirmed()),
    st.builds(ev.SpeechStopped, st.just(0), st.integers(0, 10_000), st.integers(0, 10**12)),
    st.builds(ev.TranscriptInterim, st.integers(1, 4), st.sampled_from(["", "yes", "and"])),
    st.builds(ev.TranscriptFinal, st.integers(1, 4), st.sampled_from(["", "yes", "goodbye", "I want and"])),
    st.builds(ev.ReplyText, st.integers(1, 4), st.sampled_from(["Yes. ", "one, two three four, ", "<think>"])),
    st.builds(ev.ReplyTool, st.integers(1, 4), st.just("a"), st.sampled_from(["end_call", "other"]), st.just("{}")),
    st.builds(ev.ReplyDone, st.integers(1, 4), st.just("stop")),
    st.builds(ev.ReplyFailed, st.integers(1, 4), st.just("down")),
    st.builds(ev.SpeechRequested, st.integers(1, 6)),
    st.builds(ev.SpeechFirstByte, st.integers(1, 6)),
    st.builds(ev.FirstSent, st.integers(1, 6)),
    st.builds(ev.SpeechRendered, st.integers(1, 6), st.sampled_from([0, 800])),
    st.builds(ev.SpeechFailed, st.integers(1, 6), st.just("down")),
    st.builds(ev.PlayoutFinished, st.integers(1, 6), st.booleans()),
    st.builds(ev.DigitReceived, st.sampled_from("12#")),
    st.builds(ev.TimerFired, st.sampled_from([*TIMERS, "unknown"])),
    st.just(ev.TranscriberFailed("gone")),
)


@given(st.lists(st.tuples(EVENTS, st.integers(0, 3000)), max_size=60))
def test_any_order_of_events_is_survived(steps: list[tuple[ev.Event, int]]) -> None:
    driver = Driver()
    driver.feed(ev.CallBegan())
    for event, gap_ms in steps:
        driver.now_ns += gap_ms * MS
        driver.feed(event)
    driver.feed(ev.StreamEnded("caller_hung_up"))
    assert driver.talk.state is TurnState.ENDED
    assert not driver.timers
    for turn in driver.turns():
        if turn.latency_ms is not None:
            assert sum(ms for name, ms in turn.stages if name != "playout") == pytest.approx(turn.latency_ms)
            assert all(ms >= 0 for _, ms in turn.stages)
