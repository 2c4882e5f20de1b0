"""The ring against a plain bytes object: contiguous, bounded, and never changed under a reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_native.ring import WireRing


def pattern(start: int, n: int) -> bytes:
    return bytes((start + i) * 7 % 251 for i in range(n))


@given(st.integers(1, 400), st.lists(st.integers(0, 700), max_size=60))
def test_reads_back_what_was_written(capacity: int, sizes: list[int]) -> None:
    ring = WireRing(capacity)
    written = b""
    for size in sizes:
        ring.write(pattern(len(written), size))
        written += pattern(len(written), size)
        assert ring.position == len(written)
        assert ring.oldest == max(0, len(written) - capacity)
        assert bytes(ring.view(ring.oldest, ring.position)) == written[ring.oldest :]


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=80))
def test_views_never_change_and_outlive_the_ring(steps: list[tuple[int, bool]]) -> None:
    ring = WireRing(256)
    held: list[tuple[memoryview, bytes]] = []
    for size, hold in steps:
        ring.write(pattern(ring.position, size))
        if hold:
            view = ring.view(ring.oldest, ring.position)
            held.append((view, bytes(view)))
            held = held[-5:]
    del ring
    for view, expected in held:
        assert view.readonly and bytes(view) == expected


def test_bounds() -> None:
    with pytest.raises(ValueError, match="capacity"):
        WireRing(0)
    ring = WireRing(100)
    ring.write(b"x" * 250)
    with pytest.raises(ValueError, match="expected start"):
        ring.view(200, 251)
    with pytest.raises(ValueError, match="expected start"):
        ring.view(240, 230)
    with pytest.raises(BufferError):
        ring.view(100, 250)
    assert ring.overruns == 50
    assert bytes(ring.view(250, 250)) == b""


@pytest.mark.slow
def test_soak_of_a_million_frames_with_a_reader() -> None:
    ring = WireRing(64_000)
    frame = bytes(range(160))
    view = ring.view(0, 0)
    expected = b""
    for number in range(1_000_000):
        ring.write(frame)
        if number % 1000 == 7:
            assert bytes(view) == expected
            view = ring.view(ring.position - 160, ring.position)
            expected = frame
    assert ring.position == 160_000_000 and ring.overruns == 0
