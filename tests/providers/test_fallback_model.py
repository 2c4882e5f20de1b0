"""A reply survives its model: who takes over, with which words, after how long, and what is counted."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import ChatDone, ChatEvent, ChatRequest, Message, TextDelta, ToolCall
from providers.breaker import FAILURES_IN_A_ROW, Breaker
from providers.errors import ProviderError, ProviderFiltered, ProviderRejected, ProviderTimeout, ProviderUnavailable
from providers.fallback_model import CONTINUE, REPHRASE, FallbackModel, ModelCandidate, ModelLimits
from providers.health import FIRST_MIN_SAMPLES, ProviderHealth
from tests.support.failing import FOREVER, Noted, Step, ToldModel, Wait

ASK = ChatRequest(messages=(Message("system", "s"), Message("user", "when do you open?")), model="another's")
LIMITS = ModelLimits(first_ms=60, last_first_ms=90, idle_ms=60, total_ms=5000, hedge_ms=10_000)
DOWN = ProviderUnavailable("refused", provider="a")


def says(*words: str, **done: int) -> list[Step]:
    return [*(TextDelta(word) for word in words), ChatDone("stop", **done)]


class Rig:
    def __init__(self, *scripts: list[list[Step]], limits: ModelLimits = LIMITS, names: str = "abc") -> None:
        self.noted = Noted()
        self.models = [ToldModel(name, script) for name, script in zip(names, scripts, strict=False)]
        self.candidates = [
            ModelCandidate(one, ProviderHealth("llm", one.name, self.noted), "own" if at == 0 else f"{one.name}-model")
            for at, one in enumerate(self.models)
        ]
        self.model = FallbackModel(self.candidates, limits)

    async def ask(self, request: ChatRequest = ASK) -> list[ChatEvent]:
        async with aclosing(self.model.stream(request)) as events:
            return [one async for one in events]

    def text(self, request: ChatRequest = ASK) -> str:
        events = asyncio.run(self.ask(request))
        assert isinstance(events[-1], ChatDone)
        return "".join(one.text for one in events if isinstance(one, TextDelta))


def test_one_that_answers_is_passed_on_whole() -> None:
    rig = Rig([says("We ", "open", " at nine", ".", prompt_tokens=9, completion_tokens=5, cached_tokens=3)])
    events = asyncio.run(rig.ask())
    assert "".join(one.text for one in events if isinstance(one, TextDelta)) == "We open at nine."
    assert events[-1] == ChatDone("stop", 9, 5, 3, "a")
    assert rig.noted.lines == [
        "attempt a", "usage a prompt_tokens 9", "usage a cached_tokens 3", "usage a completion_tokens 5"
    ]  # fmt: skip
    assert rig.models[0].closed == 1


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ([DOWN], "unavailable"),
        ([ProviderRejected("no", status=401, provider="a")], "rejected_401"),
        ([ProviderRejected("slow down", status=429, retry_after_ms=5000, provider="a")], "rejected_429"),
        ([FOREVER], "timeout_first"),
        ([TextDelta(""), Wait(0.04), TextDelta(""), FOREVER], "timeout_first"),
        ([ChatDone("stop")], "unavailable"),
    ],
)
def test_another_takes_over_before_the_first_word(first: list[Step], kind: str) -> None:
    rig = Rig([first], [says("From b.")])
    assert rig.text() == "From b."
    assert rig.noted.lines == ["attempt a", f"failure a {kind}", "fallback a b", "attempt b"]
    assert [getattr(one.requests[0], "model", "") for one in rig.models] == ["own", "b-model"]
    assert [one.closed for one in rig.models] == [1, 1]


def test_a_short_wait_that_the_provider_asks_for_is_kept() -> None:
    rig = Rig([[ProviderRejected("wait", status=429, retry_after_ms=20)], says("Here.")], [says("Never.")])
    assert rig.text() == "Here."
    assert rig.noted.lines == ["attempt a", "failure a rejected_429", "retry a", "attempt a"]


def test_alone_it_is_asked_twice_and_not_more() -> None:
    rig = Rig([[DOWN], [DOWN], says("too late")])
    with pytest.raises(ProviderUnavailable):
        rig.text()
    assert rig.noted.lines == ["attempt a", "failure a unavailable", "retry a", "attempt a", "failure a unavailable"]


def test_retries_end_with_their_budget() -> None:
    rig = Rig([[DOWN]])
    for _ in range(30):
        with pytest.raises(ProviderError):
            rig.text()
    attempts = rig.noted.lines.count("attempt a")
    retries = rig.noted.lines.count("retry a")
    assert 1 <= retries <= 2 + attempts * 0.1
    assert attempts == 30 + retries, "who has nobody else to ask asks once all the same"


def test_a_deadline_is_not_tried_again_alone() -> None:
    rig = Rig([[FOREVER]])
    with pytest.raises(ProviderTimeout):
        rig.text()
    assert rig.noted.lines == ["attempt a", "failure a timeout_first"]


@pytest.mark.parametrize("failure", [[DOWN], [FOREVER], [ProviderError("garbage")]])
@pytest.mark.parametrize(
    "second",
    [
        says("nine ", "to six."),
        says("The clinic is open ", "from ", "nine ", "to six."),  # repeats what was given
        says("The clinic ", "is open from nine to six."),
    ],
)
def test_the_next_goes_on_from_the_words_that_were_given(failure: list[Step], second: list[Step]) -> None:
    rig = Rig([[TextDelta("The clinic"), TextDelta(" is open from ni"), *failure]], [second])
    text = rig.text()
    assert text == "The clinic is open from nine to six."
    asked = rig.models[1].requests[0]
    assert isinstance(asked, ChatRequest)
    assert asked.messages[-2:] == (Message("assistant", "The clinic is open from"), Message("system", CONTINUE))


def test_a_third_one_goes_on_from_the_second() -> None:
    rig = Rig([[TextDelta("One two "), DOWN]], [[TextDelta("three "), DOWN]], [says("four.")])
    assert rig.text() == "One two three four."
    assert [line for line in rig.noted.lines if line.startswith("fallback")] == ["fallback a b", "fallback a c"]


def test_when_all_fail_after_words_the_error_comes_after_the_words() -> None:
    rig = Rig([[TextDelta("One two thr"), DOWN]], [[DOWN]])

    async def body() -> list[ChatEvent]:
        events: list[ChatEvent] = []
        with pytest.raises(ProviderUnavailable):
            async for one in rig.model.stream(ASK):
                events.append(one)
        return events

    assert asyncio.run(body()) == [TextDelta("One two ")]


def test_tools_are_never_asked_for_twice() -> None:
    call = ToolCall("1", "book", "{}")
    rig = Rig([[call, DOWN]], [[call, ChatDone("tool_calls")]])
    events = asyncio.run(rig.ask())
    assert [one for one in events if isinstance(one, ToolCall)] == [call]
    assert isinstance(events[-1], ChatDone) and rig.models[1].requests == []


def test_a_filtered_question_is_put_in_plain_words_once() -> None:
    for failure in ([ProviderFiltered("no", status=400)], [ChatDone("content_filter")]):
        rig = Rig([failure, says("Plainly.")])
        assert rig.text() == "Plainly."
        asked = rig.models[0].requests[1]
        assert isinstance(asked, ChatRequest) and asked.messages[-1] == Message("system", REPHRASE)
    with pytest.raises(ProviderFiltered):
        Rig([[ProviderFiltered("no", status=400)]]).text()


def warm(rig: Rig, first_ms: float = 20.0) -> None:
    """The first candidate is known to answer in `first_ms`, and has earned a hedge."""
    for _ in range(FIRST_MIN_SAMPLES):
        rig.candidates[0].health.saw_first(first_ms)


def test_a_slow_one_is_hedged_at_its_own_p95_and_the_quicker_is_heard() -> None:
    rig = Rig([[Wait(3600), *says("late")]], [says("quick.")], limits=ModelLimits(first_ms=2000, hedge_ms=10_000))
    warm(rig)
    assert rig.text() == "quick."
    assert rig.noted.lines == ["attempt a", "attempt b", "hedge b won"]
    assert [one.closed for one in rig.models] == [1, 1], "the loser's stream was not closed"


def test_a_hedge_that_comes_second_is_dropped() -> None:
    rig = Rig([[Wait(0.08), *says("mine.")]], [[Wait(3600), *says("never")]], limits=ModelLimits(hedge_ms=10_000))
    warm(rig)
    assert rig.text() == "mine."
    assert rig.noted.lines == ["attempt a", "attempt b", "hedge b lost"]
    assert [one.closed for one in rig.models] == [1, 1]


def test_hedges_are_at_most_one_in_twenty() -> None:
    rig = Rig([[Wait(0.03), *says("mine.")]], [[Wait(3600)]], limits=ModelLimits(hedge_ms=10_000))
    warm(rig)

    async def body() -> None:
        for _ in range(60):
            await rig.ask()

    asyncio.run(body())
    assert 1 <= rig.noted.lines.count("hedge b lost") <= 1 + 60 * 0.05


def test_a_dead_one_costs_nothing_once_its_breaker_is_open() -> None:
    rig = Rig([[DOWN]], [says("From b.")])
    for _ in range(8):
        assert rig.text() == "From b."
    assert rig.noted.lines.count("attempt a") == 5 and "breaker a open" in rig.noted.lines


def test_when_all_are_known_to_be_down_the_preferred_one_is_asked_once_more() -> None:
    rig = Rig([[DOWN]] * 5 + [says("Back again.")], [[DOWN]] * 6)
    for _ in range(5):
        with pytest.raises(ProviderUnavailable):
            rig.text()
    assert [one.health.breaker.state for one in rig.candidates] == ["open", "open"]
    asked = [len(one.requests) for one in rig.models]
    assert rig.text() == "Back again."
    assert [len(one.requests) for one in rig.models] == [asked[0] + 1, asked[1]]
    assert rig.candidates[0].health.breaker.state == "closed"


def test_after_a_recovery_nobody_is_refused_for_want_of_another() -> None:
    """The ramp sends some requests elsewhere; where there is no elsewhere it lets all of them through."""
    rig = Rig([says("Here.")] * 30)
    trip(rig.candidates[0].health)
    assert [rig.text() for _ in range(20)] == ["Here."] * 20


def test_a_breaker_is_only_asked_for_a_candidate_that_is_asked() -> None:
    """The second one's breaker has its probe to give: requests that the first answers must not take it."""
    rig = Rig([says("From a.")] * 3, [says("From b.")])
    trip(rig.candidates[1].health)
    assert rig.text() == "From a." and rig.text() == "From a."
    assert rig.candidates[1].health.breaker.state == "open" and may(rig.candidates[1].health)


