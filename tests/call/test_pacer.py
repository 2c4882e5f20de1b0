"""One tick for all calls: what goes wrong in one of them is its own affair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from server.call.pacer import Pacer
from server.clock import ManualClock


class Voice:
    """Has something to send for `ticks` ticks; then does `last`."""

    def __init__(self, ticks: int, last: Callable[[], None] | None = None) -> None:
        self.ticks = 0
        self._left = ticks
        self._last = last

    def tick(self, now_ns: int) -> bool:
        self.ticks += 1
        self._left -= 1
        if self._left == 0 and self._last is not None:
            self._last()
        return self._left > 0


def run(*voices: Voice, until: Voice) -> list[dict[str, Any]]:
    """Tick on a real loop until `until` has had its ticks; returns what the loop's exception handler got."""
    errors: list[dict[str, Any]] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        pacer = Pacer(ManualClock(), lambda late_s: None)
        for one in voices:
            pacer.add(one)
        async with asyncio.timeout(5):
            while until._left > 0:
                await asyncio.sleep(0)
        assert pacer._active == {one: None for one in voices if one._left > 0 and one is not until}

    asyncio.run(body())
    return errors


def test_a_call_that_fails_does_not_silence_the_others() -> None:
    def fail() -> None:
        raise ValueError("ours")

    broken, other = Voice(2, fail), Voice(6)
    errors = run(broken, other, until=other)
    assert other.ticks == 6 and broken.ticks == 2, "the one that failed is not asked again"
    assert [str(one["exception"]) for one in errors] == ["ours"]


def test_a_call_may_end_another_within_a_tick() -> None:
    ended: list[int] = []

    async def body() -> None:
        pacer = Pacer(ManualClock(), lambda late_s: None)
        second = Voice(1000)
        first = Voice(2, lambda: (pacer.remove(second), ended.append(second.ticks))[0])
        pacer.add(first)
        pacer.add(second)
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0)
        assert second.ticks == 1 and not pacer._active

    asyncio.run(body())
    assert ended == [1]
