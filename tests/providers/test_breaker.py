"""The breaker's states under a clock of the test, and the budget's share."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import breaker as br
from providers.breaker import Breaker, Budget


def middle() -> float:
    return 0.5


def tripped(now_s: float = 0.0) -> Breaker:
    one = Breaker(middle)
    for _ in range(br.FAILURES_IN_A_ROW):
        assert one.claim(now_s)
        one.on_failure(now_s)
    return one


def test_five_failures_in_a_row_open_it_for_the_pause() -> None:
    one = tripped()
    assert one.state == "open"
    assert not one.claim(br.PAUSE_S - 0.01)
    assert one.claim(br.PAUSE_S + 0.01) and one.state == "half_open"


def test_a_success_between_failures_keeps_it_closed() -> None:
    one = Breaker(middle)
    for at in range(40):
        (one.on_success if at % 4 == 3 else one.on_failure)(float(at * 5))
    assert one.state == "closed"


def test_half_of_many_within_the_window_open_it() -> None:
    one = Breaker(middle)
    for at in range(br.WINDOW_MIN_REQUESTS):
        assert one.state == "closed"
        (one.on_failure if at % 2 else one.on_success)(at * 0.1)
    assert one.state == "open"


def test_only_one_probe_and_a_failed_one_doubles_the_pause() -> None:
    one = tripped()
    now_s = br.PAUSE_S + 0.1
    assert one.claim(now_s) and not one.claim(now_s)
    one.on_failure(now_s)
    assert not one.claim(now_s + 2 * br.PAUSE_S - 0.1) and one.claim(now_s + 2 * br.PAUSE_S + 0.1)
    for _ in range(20):
        now_s += 1000
        assert one.claim(now_s)
        one.on_failure(now_s)
    assert not one.claim(now_s + br.MAX_PAUSE_S - 0.1) and one.claim(now_s + br.MAX_PAUSE_S + 0.1)


def test_a_probe_that_never_reports_is_given_up() -> None:
    one = tripped()
    assert one.claim(10) and not one.claim(10 + br.PROBE_LOST_S - 0.1) and one.claim(10 + br.PROBE_LOST_S + 0.1)


def test_to_ask_whether_takes_nothing() -> None:
    one = tripped()
    assert not one.may(br.PAUSE_S - 0.1)
    assert all(one.may(br.PAUSE_S + 0.1) for _ in range(10)) and one.state == "open"
    assert one.claim(br.PAUSE_S + 0.1) and not one.may(br.PAUSE_S + 0.1)


def test_a_probe_that_was_given_up_is_free_again() -> None:
    one = tripped()
    assert one.claim(10) and not one.may(10)
    one.on_dropped()
    assert one.may(10)


def test_a_success_closes_it_from_any_state() -> None:
    one = tripped()
    one.on_success(0.1)  # somebody who had nobody else to ask
    assert one.state == "closed"


def test_after_recovery_requests_come_back_little_by_little() -> None:
    one = tripped()
    assert one.claim(3)
    one.on_success(3)
    shares = [sum(one.claim(3 + second + at / 100) for at in range(100)) for second in range(12)]
    assert shares[0] < 25 and shares[-1] == 100
    assert all(later >= earlier for earlier, later in itertools.pairwise(shares))


@pytest.mark.parametrize(("dice", "pause"), [(0.0, 0.75), (0.999999, 1.25)])
def test_the_pause_is_jittered(dice: float, pause: float) -> None:
    one = Breaker(lambda: dice)
    for _ in range(br.FAILURES_IN_A_ROW):
        one.on_failure(0)
    assert not one.claim(br.PAUSE_S * pause - 0.01) and one.claim(br.PAUSE_S * pause + 0.01)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200))
def test_it_always_lets_somebody_through_in_the_end(steps: list[tuple[bool, float]]) -> None:
    one, now_s = Breaker(middle), 0.0
    for fine, wait_s in steps:
        now_s += wait_s
        if one.claim(now_s):
            (one.on_success if fine else one.on_failure)(now_s)
    assert one.claim(now_s + br.PROBE_LOST_S + br.MAX_PAUSE_S * 2)


@given(st.lists(st.booleans(), min_size=1, max_size=500), st.floats(0.01, 0.5))
def test_a_budget_never_gives_more_than_its_share_and_its_start(wants: list[bool], share: float) -> None:
    budget, taken = Budget(share), 0
    for requests, want in enumerate(wants, 1):
        budget.on_request()
        taken += want and budget.take()
        assert taken <= share * requests + 2.0 + 1e-9