def test_a_hedge_that_the_breaker_refuses_costs_no_budget() -> None:
    scripts = [*[[Wait(0.08), *says("mine.")]] * 3, [Wait(3600)]]
    rig = Rig(scripts, [says("b.")], limits=ModelLimits(first_ms=5000, hedge_ms=10_000))
    warm(rig)
    trip(rig.candidates[1].health, ago_s=0)
    for _ in range(3):
        assert rig.text() == "mine."
    assert "attempt b" not in rig.noted.lines
    rig.candidates[1].health.breaker = Breaker()
    assert rig.text() == "b." and "hedge b won" in rig.noted.lines, "used up by hedges that were not made"


def test_an_interrupted_probe_is_free_for_the_next_request() -> None:
    rig = Rig([[Wait(3600)]] + [says("Fine.")] * 2)
    health = rig.candidates[0].health
    trip(health)

    async def body() -> None:
        asking = asyncio.create_task(rig.ask())
        while not rig.models[0].requests:
            await asyncio.sleep(0)
        assert not health.may()
        asking.cancel()
        await asyncio.wait([asking])
        assert health.may()

    asyncio.run(body())


def test_a_backup_that_fails_too_is_told_to_its_health() -> None:
    rig = Rig([[Wait(0.08), DOWN]], [[Wait(0.01), DOWN]], limits=ModelLimits(hedge_ms=10_000))
    warm(rig)
    with pytest.raises(ProviderUnavailable):
        rig.text()
    assert rig.noted.lines.count("attempt b") == rig.noted.lines.count("failure b unavailable")


