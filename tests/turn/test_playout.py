"""The reckoning of what was heard, against a carrier that plays in real time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.turn.playout import NS_PER_S, Heard, PlayoutClock

MS = 1_000_000


def test_plays_in_order_from_the_first_sample() -> None:
    clock = PlayoutClock(8000)
    clock.sent(1, 800, 0, first=True)
    clock.sent(1, 800, 10 * MS, first=False)
    assert clock.buffered_ns(50 * MS) == 150 * MS
    assert clock.clear(120 * MS) == (Heard(1, 960, 1600),)
    assert clock.buffered_ns(120 * MS) == 0


def test_mark_shows_how_far_the_carrier_lags() -> None:
    clock = PlayoutClock(8000)
    clock.sent(1, 800, 0, first=True)
    clock.sent(2, 8000, 0, first=False)
    clock.marked(1, 180 * MS)  # reckoned at 100 ms
    assert clock.clear(600 * MS) == (Heard(2, (600 - 80 - 100) * 8, 8000),)


def test_finished_clauses_are_forgotten_and_half_played_ones_are_not() -> None:
    clock = PlayoutClock(8000)
    clock.sent(1, 800, 0, first=True)
    clock.sent(2, 800, 0, first=False)
    clock.marked(1, 100 * MS)
    clock.marked(2, 200 * MS)
    assert clock.clear(300 * MS) == ()


def test_empty_buffer_inside_an_utterance_is_an_underrun() -> None:
    clock = PlayoutClock(8000)
    clock.sent(1, 160, 0, first=True)
    clock.sent(1, 160, 50 * MS, first=False)
    assert clock.underruns == 1
    clock.sent(2, 160, 500 * MS, first=True)
    assert clock.underruns == 1


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 400)), min_size=1, max_size=30), st.integers(0, 9000))
def test_heard_is_what_a_real_player_would_have_played(sends: list[tuple[int, int]], clear_after_ms: int) -> None:
    clock = PlayoutClock(8000)
    now_ns = 0
    free_ns = 0
    played: list[tuple[int, int, int]] = []
    for clause_no, (samples, gap_ms) in enumerate(sends, 1):
        now_ns += gap_ms * MS
        clock.sent(clause_no, samples, now_ns, first=True)
        start = max(now_ns, free_ns)
        free_ns = start + samples * NS_PER_S // 8000
        played.append((clause_no, start, samples))
    at = now_ns + clear_after_ms * MS
    expected = tuple(Heard(no, min(max((at - start) * 8000 // NS_PER_S, 0), n), n) for no, start, n in played)
    assert clock.clear(at) == expected
