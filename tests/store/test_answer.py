"""One answer to a webhook in the whole deployment: repeats, races, dead processes; with and without Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from server.clock import ManualClock
from server.node.embedded import EmbeddedServers
from server.store.answer import CLAIM_S, TTL_S, WAIT_S, Made, NotAnswered, SharedAnswers
from server.store.redis import Redis

KEY = b"k" * 32


class Maker:
    """Answers with a number of its own; `gate` holds it up, `error` and `stands` are what comes of it."""

    def __init__(self, name: str, *, stands: bool = True) -> None:
        self.made: list[bytes] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.stands = stands
        self._name = name

    async def __call__(self) -> Made:
        self.began.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.made.append(f"{self._name} {len(self.made)} secret".encode())
        return self.made[-1], self.stands


Body = Callable[[SharedAnswers, SharedAnswers, Redis], Awaitable[None]]


def two_processes(redis_url: str, body: Body, **options: int) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock, command_s=2.0)
        here, there = (SharedAnswers(redis, KEY, clock, **options) for _ in range(2))
        await body(here, there, redis)
        await redis.close()

    asyncio.run(run())


def test_another_process_gives_the_same_answer(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        make, other = Maker("here"), Maker("there")
        first = await here.once("CA1", make)
        assert first == b"here 0 secret"
        assert [await one.once("CA1", other) for one in (there, here, there)] == [first] * 3
        assert await there.once("CA2", other) == b"there 0 secret"
        assert (len(make.made), len(other.made)) == (1, 1)
        assert (here.adopted, there.adopted, here.fallback, there.fallback) == (0, 1, 0, 0)
        assert TTL_S - 5 < await redis.execute("TTL", "talkspurt:answer:CA1") <= TTL_S

    two_processes(redis_url, body)


def test_deliveries_at_the_same_time_get_one_answer(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        makers = [Maker("here"), Maker("there")]
        for one in makers:
            one.gate.clear()
        asked = [asyncio.ensure_future((here, there)[n % 2].once("CA1", makers[n % 2])) for n in range(20)]
        began = [asyncio.ensure_future(one.began.wait()) for one in makers]
        await asyncio.wait(began, return_when=asyncio.FIRST_COMPLETED)
        for one in makers:
            one.gate.set()
        answers = await asyncio.gather(*asked)
        assert len(set(answers)) == 1 and sum(len(one.made) for one in makers) == 1
        for waiting in began:
            waiting.cancel()

    two_processes(redis_url, body)


def test_an_answer_that_does_not_stand_is_made_again_wherever_asked(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        refusing, make = Maker("refused", stands=False), Maker("there")
        assert await here.once("CA1", refusing) == b"refused 0 secret"
        assert await redis.execute("EXISTS", "talkspurt:answer:CA1") == 0
        assert await here.once("CA1", refusing) == b"refused 1 secret"
        assert await there.once("CA1", make) == b"there 0 secret"
        assert await here.once("CA1", refusing) == b"there 0 secret"
        assert (here.fallback, there.fallback) == (0, 0)

    two_processes(redis_url, body)


def test_a_failure_frees_the_call_at_once(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        failing = Maker("here")
        failing.gate.clear()
        failing.error = RuntimeError("no disk")
        first = asyncio.ensure_future(here.once("CA1", failing))
        await failing.began.wait()
        second = asyncio.ensure_future(here.once("CA1", failing))
        await asyncio.sleep(0)
        failing.gate.set()
        outcome = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(one) for one in outcome] == [RuntimeError, NotAnswered]
        async with asyncio.timeout(CLAIM_S / 2):
            assert await there.once("CA1", Maker("there")) == b"there 0 secret"

    two_processes(redis_url, body)


def test_a_cancelled_delivery_frees_the_call_at_once(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        slow = Maker("here")
        slow.gate.clear()
        first = asyncio.ensure_future(here.once("CA1", slow))
        await slow.began.wait()
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        async with asyncio.timeout(CLAIM_S / 2):
            assert await there.once("CA1", Maker("there")) == b"there 0 secret"

    two_processes(redis_url, body)


def test_the_claim_of_a_dead_process_runs_out_and_the_call_is_taken_over(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        assert CLAIM_S < WAIT_S < 8
        dead = Maker("here")
        dead.gate.clear()
        never = asyncio.ensure_future(here.once("CA1", dead))
        await dead.began.wait()
        assert 0 < await redis.execute("TTL", "talkspurt:answer:CA1") <= CLAIM_S
        # Its claim is given back by Redis; here sooner than in five seconds.
        waiting = asyncio.ensure_future(there.once("CA1", Maker("there")))
        await redis.execute("PEXPIRE", "talkspurt:answer:CA1", 200)
        assert await waiting == b"there 0 secret"
        never.cancel()
        with suppress(asyncio.CancelledError):
            await never

    two_processes(redis_url, body)


def test_a_claim_that_is_never_given_back_costs_a_bounded_wait(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.store.answer.WAIT_S", 0.2)

    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        await redis.execute("SET", "talkspurt:answer:CA1", b"c" + b"x" * 16)
        assert await here.once("CA1", Maker("here")) == b"here 0 secret"
        assert (here.fallback, here.adopted) == (1, 0)

    two_processes(redis_url, body)


def test_redis_holds_nothing_readable_and_believes_nothing_foreign(redis_url: str) -> None:
    async def body(here: SharedAnswers, there: SharedAnswers, redis: Redis) -> None:
        await here.once("CA1", Maker("here"))
        kept: bytes = await redis.execute("GET", "talkspurt:answer:CA1")
        assert kept[:1] == b"a" and b"secret" not in kept and b"here" not in kept
        for key, value in (
            ("CA2", kept),
            ("CA3", kept[:-1] + bytes([kept[-1] ^ 1])),
            ("CA4", b"a"),
            ("CA5", b"a" * 40),
        ):
            await redis.execute("SET", f"talkspurt:answer:{key}", value)
            assert await there.once(key, Maker("there")) == b"there 0 secret"
        assert (there.adopted, there.fallback) == (0, 4)
        stranger = SharedAnswers(redis, b"x" * 32, ManualClock())
        assert await stranger.once("CA1", Maker("strange")) == b"strange 0 secret"

    two_processes(redis_url, body)


def test_redis_away_from_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        clock, counted = ManualClock(), 0

        def count() -> None:
            nonlocal counted
            counted += 1

        redis = Redis.open(f"unix://{tmp_path}/none.sock", clock)
        here, there = SharedAnswers(redis, KEY, clock, on_fallback=count), SharedAnswers(redis, KEY, clock)
        make, other = Maker("here"), Maker("there")
        with caplog.at_level(logging.WARNING):
            answers = [await here.once(f"CA{n % 2}", make) for n in range(6)]
        assert answers == [b"here 0 secret", b"here 1 secret"] * 3
        assert [r.name for r in caplog.records].count("server.store.answer") == 1  # said once
        assert await there.once("CA0", other) == b"there 0 secret"  # what is weaker
        assert (here.fallback, counted, there.fallback) == (2, 2, 1)
        assert await here.once("CA9", Maker("refused", stands=False)) == b"refused 0 secret"
        assert here.fallback == 2
        await redis.close()

    asyncio.run(run())


def test_redis_is_stopped_while_an_answer_is_made(redis_url: str, embedded: EmbeddedServers) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock)
        here, there = SharedAnswers(redis, KEY, clock), SharedAnswers(redis, KEY, clock)
        await redis.check()
        make = Maker("here")
        make.gate.clear()
        asked = asyncio.ensure_future(here.once("CA1", make))
        await make.began.wait()
        os.kill(embedded.pids["valkey"], signal.SIGSTOP)
        try:
            make.gate.set()
            async with asyncio.timeout(2):
                assert await asked == await here.once("CA1", make) == b"here 0 secret"
                assert await there.once("CA1", Maker("there")) == b"there 0 secret"
        finally:
            os.kill(embedded.pids["valkey"], signal.SIGCONT)
        assert (here.fallback, there.fallback) == (1, 1)
        await redis.close()

    asyncio.run(run())


def test_the_memory_is_bounded_in_number_and_time() -> None:
    async def run() -> None:
        clock = ManualClock()
        answers, make = SharedAnswers(None, KEY, clock, capacity=100), Maker("here")
        for n in range(150):
            await answers.once(f"CA{n}", make)
        assert (len(answers._own), answers._own.evicted) == (100, 50)
        assert await answers.once("CA149", make) == b"here 149 secret"
        assert await answers.once("CA0", make) == b"here 150 secret"
        clock.advance_ms(TTL_S * 1000 + 1)
        assert await answers.once("CA149", make) == b"here 151 secret"
        assert (len(answers._own), answers._own.evicted) == (1, 51)

    asyncio.run(run())