def trip(health: ProviderHealth, ago_s: float = 60) -> None:
    """Open the breaker by failures so long ago."""
    for _ in range(FAILURES_IN_A_ROW):
        health.breaker.on_failure(time.monotonic() - ago_s)


def may(health: ProviderHealth) -> bool:
    async def body() -> bool:
        return health.may()

    return asyncio.run(body())


def test_cancelling_closes_every_stream() -> None:
    rig = Rig([[FOREVER]], [[FOREVER]], limits=ModelLimits(hedge_ms=10))
    warm(rig)

    async def body() -> None:
        task = asyncio.create_task(rig.ask())
        while len(rig.models[1].requests) == 0:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert [one.closed for one in rig.models] == [1, 1]

    asyncio.run(body())


def given_up(rig: Rig, after_s: float) -> list[str]:
    """What is noted when the asker leaves so long after the last candidate was asked."""

    asked = len(rig.models[-1].requests)

    async def body() -> None:
        task = asyncio.create_task(rig.ask())
        while len(rig.models[-1].requests) == asked:
            await asyncio.sleep(0.001)
        await asyncio.wait([task], timeout=after_s)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(body())
    return rig.noted.lines


PATIENT = ModelLimits(first_ms=60, last_first_ms=5000, hedge_ms=10_000)


