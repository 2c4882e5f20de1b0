"""The simulated caller's ear: real-time FIFO, marks, clear, lateness."""

import pytest

from bench.sim.playout import MAX_BUFFERED_BYTES, Playout
from bench.sim.sound import FRAME_SAMPLES


def frames(playout: Playout, count: int) -> list[bytes | None]:
    return [playout.read() for _ in range(count)]


def test_audio_is_heard_where_it_arrives_and_in_order() -> None:
    playout = Playout()
    playout.media(b"a" * 160, 0)
    playout.media(b"b" * 240, 10)
    assert frames(playout, 4) == [b"a" * 160, b"b" * 160, b"b" * 80 + b"\xff" * 80, None]


def test_audio_into_an_empty_buffer_begins_at_the_instant_of_arrival() -> None:
    playout = Playout()
    playout.media(b"a" * 160, 200)
    assert frames(playout, 3) == [None, b"\xff" * 40 + b"a" * 120, b"a" * 40 + b"\xff" * 120]


def test_a_mark_returns_when_its_audio_was_played_or_at_once() -> None:
    playout = Playout()
    assert playout.mark("empty", 0) == ["empty"]
    playout.media(b"a" * 320, 0)
    assert playout.mark("end", 0) == []
    assert playout.marks_passed(319) == []
    assert playout.marks_passed(320) == ["end"]
    assert playout.marks_passed(999) == []


def test_clear_drops_the_unheard_and_returns_all_marks() -> None:
    playout = Playout()
    playout.media(b"a" * 1600, 0)
    playout.mark("one", 0)
    playout.media(b"b" * 1600, 0)
    playout.mark("two", 0)
    assert frames(playout, 1) == [b"a" * 160]
    assert playout.clear(200) == ["one", "two"]
    assert playout.counters.cleared_samples == 3200 - 200
    assert frames(playout, 2) == [b"a" * 40 + b"\xff" * 120, None]
    assert playout.buffered_ms(200) == 0
    playout.media(b"c" * 160, 500)
    assert frames(playout, 1) == [b"\xff" * 20 + b"c" * 140]


@pytest.mark.parametrize(
    ("arrivals_ms", "lateness_ms", "underruns"),
    [
        ([0, 0, 100, 200], [0, 0, 0], 0),  # lead 200, chunk 100: buffered 100 on each arrival
        ([0, 0, 130, 200], [0, 30, 0], 0),
        ([0, 150], [100], 1),  # ran dry at 100
        ([0, 3000], [], 0),  # another utterance
    ],
)
def test_lateness_is_the_missing_part_of_the_lead(
    arrivals_ms: list[int], lateness_ms: list[float], underruns: int
) -> None:
    playout = Playout(lead_ms=200, chunk_ms=100)
    for at_ms in arrivals_ms:
        playout.media(b"a" * 800, at_ms * 8)
    assert playout.counters.lateness_ms == lateness_ms
    assert playout.counters.underruns == underruns


def test_a_caller_who_speaks_ends_the_utterance() -> None:
    playout = Playout()
    playout.media(b"a" * 800, 0)
    playout.end_utterance()
    playout.media(b"a" * 800, 2000)
    assert playout.counters.lateness_ms == []
    assert playout.counters.underruns == 0


def test_the_buffer_is_bounded() -> None:
    playout = Playout()
    playout.media(b"a" * MAX_BUFFERED_BYTES, 0)
    playout.media(b"a" * 160, 0)
    assert playout.counters.overflows == 1
    assert playout.buffered_ms(0) == MAX_BUFFERED_BYTES / 8


def test_any_chunking_is_heard_alike() -> None:
    audio = bytes(range(256)) * 10
    whole, parts = Playout(), Playout()
    whole.media(audio, 0)
    for at in range(0, len(audio), 37):
        parts.media(audio[at : at + 37], 0)
    count = len(audio) // FRAME_SAMPLES + 1
    assert frames(whole, count) == frames(parts, count)
