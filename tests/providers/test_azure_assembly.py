"""Phrases of the service against utterances of ours: by tables, and by random cuts that lose and double nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.azure.assembly import Assembly, Hypothesis, Phrase, Word
from providers.azure.timeline import TICKS_PER_MS, Timeline
from providers.base import Final, Interim

MS = TICKS_PER_MS
SECOND = 8000


def assembly(*utterances_ms: int) -> Assembly:
    """Utterances 1, 2, … of so many ms, committed with tokens 1, 2, …, but for the last, which is open."""
    made = Assembly(SECOND)
    for number, ms in enumerate(utterances_ms, 1):
        made.begin(number, 10_000 * number)
        made.feed(8 * ms)
        if number < len(utterances_ms):
            made.commit(number, number)
    return made


def phrase(text: str, start_ms: int, end_ms: int, token: int = 0, confidence: float | None = 0.9) -> Phrase:
    step = (end_ms - start_ms) / max(1, len(text.split()))
    words = tuple(
        Word(word, int((start_ms + at * step) * MS), int((start_ms + (at + 1) * step) * MS))
        for at, word in enumerate(text.lower().split())
    )
    return Phrase(text, start_ms * MS, end_ms * MS, confidence, words, token)


@pytest.mark.parametrize("rate", [8000, 16_000, 32_000])
def test_ticks_are_exact(rate: int) -> None:
    line = Timeline(rate)
    for number in range(1, 1001):
        line.feed(number % 7, rate // 50)
    assert line.position == 20 * 10_000_000


def test_owner_is_who_has_most() -> None:
    line = Timeline(SECOND)
    for number, ms in ((1, 1000), (None, 500), (2, 1000)):
        line.feed(number, 8 * ms)
    assert line.owner(0, 900 * MS) == 1
    assert line.owner(800 * MS, 1900 * MS) == 2
    assert line.owner(1100 * MS, 1200 * MS) == 1, "in our silence: the one before"
    assert line.owner(9000 * MS, 9000 * MS) == 2
    assert dict(line.overlaps(900 * MS, 1600 * MS)) == {1: 100 * MS, 2: 100 * MS}
    assert Timeline(SECOND).owner(0, 5) is None


def test_final_is_all_phrases_of_the_utterance() -> None:
    made = assembly(5000)
    assert made.on_hypothesis(Hypothesis("good", 200 * MS, 600 * MS)) == [Interim(1, "good")]
    assert made.on_phrase(phrase("Good morning.", 200, 1500)) == [Interim(1, "Good morning.")]
    assert made.on_hypothesis(Hypothesis("i would", 3000 * MS, 3500 * MS)) == [Interim(1, "Good morning. i would")]
    made.commit(1, 7)
    assert made.on_phrase(phrase("I would like.", 3000, 4500, token=7, confidence=0.6)) == [
        Final(1, "Good morning. I would like.", 10_000, 15_000, pytest.approx(0.75))
    ]
    assert made.settle(1) == [], "one Final"


def test_a_natural_end_after_the_commit_waits_for_the_answer() -> None:
    made = assembly(5000)
    made.commit(1, 7)
    assert made.on_phrase(phrase("Good morning.", 200, 1500)) == []
    assert made.on_phrase(Phrase("", 5000 * MS, 5000 * MS, token=7)) == [Final(1, "Good morning.", 10_000, 15_000, 0.9)]


def test_nothing_understood_voids_the_guess() -> None:
    made = assembly(1000)
    made.on_hypothesis(Hypothesis("mm", 0, 500 * MS))
    made.commit(1, 7)
    assert made.on_phrase(Phrase("", 1000 * MS, 1000 * MS, token=7)) == [Final(1, "", 10_000, 11_000, None)]
    assert made.counters.empty_finals == 1


def test_silence_ends_an_utterance_without_a_token() -> None:
    made = assembly(4000)
    made.commit(1, 0)
    made.feed_silence(8 * 1000)
    assert made.on_phrase(phrase("First.", 100, 900)) == [], "a second phrase may still come"
    assert made.on_phrase(phrase("Second.", 2000, 3600))[0] == Final(1, "First. Second.", 10_000, 14_000, 0.9)


def test_the_timer_takes_the_guess_and_ignores_what_is_late() -> None:
    made = assembly(1000)
    made.on_hypothesis(Hypothesis("yes pleas", 0, 900 * MS))
    made.commit(1, 7)
    assert made.settle(1) == [Final(1, "yes pleas", 10_000, 11_000, None)]
    assert made.on_phrase(phrase("Yes, please.", 0, 900, token=7)) == []
    counters = made.counters
    assert (counters.guessed_finals, counters.late_phrases, counters.late_changes) == (1, 1, 1)


def test_a_late_phrase_counts_when_the_caller_goes_on() -> None:
    made = assembly(1000)
    made.on_hypothesis(Hypothesis("yes pleas", 0, 900 * MS))
    made.commit(1, 7)
    made.settle(1)
    made.on_phrase(phrase("Yes, please.", 0, 900, token=7))
    assert made.resume(1) and made.is_open
    made.feed(8 * 1000)
    made.commit(1, 8)
    assert made.on_phrase(phrase("Tomorrow.", 1100, 1900, token=8)) == [
        Final(1, "Yes, please. Tomorrow.", 10_000, 12_000, 0.9)
    ]


def test_resume_voids_the_token() -> None:
    made = assembly(1000)
    made.commit(1, 7)
    assert made.resume(1)
    assert made.on_phrase(phrase("Yes.", 0, 900, token=7)) == [Interim(1, "Yes.")]
    made.commit(1, 8)
    assert made.on_phrase(Phrase("", 1000 * MS, 1000 * MS, token=8)) == [Final(1, "Yes.", 10_000, 11_000, 0.9)]
    assert not made.resume(2)


def test_a_phrase_over_two_utterances_is_shared_out_by_its_words() -> None:
    made = assembly(1000, 1000)
    assert made.on_phrase(phrase("One two three four", 0, 2000)) == [Interim(2, "three four")]
    assert made.settle(1) == [Final(1, "one two", 10_000, 11_000, 0.9)]
    assert made.counters.split_phrases == 1


def test_an_interim_over_two_utterances_does_not_repeat_the_first() -> None:
    made = assembly(1000)
    made.on_hypothesis(Hypothesis("one two", 0, 1000 * MS))
    made.commit(1, 7)
    assert made.settle(1)
    made.begin(2, 20_000)
    made.feed(8 * 1000)
    assert made.on_hypothesis(Hypothesis("one two three", 0, 1600 * MS)) == [Interim(2, "three")]


def test_an_answer_to_a_later_commit_answers_the_earlier() -> None:
    made = assembly(1000, 1000)
    made.commit(2, 2)
    assert made.on_phrase(phrase("Hi.", 1100, 1900, token=2)) == [
        Final(1, "", 10_000, 11_000, None), Final(2, "Hi.", 20_000, 21_000, 0.9),
    ]  # fmt: skip


def test_a_phrase_of_nobody_is_counted() -> None:
    made = Assembly(SECOND)
    assert made.on_phrase(phrase("Ghost.", 0, 500)) == [] and made.counters.orphan_phrases == 1


def test_memory_is_bounded() -> None:
    made = Assembly(SECOND)
    for number in range(1000):
        made.begin(number, 0)
        made.feed(80)
        made.feed_silence(80)
        made.commit(number, number + 1)
        made.settle(number)
    assert len(made._utterances) <= 32 and len(made._timeline._spans) <= 256


@settings(max_examples=200, deadline=None)
@given(
    utterances=st.lists(st.integers(2, 12), min_size=1, max_size=6),
    cuts=st.sets(st.integers(1, 70), max_size=8),
)
def test_wherever_the_service_cuts_each_word_comes_once(utterances: list[int], cuts: set[int]) -> None:
    """Words of 250 ms; utterances are so many words; phrases end at our commits and at random other words too."""
    made = Assembly(SECOND)
    events: list[Final] = []
    begun = word = 0
    for number, size in enumerate(utterances, 1):
        made.begin(number, 0)
        made.feed(8 * 250 * size)
        made.commit(number, number)
        ends = sorted({cut for cut in cuts if begun < cut < begun + size} | {begun + size})
        for end in ends:
            text = " ".join(f"w{n}" for n in range(word, end))
            token = number if end == begun + size else 0
            came = made.on_phrase(phrase(text, 250 * word, 250 * end, token=token))
            events += [one for one in came if isinstance(one, Final)]
            word = end
        begun += size
    assert [one.utterance_no for one in events] == list(range(1, len(utterances) + 1))
    assert " ".join(one.text for one in events).split() == [f"w{n}" for n in range(begun)]
    begun = 0
    for one, size in zip(events, utterances, strict=True):
        assert len(one.text.split()) == size
        begun += size
