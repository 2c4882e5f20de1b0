"""The pool against a real server that freezes, dies, turns read only or is not there: every wait has its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import asyncpg
import pytest

from server.node.embedded import EmbeddedServers
from server.store.postgres import Postgres, PostgresUnavailable, is_lost


def test_a_transaction_commits_or_does_nothing(database_url: str) -> None:
    async def run() -> None:
        postgres = await Postgres.open(database_url)
        async with postgres.transaction() as connection:
            await connection.execute("INSERT INTO agent (slug) VALUES ('kept')")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with postgres.transaction() as connection:
                await connection.execute("INSERT INTO agent (slug) VALUES ('lost')")
                await connection.execute("INSERT INTO agent (slug) VALUES ('kept')")
        async with postgres.connection() as connection:
            assert [row["slug"] for row in await connection.fetch("SELECT slug FROM agent")] == ["kept"]
        await postgres.check()
        assert postgres.evictions == 0
        await postgres.close()

    asyncio.run(run())


def test_a_frozen_backend_costs_its_limit_and_no_more(database_url: str) -> None:
    async def run() -> None:
        postgres = await Postgres.open(database_url)
        async with postgres.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(PostgresUnavailable):
                async with postgres.connection(0.2) as connection:
                    await connection.fetchval("SELECT 1")
            assert time.monotonic() - began < 0.2 + 0.1 + 0.2  # row 43: the limit and 100 ms; 200 for a busy machine
        finally:
            os.kill(pid, signal.SIGCONT)
        async with postgres.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != pid
        await postgres.close()

    asyncio.run(run())


def test_a_cancelled_query_leaves_no_connection_behind(database_url: str) -> None:
    async def run() -> None:
        postgres = await Postgres.open(database_url, size=1)

        async def query() -> None:
            async with postgres.connection(5.0) as connection:
                entered.set()
                await connection.execute("SELECT pg_sleep(30)")

        entered = asyncio.Event()
        task = asyncio.ensure_future(query())
        await entered.wait()
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1.0
        async with postgres.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await postgres.close()

    asyncio.run(run())


def test_an_exhausted_pool_says_so_in_time(database_url: str) -> None:
    async def run() -> None:
        postgres = await Postgres.open(database_url, size=1)
        async with postgres.connection():
            began = time.monotonic()
            with pytest.raises(PostgresUnavailable):
                async with postgres.connection():
                    pass
            assert 0.2 < time.monotonic() - began < 0.6
        async with postgres.connection():
            pass
        await postgres.close()

    asyncio.run(run())


def test_a_read_only_node_is_noticed_and_its_connections_are_given_up(database_url: str) -> None:
    async def run() -> None:
        postgres = await Postgres.open(database_url, size=2)
        async with postgres.connection() as one, postgres.connection() as two:
            pids = {await one.fetchval("SELECT pg_backend_pid()"), await two.fetchval("SELECT pg_backend_pid()")}
        with pytest.raises(PostgresUnavailable):
            async with postgres.connection() as connection:
                await connection.execute("SET default_transaction_read_only = on")
                await connection.execute("INSERT INTO agent (slug) VALUES ('x')")
        assert postgres.evictions == 1
        async with postgres.connection() as one, postgres.connection() as two:
            now = {await one.fetchval("SELECT pg_backend_pid()"), await two.fetchval("SELECT pg_backend_pid()")}
        assert not pids & now
        await postgres.close()

    asyncio.run(run())


def test_a_killed_backend_costs_one_error(database_url: str) -> None:
    async def run() -> None:
        postgres = await Postgres.open(database_url, size=2)
        async with postgres.connection() as one, postgres.connection() as two:
            pid = await one.fetchval("SELECT pg_backend_pid()")
            with pytest.raises(PostgresUnavailable):
                async with postgres.connection(1.0):
                    pass
            await two.fetchval("SELECT pg_terminate_backend($1)", pid)
        errors = 0
        for _ in range(10):
            try:
                async with postgres.connection() as connection:
                    await connection.fetchval("SELECT 1")
            except PostgresUnavailable:
                errors += 1
        assert errors <= 1
        await postgres.close()

    asyncio.run(run())


def test_nobody_there(tmp_path: Path) -> None:
    async def run() -> None:
        postgres = await Postgres.open(f"postgresql://postgres@/x?host={tmp_path}")
        with pytest.raises(PostgresUnavailable):
            await postgres.check()
        with pytest.raises(PostgresUnavailable):
            await postgres.apply_schema("SELECT 1")
        await postgres.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_server_that_never_answers_the_connect(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / ".s.PGSQL.5432"
        held: list[asyncio.StreamWriter] = []
        server = await asyncio.start_unix_server(lambda _, writer: held.append(writer), path)
        postgres = await Postgres.open(f"postgresql://postgres@/x?host={tmp_path}")
        began = time.monotonic()
        with pytest.raises(PostgresUnavailable):
            await postgres.check()
        assert time.monotonic() - began < 2.5
        await postgres.close()
        for writer in held:
            writer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("state", "lost"),
    [("25006", True), ("57P01", True), ("57P03", True), ("08006", True), ("23505", False), ("40001", False)],
)
def test_which_states_lose_the_connection(state: str, lost: bool) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "x", "S": "ERROR"})
    assert is_lost(error) is lost


@pytest.mark.slow
def test_a_schema_change_gives_way_to_a_table_in_use(database_url: str, embedded: EmbeddedServers) -> None:
    """lock_timeout: a schema change that would queue behind a long transaction fails instead of blocking it."""

    async def run() -> None:
        postgres = await Postgres.open(database_url)
        async with postgres.transaction(10.0) as connection:
            await connection.execute("LOCK TABLE agent IN ACCESS SHARE MODE")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await postgres.apply_schema("ALTER TABLE agent ADD COLUMN extra integer")
            assert await connection.fetchval("SELECT count(*) FROM agent") == 0
        await postgres.close()

    asyncio.run(run())
