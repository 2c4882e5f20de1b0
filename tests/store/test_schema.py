"""schema.sql on a real PostgreSQL: applying it twice does no harm, and every column says what it is."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

from server.config import shared_file
from server.store.postgres import Postgres

TABLES = {
    "agent",
    "agent_version",
    "phone_number",
    "call",
    "turn",
    "transcript_segment",
    "tool_invocation",
    "spool_boot",
    "spool_quarantine",
}

DUMP = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""
CONSTRAINTS = "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1, 2"
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


async def snapshot(url: str) -> list[list[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetch(query) for query in (DUMP, CONSTRAINTS, INDEXES)]
    finally:
        await connection.close()


def test_applying_it_again_changes_nothing(database_url: str) -> None:
    async def run() -> None:
        before = await snapshot(database_url)
        postgres = await Postgres.open(database_url)
        sql = shared_file("schema.sql").read_text()
        await postgres.apply_schema(sql)
        # Two processes that start together, on a new database and on this one, take turns.
        await asyncio.gather(*(postgres.apply_schema(sql) for _ in range(3)))
        await postgres.close()
        assert await snapshot(database_url) == before
        assert {row["table_name"] for row in before[0]} == TABLES

    asyncio.run(run())


def test_a_broken_schema_changes_nothing(database_url: str) -> None:
    async def run() -> None:
        before = await snapshot(database_url)
        postgres = await Postgres.open(database_url)
        with pytest.raises(asyncpg.PostgresError):
            await postgres.apply_schema("CREATE TABLE extra (id integer); SELECT no_such_function();")
        await postgres.close()
        assert await snapshot(database_url) == before

    asyncio.run(run())


def test_every_duration_and_offset_is_checked_and_every_table_explained() -> None:
    sql = shared_file("schema.sql").read_text()
    for line in re.findall(r"^ +\w+_ms +.*$", sql, re.M):
        assert "CHECK" in line, line
    for table in TABLES:
        assert f"COMMENT ON TABLE {table} IS" in sql
    stages = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own", "playout")
    for stage in (*stages, "turn_latency"):
        assert f"COMMENT ON COLUMN turn.{stage}_ms IS" in sql


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO agent (slug) VALUES ('Bad Slug')",
        "INSERT INTO phone_number (number, agent_id) VALUES ('5551234', gen_random_uuid())",
        "INSERT INTO spool_boot (boot_id, shipped_seq) VALUES (gen_random_uuid(), -1)",
        "INSERT INTO turn (call_id, turn_no) VALUES (gen_random_uuid(), 0)",
        "INSERT INTO call"
        " (id, carrier, carrier_call_id, direction, from_number, to_number, agent_version_id, started_at)"
        " VALUES (gen_random_uuid(), 'pigeon', '', 'inbound', '', '', gen_random_uuid(), now())",
    ],
)
def test_wrong_rows_are_refused(database_url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
