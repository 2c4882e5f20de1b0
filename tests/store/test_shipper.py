"""Spool to PostgreSQL: every fact exactly once, through crashes, outages, lost commits and poison."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import orjson
import pytest

from server.store.fact import CallEnded, SegmentFact, ToolEnded, ToolStarted
from server.store.postgres import Connection, Postgres, PostgresUnavailable
from server.store.shipper import Shipper, is_poison
from server.store.spool import Spool
from tests.store.facts import AT_S, make_version, segment, started, whole_call

FAST = (0.005, 0.02)


class WatchedShipper(Shipper):
    """Tells when PostgreSQL has been away for three attempts, how many batches it took, and since when facts waited."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.third_failure = asyncio.Event()
        self.applied = asyncio.Event()
        self.waited_since: list[float | None] = []
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []

    async def _apply(self, *args: Any) -> None:
        self.waited_since.append(self._behind_since)
        if self.meanwhile:
            await self.meanwhile.pop()()
        await super()._apply(*args)
        self.applied.set()

    def _on_failure(self, error: Exception) -> None:
        super()._on_failure(error)
        if self.failures >= 3:
            self.third_failure.set()


@asynccontextmanager
async def running(folder: Path, url: str, **options: Any) -> AsyncIterator[tuple[Spool, WatchedShipper]]:
    spool = Spool(folder)
    spool.start()
    postgres = await Postgres.open(url)
    shipper = WatchedShipper(spool, postgres, backoff_s=FAST, **options)
    task = asyncio.ensure_future(shipper.run())
    try:
        yield spool, shipper
    finally:
        task.cancel()
        await asyncio.wait([task])
        await postgres.close()
        spool.close()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def tear(folder: Path) -> None:
    """End the only segment of `folder` in the middle of a record."""
    (path,) = folder.glob("*.seg")
    path.write_bytes(path.read_bytes() + b"torn")


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


