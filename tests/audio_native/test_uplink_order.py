"""Waiting for a missing message: not before the stream has shown that it helps, and always afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_native.uplink import Uplink
from tests.audio_native.test_uplink import FRAME, frame, make, message

SILENCE = b"\xff" * FRAME
WINDOW = 3


def feed(uplink: Uplink, *numbers: int) -> None:
    for number in numbers:
        uplink.feed(message(number))


def sound(*numbers: int | None) -> bytes:
    return b"".join(SILENCE if number is None else frame(number) for number in numbers)


def counted(uplink: Uplink) -> dict[str, int]:
    names = ("frames", "given_up", "late", "reordered", "duplicates", "bad")
    return {name: getattr(uplink, name) for name in names if getattr(uplink, name)}


@pytest.mark.parametrize("lost", [1, 2, 3, 50, 400])
def test_a_lost_message_delays_nothing_on_a_stream_in_order(lost: int) -> None:
    uplink = make()
    number = 0
    for _ in range(5):
        number += 1 + lost
        # The first is where the stream begins for us; each one after a gap is heard at once.
        feed(uplink, number, number + 1)
        number += 1
        assert uplink.take().endswith(sound(number - 1, number))
    assert uplink.given_up == 4 * lost and uplink.gap_samples == 4 * lost * FRAME


def test_what_comes_late_once_is_lost_and_from_then_on_put_in_order() -> None:
    uplink = make()
    feed(uplink, 1, 2, 4, 3, 5)
    assert uplink.take() == sound(1, 2, None, 4, 5)
    assert counted(uplink) == {"frames": 4, "given_up": 1, "late": 1}
    feed(uplink, 7, 6, 9, 10, 11, 8, 12)
    assert uplink.take() == sound(6, 7, 8, 9, 10, 11, 12)
    assert counted(uplink) == {"frames": 11, "given_up": 1, "late": 1, "reordered": 4}


def test_from_then_on_a_lost_message_is_waited_for_as_long_as_the_window() -> None:
    uplink = make()
    feed(uplink, 1, 3, 2)
    uplink.take()
    feed(uplink, 5, 6, 7)
    assert uplink.take() == b""
    feed(uplink, 8)
    assert uplink.take() == sound(None, 5, 6, 7, 8)
    feed(uplink, 4)
    assert uplink.late == 2 and uplink.take() == b""


def test_the_first_message_may_be_the_one_that_was_overtaken() -> None:
    uplink = make()
    feed(uplink, 2, 1, 3, 5, 4)
    assert uplink.take() == sound(2, 3, 4, 5)
    assert counted(uplink) == {"frames": 4, "late": 1, "reordered": 1}


def test_a_stream_that_may_reorder_is_mended_from_the_start() -> None:
    uplink = make(may_reorder=True)
    feed(uplink, 2, 1, 4, 3)
    assert uplink.take() == sound(1, 2, 3, 4)
    assert uplink.late == uplink.given_up == 0


def test_each_place_that_was_given_up_is_late_once_and_a_copy_after_it_a_duplicate() -> None:
    uplink = make()
    feed(uplink, 1, 4, 2, 2, 3, 3, 4, 1)
    assert counted(uplink) == {"frames": 2, "given_up": 2, "late": 2, "duplicates": 4}


@pytest.mark.parametrize(("behind", "waits"), [(WINDOW, True), (WINDOW + 1, False), (63, False)])
def test_only_what_the_window_would_have_mended_opens_it(behind: int, waits: bool) -> None:
    """A message that comes a second late would come too late for any window; waiting for the next would only delay."""
    uplink = make()
    feed(uplink, 1, *range(3, 3 + behind), 2)
    last = 2 + behind
    assert uplink.late == 1
    uplink.take()
    feed(uplink, last + 2)
    assert uplink.take() == (b"" if waits else sound(None, last + 2))


def test_other_missing_ones_do_not_make_a_late_one_later() -> None:
    """Of six numbers after it three had come: the window would have held those."""
    uplink = make()
    feed(uplink, 1, 5, 7, 8, 2)  # 3, 4 and 6 never come
    uplink.take()
    feed(uplink, 10)
    assert uplink.take() == b""


def test_numbers_further_back_than_the_books_are_counted_as_duplicates() -> None:
    uplink = make()
    feed(uplink, 1, 200, 136, 137)
    assert counted(uplink) == {"frames": 2, "given_up": 198, "late": 1, "duplicates": 1}


def test_one_number_out_of_nowhere_is_not_jumped_to() -> None:
    uplink = make()
    feed(uplink, 1, 2, 10**9, 3, 5, 6)
    assert uplink.take() == sound(1, 2, 3, None, 5, 6)
    assert counted(uplink) == {"frames": 5, "given_up": 1, "bad": 1}


@given(st.lists(st.integers(0, WINDOW), min_size=2, max_size=60))
def test_after_the_first_late_message_nothing_within_the_window_is_lost(delays: list[int]) -> None:
    count = len(delays)
    uplink = make(history_ms=2000)
    given_up = -1
    for number in sorted(range(1, count + 1), key=lambda one: (one + delays[one - 1], one)):
        feed(uplink, number)
        if uplink.late and given_up < 0:
            given_up = uplink.given_up
    uplink.flush()
    assert given_up < 0 or uplink.given_up == given_up
    assert uplink.given_up <= WINDOW and uplink.frames + uplink.late == count


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), min_size=1, max_size=80), st.booleans())
def test_every_message_is_counted_once_and_every_sample_has_its_place(
    sent: list[tuple[int, bool, bool]], may_reorder: bool
) -> None:
    """Late by up to six places, lost, doubled: what comes out is what was sent, or silence of the same length."""
    arrivals = [(1, 1), (2, 2)]  # no doubt about where the stream begins
    for number, (delay, is_lost, is_doubled) in enumerate(sent, 3):
        if not is_lost:
            arrivals += [(number + delay, number)] * (1 + is_doubled)
    uplink = make(history_ms=5000, may_reorder=may_reorder)
    for _, number in sorted(arrivals):
        feed(uplink, number)
    uplink.flush()
    assert uplink.frames + uplink.late + uplink.duplicates + uplink.bad == len(arrivals)
    heard = uplink.take()
    assert len(heard) == uplink.position_samples == uplink.frames * FRAME + uplink.gap_samples
    assert uplink.gap_samples == uplink.given_up * FRAME
    for at in range(len(heard) // FRAME):
        assert heard[at * FRAME :][:FRAME] in (frame(at + 1), SILENCE)
    assert uplink.late <= uplink.given_up
