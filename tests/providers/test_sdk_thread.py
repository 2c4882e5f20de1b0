"""The bridge from vendor threads, with real threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from providers.sdk_thread import MAX_BATCH, Channel, SdkBridge


class Owner:
    """Takes what one channel delivers."""

    def __init__(self, bridge: SdkBridge, max_waiting: int = 100_000) -> None:
        self.items: list[int] = []
        self.errors: list[Exception] = []
        self.thread = threading.current_thread()
        self.is_foreign = False
        self.channel: Channel[int] = bridge.channel(self._take, self.errors.append, max_waiting=max_waiting)

    def _take(self, item: int) -> None:
        self.is_foreign |= threading.current_thread() is not self.thread
        self.items.append(item)


async def in_threads(*works: Callable[[], None]) -> None:
    """Run each in a thread of its own, together; what they put is delivered when this returns."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        gate.wait()
        work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])


async def settle(bridge: SdkBridge, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0)


def test_many_threads_one_order_for_each() -> None:
    async def run() -> None:
        bridge = SdkBridge(asyncio.get_running_loop())
        owners = [Owner(bridge) for _ in range(4)]
        count = 5000

        def talk(owner: Owner) -> Callable[[], None]:
            callback = owner.channel.callback(lambda event: event)
            return lambda: [callback(number) for number in range(count)] and None

        await in_threads(*(talk(owner) for owner in owners))
        await settle(bridge, lambda: all(len(owner.items) == count for owner in owners))
        for owner in owners:
            assert owner.items == list(range(count)) and not owner.errors and not owner.is_foreign
            assert owner.channel.dropped == 0 and owner.channel.waiting == 0
        assert bridge.wakeups < 4 * count / 4

    asyncio.run(run())


def test_a_burst_costs_one_wake_up() -> None:
    async def run() -> None:
        bridge = SdkBridge(asyncio.get_running_loop())
        owner = Owner(bridge)
        # The loop stands still meanwhile: it is this very function.
        thread = threading.Thread(target=lambda: [owner.channel.put(n) for n in range(MAX_BATCH * 3)] and None)
        thread.start()
        thread.join()
        assert bridge.wakeups == 1 and not owner.items
        await asyncio.sleep(0)
        assert len(owner.items) == MAX_BATCH, "the loop gets its turn between batches"
        await settle(bridge, lambda: len(owner.items) == MAX_BATCH * 3)
        assert owner.items == list(range(MAX_BATCH * 3)) and bridge.wakeups == 1

    asyncio.run(run())


def test_what_does_not_fit_is_counted_and_told_once() -> None:
    async def run() -> None:
        bridge = SdkBridge(asyncio.get_running_loop())
        full, other = Owner(bridge, max_waiting=10), Owner(bridge, max_waiting=10)
        thread = threading.Thread(target=lambda: [full.channel.put(n) for n in range(25)] and None)
        thread.start()
        thread.join()
        other.channel.put(1)
        await settle(bridge, lambda: bool(other.items))
        assert full.items == list(range(10)) and full.channel.dropped == 15
        assert [type(error) for error in full.errors] == [BufferError]
        assert other.channel.dropped == 0, "one channel's flood is not another's loss"

    asyncio.run(run())


def test_exceptions_of_callbacks_arrive_in_their_place() -> None:
    async def run() -> None:
        bridge = SdkBridge(asyncio.get_running_loop())
        owner = Owner(bridge)
        callback = owner.channel.callback(lambda event: 10 // event if event < 9 else None)
        await in_threads(lambda: [callback(n) for n in (5, 0, 2, 9)] and None)
        await settle(bridge, lambda: len(owner.items) == 2)
        assert owner.items == [2, 5] and [type(error) for error in owner.errors] == [ZeroDivisionError]

    asyncio.run(run())


def test_an_owner_that_fails_keeps_nothing_from_the_others() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        reported: list[object] = []
        loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        bridge = SdkBridge(loop)
        bad: Channel[int] = bridge.channel(lambda item: [][item], lambda error: None)
        owner = Owner(bridge)
        bad.put(1)
        owner.channel.put(2)
        await settle(bridge, lambda: bool(owner.items))
        assert owner.items == [2] and [type(one) for one in reported] == [IndexError]

    asyncio.run(run())


def test_a_closed_channel_is_silent() -> None:
    async def run() -> None:
        bridge = SdkBridge(asyncio.get_running_loop())
        owner, other = Owner(bridge), Owner(bridge)
        owner.channel.put(1)  # waits in the queue when the channel is closed
        owner.channel.close_nowait()
        owner.channel.put(2)
        other.channel.put(3)
        await settle(bridge, lambda: bool(other.items))
        assert owner.items == [] and owner.channel.waiting == 0

    asyncio.run(run())


def test_callbacks_after_the_loop_was_closed() -> None:
    async def run() -> Owner:
        return Owner(SdkBridge(asyncio.get_running_loop()))

    owner = asyncio.run(run())
    bridge = owner.channel._bridge
    callback = owner.channel.callback(lambda event: event)
    threads = [threading.Thread(target=callback, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bridge.after_close == 5 and owner.items == []