def test_a_last_one_that_hangs_is_counted_though_its_asker_leaves_before_its_deadline() -> None:
    rig = Rig([[FOREVER]], [[FOREVER]], limits=PATIENT)
    assert given_up(rig, 0.08) == [
        "attempt a", "failure a timeout_first", "fallback a b", "attempt b", "failure b timeout_first"
    ]  # fmt: skip
    assert rig.candidates[1].health.last_error == "timeout_first"
    for _ in range(FAILURES_IN_A_ROW - 1):
        given_up(rig, 0.08)
    assert rig.candidates[1].health.breaker.state == "open"


def test_who_is_given_up_early_has_not_failed() -> None:
    rig = Rig([[DOWN]], [[FOREVER]], limits=ModelLimits(first_ms=4000, last_first_ms=5000))
    assert given_up(rig, 0.02) == ["attempt a", "failure a unavailable", "fallback a b", "attempt b"]


def test_one_that_answered_is_fine_however_long_it_is_listened_to() -> None:
    rig = Rig([[TextDelta("One two "), FOREVER]], limits=ModelLimits(first_ms=60, last_first_ms=90, idle_ms=5000))
    assert given_up(rig, 0.08) == ["attempt a"]


def test_a_hedge_that_nobody_wins_is_counted() -> None:
    rig = Rig([[FOREVER]], [[FOREVER]], limits=PATIENT)
    warm(rig)
    lines = given_up(rig, 0.1)
    assert lines == ["attempt a", "attempt b", "failure a timeout_first", "failure b timeout_first", "hedge b lost"]
    rig = Rig([[Wait(0.08), DOWN]], [[Wait(0.01), DOWN]], limits=ModelLimits(hedge_ms=10_000))
    warm(rig)
    with pytest.raises(ProviderUnavailable):
        rig.text()
    assert rig.noted.lines.count("hedge b lost") == 1


def test_calls_are_attached_to_every_candidate() -> None:
    rig = Rig([says("a")], [says("b")])
    rig.model.attach_nowait()
    assert [one.attached for one in rig.models] == [1, 1]
    rig.model.detach_nowait()
    assert [one.attached for one in rig.models] == [0, 0]


SENTENCE = "We are open from nine to six, and on Saturday from ten to two."


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SENTENCE)), st.lists(st.integers(1, 7), min_size=1, max_size=40), st.booleans())
def test_cut_anywhere_no_word_is_lost_or_doubled(cut: int, sizes: list[int], repeats: bool) -> None:
    """The successor goes on from the given words, or repeats them first; the sum is the sentence."""

    class Successor(ToldModel):
        def _next(self, request: object) -> list[Step]:
            assert isinstance(request, ChatRequest)
            given = request.messages[-2].content if request.messages[-1].content == CONTINUE else ""
            rest = SENTENCE if repeats or not given else SENTENCE[len(given) :].lstrip()
            return [*pieces(rest, sizes), ChatDone()]

    rig = Rig([[*pieces(SENTENCE[:cut], sizes), DOWN]], [[]])
    rig.candidates[1] = ModelCandidate(Successor("b", [[]]), rig.candidates[1].health)
    rig.model = FallbackModel(rig.candidates, LIMITS)
    assert rig.text() == SENTENCE


def pieces(text: str, sizes: list[int]) -> list[Step]:
    found: list[Step] = []
    at = number = 0
    while at < len(text):
        size = sizes[number % len(sizes)]
        found.append(TextDelta(text[at : at + size]))
        at, number = at + size, number + 1
    return found
