"""Deadlines count useful output and waiting time only, and always close what they wrap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from providers.base import S16_16K, AudioChunk, ChatDone, TextDelta, ToolCall
from providers.deadline import is_useful, with_deadlines
from providers.errors import ProviderTimeout


class Source:
    """A stream of (wait in ms, item); an exception as item is raised. Remembers being closed."""

    def __init__(self, *steps: tuple[float, object]) -> None:
        self.steps = steps
        self.closed = 0

    async def stream(self) -> AsyncGenerator[object, None]:
        try:
            for wait_ms, item in self.steps:
                if wait_ms == float("inf"):
                    await asyncio.Event().wait()
                if wait_ms:
                    await asyncio.sleep(wait_ms / 1000)
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed += 1


async def collect(source: Source, first_ms: int = 50, idle_ms: int = 50, total_ms: int = 5000) -> list[object]:
    stream = with_deadlines(source.stream(), first_ms=first_ms, idle_ms=idle_ms, total_ms=total_ms, provider="p")
    return [one async for one in stream]


NEVER = float("inf")


@pytest.mark.parametrize(
    ("item", "useful"),
    [
        (TextDelta("a"), True),
        (TextDelta(""), False),
        (AudioChunk(b"\0\0", S16_16K), True),
        (AudioChunk(b"", S16_16K), False),
        (ToolCall("1", "end_call", "{}"), True),
        (ChatDone(), False),
        ("keep-alive", False),
    ],
)
def test_useful(item: object, useful: bool) -> None:
    assert is_useful(item) is useful


def test_items_pass_unchanged_and_the_stream_is_closed() -> None:
    source = Source((0, TextDelta("a")), (0, TextDelta("b")), (0, ChatDone()))
    assert asyncio.run(collect(source)) == [TextDelta("a"), TextDelta("b"), ChatDone()]
    assert source.closed == 1


@pytest.mark.parametrize(
    ("steps", "limits", "phase"),
    [
        ([(NEVER, None)], (20, 500, 5000), "first"),
        ([(0, TextDelta("a")), (NEVER, None)], (500, 20, 5000), "idle"),
        ([(0, TextDelta("a")), (NEVER, None)], (500, 500, 20), "total"),
        ([(NEVER, None)], (500, 500, 20), "total"),
        # Bytes that say nothing are no answer, however many.
        ([(4, TextDelta(""))] * 100, (40, 500, 5000), "first"),
        ([(0, TextDelta("a")), *[(4, "keep-alive")] * 100], (500, 40, 5000), "idle"),
    ],
)
def test_phase(steps: list[tuple[float, object]], limits: tuple[int, int, int], phase: str) -> None:
    source = Source(*steps)
    with pytest.raises(ProviderTimeout) as late:
        asyncio.run(collect(source, *limits))
    assert (late.value.phase, late.value.provider) == (phase, "p")
    assert source.closed == 1


def test_a_slow_consumer_makes_nobody_late() -> None:
    async def run() -> int:
        source = Source((0, TextDelta("a")), (0, TextDelta("b")), (0, TextDelta("c")))
        seen = 0
        async for _ in with_deadlines(source.stream(), first_ms=20, idle_ms=20, total_ms=20):
            seen += 1
            await asyncio.sleep(0.03)
        return seen

    assert asyncio.run(run()) == 3


def test_errors_of_the_stream_travel_through() -> None:
    for error in (ValueError("x"), TimeoutError("theirs")):
        source = Source((0, TextDelta("a")), (0, error))
        with pytest.raises(type(error), match=str(error)):
            asyncio.run(collect(source))
        assert source.closed == 1


def test_closing_it_closes_the_stream_within_a_frame() -> None:
    async def run() -> None:
        source = Source((0, TextDelta("a")), (NEVER, None))
        stream = with_deadlines(source.stream(), first_ms=500, idle_ms=500, total_ms=500)
        await anext(stream)
        began = time.perf_counter()
        await stream.aclose()
        assert time.perf_counter() - began < 0.02
        assert source.closed == 1
        await stream.aclose()

    asyncio.run(run())


def test_a_stream_that_hangs_while_closing_is_left_behind() -> None:
    class Stubborn:
        def __aiter__(self) -> Stubborn:
            return self

        async def __anext__(self) -> TextDelta:
            return TextDelta("a")

        async def aclose(self) -> None:
            await asyncio.Event().wait()

    async def run() -> float:
        stream = with_deadlines(Stubborn(), first_ms=500, idle_ms=500, total_ms=500)
        await anext(stream)
        began = time.perf_counter()
        await stream.aclose()
        return time.perf_counter() - began

    assert asyncio.run(run()) < 0.2


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="positive"):
        asyncio.run(collect(Source(), first_ms=0))