def test_tools_arrive_with_their_outcome_or_without(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        call_id, facts = whole_call(await make_version(database_url))
        arguments = {"item": "lamp", "zero": "a\0b", "text": r"C:\u0000", "both": "\\\0"}
        begun = [ToolStarted(call_id=call_id, tool_no=no, name="price", arguments=arguments, at=AT_S) for no in (1, 2)]
        ended = ToolEnded(call_id=call_id, tool_no=1, outcome="done", result="12\0", attempts=2, duration_ms=80.5)
        again = ToolEnded(call_id=call_id, tool_no=1, outcome="timeout", result="late", attempts=9, duration_ms=1.0)
        async with running(tmp_path, database_url) as (spool, shipper):
            for fact in (facts[0], *begun, ended):
                spool.append_nowait(fact)
            await shipper.wait_shipped()
            spool.append_nowait(again)  # the first outcome stands
            await shipper.wait_shipped()
            assert shipper.quarantined == 0
        first, second = await fetch(database_url, "SELECT * FROM tool_invocation ORDER BY tool_no")
        assert first["name"] == "price"
        kept = {"item": "lamp", "zero": "ab", "text": r"C:\u0000", "both": "\\"}
        assert orjson.loads(first["arguments"]) == kept
        assert (first["outcome"], first["result"], first["attempts"], first["duration_ms"]) == ("done", "12", 2, 80.5)
        assert first["started_at"].timestamp() == AT_S
        assert (second["outcome"], second["result"], second["duration_ms"]) == (None, None, None)

    asyncio.run(run())


def test_a_call_arrives_with_every_field(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        call_id, facts = whole_call(await make_version(database_url))
        async with running(tmp_path, database_url) as (spool, shipper):
            for fact in facts:
                spool.append_nowait(fact)
            await shipper.wait_shipped()
            assert (shipper.shipped, shipper.failures, shipper.quarantined, shipper.age_s) == (len(facts), 0, 0, 0.0)
        (call,) = await fetch(database_url, "SELECT * FROM call")
        assert str(call["id"]) == call_id and call["end_reason"] == "caller" and call["duration_ms"] == 9000
        assert call["started_at"].timestamp() == AT_S and call["answered_at"].timestamp() == AT_S + 1
        assert call["ended_at"].timestamp() == AT_S + 10 and call["counters"] == '{"frames_in": 450}'
        turns = await fetch(database_url, "SELECT * FROM turn ORDER BY turn_no")
        assert [turn["interrupted"] for turn in turns] == [False, True]
        stages = [turns[0][f"{name}_ms"] for name in ("detect", "endpointing", "stt", "llm", "clause", "tts", "own")]
        assert sum(stages) == pytest.approx(turns[0]["turn_latency_ms"])
        assert (turns[0]["playout_ms"], turns[0]["llm_provider"], turns[0]["prompt_tokens"]) == (80.0, "dialogue", 90)
        segments = await fetch(database_url, "SELECT * FROM transcript_segment ORDER BY seq")
        assert [(s["text"], s["heard_text"], s["start_ms"], s["confidence"]) for s in segments] == [
            ("hello", "hello", 0, None),
            ("hello", "hello", 100, None),
        ]
        assert names_in(tmp_path) == []  # all shipped: no file is left

    asyncio.run(run())


def test_facts_of_all_calls_gather_for_one_transaction(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        _, facts = whole_call(await make_version(database_url))
        async with running(tmp_path, database_url, gather_s=60.0) as (spool, shipper):
            await shipper.wait_shipped()
            for fact in facts:
                spool.append_nowait(fact)
                await spool.flush()
            # Who waits for them does not wait for the gathering.
            async with asyncio.timeout(10):
                await shipper.wait_shipped()
            assert (len(shipper.waited_since), shipper.shipped) == (1, len(facts))

    asyncio.run(run())


def test_gathered_facts_go_by_themselves(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        version = await make_version(database_url)
        async with running(tmp_path, database_url, gather_s=0.01) as (spool, shipper):
            spool.append_nowait(whole_call(version)[1][0])
            async with asyncio.timeout(10):
                await shipper.applied.wait()

    asyncio.run(run())


def test_facts_that_never_stop_coming_do_not_look_like_an_outage(tmp_path: Path, database_url: str) -> None:
    """The age is that of the facts which wait now, also when there has always been one since long ago."""

    async def run() -> None:
        _, facts = whole_call(await make_version(database_url))
        async with running(tmp_path, database_url, gather_s=0.01) as (spool, shipper):

            async def another() -> None:
                spool.append_nowait(facts[1])
                await spool.flush()

            async with asyncio.timeout(10):
                await shipper.wait_shipped()
                shipper.meanwhile = [another]
                spool.append_nowait(facts[0])
                await shipper.wait_shipped()
                await shipper.wait_shipped()
            first, second = shipper.waited_since
            assert first is not None and second is not None and second > first
            assert shipper.age_s == 0.0

    asyncio.run(run())


def test_many_calls_in_small_batches(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        version = await make_version(database_url)
        calls = [whole_call(version, turns=5)[1] for _ in range(30)]
        async with running(tmp_path, database_url, batch_records=7) as (spool, shipper):
            for fact in (fact for facts in calls for fact in facts):
                assert spool.append_nowait(fact)
            await shipper.wait_shipped()
        counts = "SELECT (SELECT count(*) FROM call WHERE ended_at IS NOT NULL) AS c, (SELECT count(*) FROM turn) AS t"
        (row,) = await fetch(database_url, counts)
        assert (row["c"], row["t"]) == (30, 150)

    asyncio.run(run())


def test_the_spool_of_a_dead_process_is_shipped_by_the_next(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        _, facts = whole_call(await make_version(database_url))
        dead = Spool(tmp_path)
        dead.start()
        for fact in facts:
            dead.append_nowait(fact)
        dead.close()
        tear(tmp_path)
        async with running(tmp_path, database_url) as (_, shipper):
            await shipper.wait_shipped()
            assert (shipper.shipped, shipper.torn_tails) == (len(facts), 1)
        assert len(await fetch(database_url, "SELECT id FROM call WHERE ended_at IS NOT NULL")) == 1
        assert names_in(tmp_path) == []

    asyncio.run(run())


def test_an_outage_loses_nothing(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        _, facts = whole_call(await make_version(database_url), turns=20)
        name = urlsplit(database_url).path[1:]
        admin = await asyncpg.connect(database_url.replace(f"/{name}?", "/postgres?"))
        async with running(tmp_path, database_url) as (spool, shipper):
            await shipper.wait_shipped()
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            for fact in facts:
                spool.append_nowait(fact)
            await spool.flush()
            await shipper.third_failure.wait()
            assert spool.is_accepting and shipper.age_s > 0 and spool.pending == 0
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            async with asyncio.timeout(20):
                await shipper.wait_shipped()
            assert shipper.age_s == 0.0
        await admin.close()
        assert len(await fetch(database_url, "SELECT call_id FROM turn")) == 20

    asyncio.run(run())


class LosesCommits(Postgres):
    """A database whose reply to every second COMMIT is lost."""

    count: int

    @asynccontextmanager
    async def transaction(self, limit_s: float = 2.0) -> AsyncIterator[Connection]:
        async with super().transaction(limit_s) as connection:
            yield connection
        self.count += 1
        if self.count % 2:
            raise PostgresUnavailable("the reply to COMMIT was lost")


def test_a_lost_reply_to_commit_doubles_nothing(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        version = await make_version(database_url)
        postgres = await LosesCommits.open(database_url)
        assert isinstance(postgres, LosesCommits)
        postgres.count = 0
        spool = Spool(tmp_path)
        spool.start()
        shipper = Shipper(spool, postgres, batch_records=5, backoff_s=FAST)
        task = asyncio.ensure_future(shipper.run())
        total = 0
        for _ in range(10):
            _, facts = whole_call(version, turns=3)
            total += len(facts)
            for fact in facts:
                spool.append_nowait(fact)
        async with asyncio.timeout(30):
            await shipper.wait_shipped()
        assert shipper.failures > 5
        (boot,) = await fetch(database_url, "SELECT shipped_seq FROM spool_boot")
        assert boot["shipped_seq"] == total
        assert len(await fetch(database_url, "SELECT 1 FROM turn")) == 30
        task.cancel()
        await asyncio.wait([task])
        await postgres.close()
        spool.close()

    asyncio.run(run())


def test_shipping_the_same_files_twice_changes_nothing(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        _, facts = whole_call(await make_version(database_url))
        dead = Spool(tmp_path / "a")
        dead.start()
        for fact in facts:
            dead.append_nowait(fact)
        dead.close()
        for copy in ("b", "c"):
            shutil.copytree(tmp_path / "a", tmp_path / copy)
            async with running(tmp_path / copy, database_url) as (_, shipper):
                await shipper.wait_shipped()
                assert shipper.shipped == (len(facts) if copy == "b" else 0)

    asyncio.run(run())


def test_poison_is_set_aside_and_the_rest_flows(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        version = await make_version(database_url)
        call_id, facts = whole_call(version)
        orphan = str(uuid4())
        poison: list[Any] = [
            segment(0, call_id=orphan),  # a call that nobody has seen: 23503
            SegmentFact(call_id=call_id, seq=7, speaker="dog", text="hush", start_ms=0, end_ms=0),  # 23514
            SegmentFact(call_id=call_id, seq=8, speaker="agent", text="", start_ms=0, end_ms=2**70),  # asyncpg refuses
            SegmentFact(call_id="not-a-uuid", seq=9, speaker="agent", text="", start_ms=0, end_ms=0),
            started(str(uuid4()), str(uuid4())),  # no such agent version
        ]
        with pytest.raises(TypeError):
            Spool(tmp_path / "x").append_nowait(poison[2])  # JSON has no such integer: it never gets this far
        del poison[2]
        async with running(tmp_path, database_url) as (spool, shipper):
            for fact in [*facts[:3], *poison, *facts[3:]]:
                spool.append_nowait(fact)
            async with asyncio.timeout(30):
                await shipper.wait_shipped()
            assert (shipper.quarantined, shipper.failures, shipper.shipped) == (4, 0, len(facts))
            # The line is free again.
            spool.append_nowait(segment(20, call_id=call_id))
            await shipper.wait_shipped()
        rows = await fetch(database_url, "SELECT seq, error, payload FROM spool_quarantine ORDER BY seq")
        assert [row["seq"] for row in rows] == [4, 5, 6, 7]
        assert "ForeignKeyViolation" in rows[0]["error"] and b'"fact":"segment"' in rows[0]["payload"]
        assert len(await fetch(database_url, "SELECT 1 FROM transcript_segment")) == 3
        # The row says what PostgreSQL says, and quotes what was said; the log does not.
        assert "hush" in rows[1]["error"]
        told = [vars(one) for one in caplog.records if one.getMessage() == "a fact was set aside"]
        assert [one["sqlstate"] for one in told] == ["23503", "23514", "22000", "23503"]
        assert not re.search("hush|not-a-uuid", f"{told}")

    asyncio.run(run())


def test_damaged_json_is_poison_too(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        async with running(tmp_path, database_url) as (spool, shipper):
            spool._seq += 1
            spool._queue.put((spool._seq, b'{"fact":"pigeon"}'))
            async with asyncio.timeout(20):
                await shipper.wait_shipped()
            assert shipper.quarantined == 1

    asyncio.run(run())


def test_a_zero_character_does_not_poison_a_line(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        call_id, facts = whole_call(await make_version(database_url), turns=0)
        async with running(tmp_path, database_url) as (spool, shipper):
            for fact in facts:
                spool.append_nowait(fact)
            spool.append_nowait(segment(0, call_id=call_id, text="a\0b"))
            await shipper.wait_shipped()
            assert shipper.quarantined == 0
        (row,) = await fetch(database_url, "SELECT text FROM transcript_segment")
        assert row["text"] == "ab"

    asyncio.run(run())


@pytest.mark.parametrize("reason", ["no_media", "refused"])
def test_a_call_that_began_after_all_has_the_end_of_its_stream(tmp_path: Path, database_url: str, reason: str) -> None:
    async def run() -> None:
        call_id, facts = whole_call(await make_version(database_url))
        before = CallEnded(call_id=call_id, reason=reason, duration_ms=0, at=AT_S + 15)
        async with running(tmp_path, database_url) as (spool, shipper):
            for fact in (*facts[:-1], before, facts[-1], before):
                spool.append_nowait(fact)
            await shipper.wait_shipped()
        (row,) = await fetch(database_url, "SELECT end_reason, duration_ms FROM call")
        assert (row["end_reason"], row["duration_ms"]) == ("caller", 9000)

    asyncio.run(run())


def test_the_first_end_of_a_call_stands(tmp_path: Path, database_url: str) -> None:
    async def run() -> None:
        call_id, facts = whole_call(await make_version(database_url))
        async with running(tmp_path, database_url) as (spool, shipper):
            for fact in facts:
                spool.append_nowait(fact)
            spool.append_nowait(CallEnded(call_id=call_id, reason="later", duration_ms=1, at=AT_S + 99))
            await shipper.wait_shipped()
        (row,) = await fetch(database_url, "SELECT end_reason, duration_ms FROM call")
        assert (row["end_reason"], row["duration_ms"]) == ("caller", 9000)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("state", "poison"),
    [("23503", True), ("22021", True), ("42P01", False), ("53100", False), ("57P01", False), ("40001", False)],
)
def test_what_is_the_records_fault(state: str, poison: bool) -> None:
    assert is_poison(asyncpg.PostgresError.new({"C": state, "M": "x", "S": "ERROR"})) is poison
    assert not is_poison(PostgresUnavailable("x"))
