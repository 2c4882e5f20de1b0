"""Redis that is frozen, gone or read only costs 50 ms a command, and after five errors nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from server.clock import ManualClock
from server.node.embedded import EmbeddedServers
from server.store.redis import BREAK_AFTER, Redis, RedisUnavailable


def test_commands(redis_url: str) -> None:
    async def run() -> None:
        redis = Redis.open(redis_url, ManualClock(), command_s=2.0)
        await redis.execute("SET", "a", b"\x00\xff", "EX", 60)
        assert await redis.execute("GET", "a") == b"\x00\xff"
        assert await redis.execute("EXISTS", "b") == 0
        with pytest.raises(ResponseError):
            await redis.execute("NOSUCH")
        await redis.check()
        assert redis.errors == 0
        await redis.close()

    asyncio.run(run())


def test_a_frozen_server_costs_50_ms_and_then_nothing(redis_url: str, embedded: EmbeddedServers) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock)
        pid = embedded.pids["valkey"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(BREAK_AFTER):
                began = time.monotonic()
                with pytest.raises(RedisUnavailable):
                    await redis.execute("GET", "a")
                assert time.monotonic() - began < 0.06 + 0.1  # row 51: 60 ms; 100 more for a busy machine
            began = time.monotonic()
            with pytest.raises(RedisUnavailable, match="not asked"):
                await redis.execute("GET", "a")
            assert time.monotonic() - began < 0.01
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (redis.errors, redis.skipped, redis.is_open) == (BREAK_AFTER, 1, True)
        # A busy machine may take longer than 50 ms to wake it.
        async with asyncio.timeout(20):
            while redis.is_open:
                clock.advance_ms(10_001)
                with contextlib.suppress(RedisUnavailable):
                    await redis.check()
        await redis.close()

    asyncio.run(run())


def test_one_failure_after_the_rest_opens_the_breaker_again(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(f"unix://{tmp_path}/none.sock", clock)
        for _ in range(BREAK_AFTER):
            assert not redis.is_open
            with pytest.raises(RedisUnavailable):
                await redis.check()
        clock.advance_ms(10_001)
        with pytest.raises(RedisUnavailable, match="no answer"):
            await redis.check()
        assert redis.is_open
        await redis.close()

    asyncio.run(run())


def test_a_success_forgets_the_errors_before_it(redis_url: str, embedded: EmbeddedServers) -> None:
    async def run() -> None:
        redis = Redis.open(redis_url, ManualClock())
        pid = embedded.pids["valkey"]
        for _ in range(3):
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(BREAK_AFTER - 1):
                    with pytest.raises(RedisUnavailable):
                        await redis.check()
            finally:
                os.kill(pid, signal.SIGCONT)
            patient = Redis.open(redis_url, ManualClock(), command_s=2.0)
            await patient.check()  # it is awake again
            await patient.close()
            await redis.check()
        assert not redis.is_open and redis.errors == 3 * (BREAK_AFTER - 1)
        await redis.close()

    asyncio.run(run())


def test_a_read_only_replica_counts_as_away(redis_url: str) -> None:
    async def run() -> None:
        redis = Redis.open(redis_url, ManualClock(), command_s=2.0)
        await redis.execute("REPLICAOF", "127.0.0.1", 1)
        try:
            with pytest.raises(RedisUnavailable, match="ReadOnly"):
                await redis.execute("SET", "a", "b")
        finally:
            await redis.execute("REPLICAOF", "NO", "ONE")
        await redis.close()

    asyncio.run(run())


def test_a_cancelled_command_never_answers_the_next(redis_url: str) -> None:
    """CVE-2023-28858: the reply that was not read must not be taken for the next one's (M12)."""

    async def run() -> None:
        redis = Redis.open(redis_url, ManualClock(), command_s=2.0)
        for n in range(20):
            await redis.execute("SET", f"k{n}", n)
        for n in range(300):
            task = asyncio.ensure_future(redis.execute("GET", f"k{n % 20}"))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert await redis.execute("GET", f"k{(n + 1) % 20}") == str((n + 1) % 20).encode()
        await redis.close()

    asyncio.run(run())
