"""Bounded queues: what each does when it is full, and that nothing is lost or stuck otherwise."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.queues import Backpressure, DropOldest, QueueClosed


def test_the_oldest_leaves() -> None:
    queue: DropOldest[int] = DropOldest(100, measure=lambda ms: ms)
    assert [queue.put_nowait(ms) for ms in (40, 40, 20)] == [0, 0, 0]
    assert queue.put_nowait(50) == 2
    assert (queue.size, len(queue), queue.dropped) == (70, 2, 2)
    assert [queue.get_nowait(), queue.get_nowait(), queue.get_nowait()] == [20, 50, None]


def test_an_item_that_can_never_fit_is_dropped_alone() -> None:
    queue: DropOldest[int] = DropOldest(100, measure=lambda ms: ms)
    queue.put_nowait(60)
    assert queue.put_nowait(101) == 1
    assert (queue.get_nowait(), queue.dropped) == (60, 1)


@given(st.lists(st.integers(1, 120)), st.integers(1, 100))
def test_drop_oldest_keeps_the_newest_that_fit(items: list[int], limit: int) -> None:
    queue: DropOldest[int] = DropOldest(limit, measure=lambda n: n)
    dropped = sum(queue.put_nowait(item) for item in items)
    left = list(iter(queue.get_nowait, None))
    assert sum(left) <= limit and queue.size == 0 and dropped == queue.dropped == len(items) - len(left)
    fitting = [item for item in items if item <= limit]
    assert left == fitting[len(fitting) - len(left) :]


def test_a_consumer_waits_and_is_woken() -> None:
    async def run() -> None:
        queue: DropOldest[str] = DropOldest(4)
        getting = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait("a")
        assert await getting == "a"
        getting = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await queue.get()
        queue.close()
        with pytest.raises(QueueClosed):
            await getting
        assert queue.put_nowait("b") == 1

    asyncio.run(run())


def test_closing_leaves_what_is_inside() -> None:
    async def run() -> None:
        queue: Backpressure[str] = Backpressure(4)
        await queue.put("a")
        queue.close()
        assert await queue.get() == "a"
        with pytest.raises(QueueClosed):
            await queue.get()
        with pytest.raises(QueueClosed):
            await queue.put("b")
        with pytest.raises(QueueClosed):
            queue.put_nowait("b")

    asyncio.run(run())


def test_producers_wait_in_order() -> None:
    async def run() -> None:
        queue: Backpressure[int] = Backpressure(2)
        assert queue.put_nowait(0) and queue.put_nowait(1)
        assert not queue.put_nowait(9) and queue.refused == 1
        producers = [asyncio.ensure_future(queue.put(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert not queue.put_nowait(9)  # nobody overtakes
        assert [await queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
        await asyncio.gather(*producers)

    asyncio.run(run())


def test_a_cancelled_producer_gives_its_place_up() -> None:
    async def run() -> None:
        queue: Backpressure[int] = Backpressure(1)
        await queue.put(0)
        first, second = (asyncio.ensure_future(queue.put(n)) for n in (1, 2))
        await asyncio.sleep(0)
        first.cancel()
        assert await queue.get() == 0
        assert await queue.get() == 2
        await second

    asyncio.run(run())


def test_an_item_above_the_limit_goes_alone() -> None:
    async def run() -> None:
        queue: Backpressure[int] = Backpressure(10, measure=lambda n: n)
        await queue.put(5)
        putting = asyncio.ensure_future(queue.put(50))
        await asyncio.sleep(0)
        assert not putting.done()
        assert [await queue.get(), await queue.get()] == [5, 50]
        await putting

    asyncio.run(run())


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 20))
def test_backpressure_loses_nothing(items: list[int], limit: int) -> None:
    async def run() -> list[int]:
        queue: Backpressure[int] = Backpressure(limit, measure=lambda n: n)
        got: list[int] = []

        async def produce() -> None:
            for item in items:
                await queue.put(item)
                assert queue.size <= limit or len(queue) == 1
            queue.close()

        async def consume() -> None:
            try:
                while True:
                    got.append(await queue.get())
            except QueueClosed:
                pass

        await asyncio.gather(produce(), consume())
        return got

    assert asyncio.run(run()) == items


def test_a_queue_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        DropOldest(0)
