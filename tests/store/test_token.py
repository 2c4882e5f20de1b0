"""Stream tokens: one use in the whole deployment, refused when forged, late or another's; with and without Redis."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import signal
from pathlib import Path

import pytest

from server.clock import ManualClock
from server.node.embedded import EmbeddedServers
from server.store.redis import Redis
from server.store.token import StreamTokens

KEY = b"k" * 32
FACTS = {"call_id": "c1", "to_number": "+15550100001", "nested": {"a": [1, 2]}}


def tokens_of(redis: Redis | None, clock: ManualClock, **options: int) -> StreamTokens:
    return StreamTokens(redis, KEY, clock, **options)


def test_a_token_is_good_once_for_all_processes(redis_url: str) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock, command_s=2.0)
        here, there = tokens_of(redis, clock), tokens_of(redis, clock)
        secret = await here.issue("s1", FACTS)
        assert len(secret) < 100 and "+" not in secret and "/" not in secret
        assert await there.known("s1") and await here.known("s1") and not await there.known("s2")
        assert await there.redeem("s1", secret) == FACTS
        assert not await here.known("s1")
        assert await here.redeem("s1", secret) is None
        assert await there.redeem("s1", secret) is None
        assert (here.fallback_issued, here.fallback_redeemed, there.fallback_redeemed) == (0, 0, 0)
        await redis.close()

    asyncio.run(run())


def test_200_racing_redeemers_let_one_in(redis_url: str) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock, command_s=5.0)
        both = [tokens_of(redis, clock), tokens_of(redis, clock)]
        secret = await both[0].issue("s1", FACTS)
        results = await asyncio.gather(*(both[n % 2].redeem("s1", secret) for n in range(200)))
        assert [result for result in results if result is not None] == [FACTS]
        await redis.close()

    asyncio.run(run())


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("redis_url") if request.param == "redis" else None


def test_every_wrong_secret_is_refused_and_uses_nothing_up(store: str | None) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(store, clock, command_s=2.0) if store else None
        tokens = tokens_of(redis, clock)
        secret = await tokens.issue("s1", FACTS)
        other = await tokens.issue("s2", FACTS)
        stranger = await StreamTokens(None, b"x" * 32, clock).issue("s1", FACTS)
        claim, _, mac = secret.partition(".")
        chance = random.Random(5)
        wrong = ["", ".", secret[:-1], secret + "A", secret + "=", f" {secret}", claim, f"{claim}.", f".{mac}", other,
                 stranger, f"{other.partition('.')[0]}.{mac}", secret.upper(), "é" * 20, "A" * 10_000]  # fmt: skip
        for _ in range(1000):
            at = chance.randrange(len(secret))
            new = chance.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
            if new != secret[at]:
                wrong.append(secret[:at] + new + secret[at + 1 :])
        for one in wrong:
            assert await tokens.redeem("s1", one) is None, one
        assert await tokens.redeem("s3", secret) is None
        assert await tokens.redeem("s1", secret) == FACTS
        if redis:
            await redis.close()

    asyncio.run(run())


def test_it_expires(store: str | None) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(store, clock, command_s=2.0) if store else None
        tokens = tokens_of(redis, clock, ttl_s=60)
        first, second = await tokens.issue("s1", FACTS), await tokens.issue("s2", FACTS)
        clock.advance_ms(59_000)
        assert await tokens.redeem("s1", first) == FACTS
        clock.advance_ms(1_001)
        assert await tokens.redeem("s2", second) is None
        if redis is None:
            assert not await tokens.known("s2")
        else:
            # Redis has its own clock; that it was told the right time is what can be seen here.
            assert 0 < await redis.execute("TTL", "talkspurt:stream:s2") <= 60
            await redis.close()

    asyncio.run(run())


def test_the_secret_is_not_in_the_store_and_not_the_facts_in_the_secret(redis_url: str) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock, command_s=2.0)
        secret = await tokens_of(redis, clock).issue("s1", FACTS)
        record = await redis.execute("GET", "talkspurt:stream:s1")
        mac = secret.partition(".")[2]
        assert mac.encode() not in record and base64.urlsafe_b64decode(mac + "=") not in record
        assert b"555" not in base64.urlsafe_b64decode(secret.partition(".")[0] + "==")
        await redis.close()

    asyncio.run(run())


def test_redis_away_from_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(f"unix://{tmp_path}/none.sock", clock)
        tokens = tokens_of(redis, clock)
        with caplog.at_level(logging.WARNING):
            secrets = [await tokens.issue(f"s{n}", FACTS) for n in range(3)]
        assert [r.name for r in caplog.records].count("server.store.token") == 1  # said once
        assert await tokens.known("s0") and not await tokens.known("s9")
        assert await tokens.redeem("s0", secrets[0]) == FACTS
        assert await tokens.redeem("s0", secrets[0]) is None
        assert (tokens.fallback_issued, tokens.fallback_redeemed) == (3, 1)
        await redis.close()

    asyncio.run(run())


def test_tokens_issued_at_the_same_time_without_redis_are_counted_once_each(tmp_path: Path) -> None:
    async def run() -> None:
        clock, counted = ManualClock(), 0

        def count() -> None:
            nonlocal counted
            counted += 1

        redis = Redis.open(f"unix://{tmp_path}/none.sock", clock)
        tokens = StreamTokens(redis, KEY, clock, on_fallback=count)
        await asyncio.gather(*(tokens.issue(f"s{n}", FACTS) for n in range(8)))
        assert (tokens.fallback_issued, counted) == (8, 8)
        await redis.close()

    asyncio.run(run())


def test_redis_dies_between_webhook_and_stream(redis_url: str, embedded: EmbeddedServers) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock, command_s=2.0)
        tokens = tokens_of(redis, clock)
        secret = await tokens.issue("s1", FACTS)
        impatient = Redis.open(redis_url, clock)
        tokens._redis = impatient
        os.kill(embedded.pids["valkey"], signal.SIGSTOP)
        try:
            assert await tokens.known("s1")
            assert await tokens.redeem("s1", secret) == FACTS
            assert await tokens.redeem("s1", secret) is None
        finally:
            os.kill(embedded.pids["valkey"], signal.SIGCONT)
        assert (tokens.fallback_issued, tokens.fallback_redeemed) == (0, 1)
        await impatient.close()
        await redis.close()

    asyncio.run(run())


def test_a_token_that_was_let_in_without_redis_is_used_when_redis_is_back(
    redis_url: str, embedded: EmbeddedServers
) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis, impatient = Redis.open(redis_url, clock, command_s=2.0), Redis.open(redis_url, clock)
        tokens = tokens_of(redis, clock)
        secret = await tokens.issue("s1", FACTS)
        tokens._redis = impatient
        os.kill(embedded.pids["valkey"], signal.SIGSTOP)
        try:
            # Only asked: nothing is sent that a frozen Redis would do later.
            for _ in range(5):
                assert await tokens.known("s1")
            assert impatient.is_open
            assert await tokens.redeem("s1", secret) == FACTS
        finally:
            os.kill(embedded.pids["valkey"], signal.SIGCONT)
        tokens._redis = redis
        assert await redis.execute("EXISTS", "talkspurt:stream:s1")
        assert not await tokens.known("s1")
        assert await tokens.redeem("s1", secret) is None
        await impatient.close()
        await redis.close()

    asyncio.run(run())


def test_a_token_that_was_seen_used_stays_used_when_redis_goes(redis_url: str, tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        redis = Redis.open(redis_url, clock, command_s=2.0)
        gone = Redis.open(f"unix://{tmp_path}/none.sock", clock)
        here, there = tokens_of(redis, clock), tokens_of(redis, clock)
        seen, unseen = await here.issue("s1", FACTS), await here.issue("s2", FACTS)
        assert await there.redeem("s1", seen) == FACTS and await there.redeem("s2", unseen) == FACTS
        assert not await here.known("s1")
        here._redis = there._redis = gone
        assert not await here.known("s1")
        assert await here.redeem("s1", seen) is None
        # What nobody can know: Redis is gone, and so is what it knew of the other one. Nobody but its issuer takes it.
        assert await there.redeem("s2", unseen) is None
        assert await here.redeem("s2", unseen) == FACTS
        assert await here.redeem("s2", unseen) is None
        await gone.close()
        await redis.close()

    asyncio.run(run())


def test_issued_without_redis_redeemed_after_it_came_back(redis_url: str) -> None:
    async def run() -> None:
        clock = ManualClock()
        tokens = tokens_of(None, clock)
        secret = await tokens.issue("s1", FACTS)
        redis = Redis.open(redis_url, clock, command_s=2.0)
        tokens._redis = redis
        assert await tokens.known("s1")
        assert await tokens.redeem("s1", secret) == FACTS
        await redis.close()

    asyncio.run(run())


def test_the_memory_is_bounded() -> None:
    async def run() -> None:
        clock = ManualClock()
        tokens = tokens_of(None, clock, capacity=100)
        secrets = [await tokens.issue(f"s{n}", {}) for n in range(150)]
        assert (len(tokens._local), tokens._local.evicted) == (100, 50)
        assert await tokens.redeem("s0", secrets[0]) is None
        assert await tokens.redeem("s149", secrets[149]) == {}
        clock.advance_ms(61_000)
        await tokens.issue("fresh", {})
        assert (len(tokens._local), tokens._local.evicted) == (1, 50)

    asyncio.run(run())
