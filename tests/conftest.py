"""Fixtures that every part may use: real PostgreSQL and Valkey, started once for the whole run."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import settings

from server.clock import SystemClock
from server.config import shared_file
from server.node.embedded import EmbeddedServers
from server.store.redis import Redis

# The same examples in each run, so that a change is judged by what it changes; `make examples` looks for new ones.
settings.register_profile("suite", derandomize=True)
settings.load_profile("suite")

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of whole calls first: several files run at once, and a long one that begins last is waited for."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServers]:
    """Both servers, empty; `.database_url` and `.redis_url`. Tests that write want the two fixtures below."""
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))  # short, because of the sockets in it
    folder.chmod(0o711)
    try:
        with EmbeddedServers.start(folder) as servers:
            yield servers
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _template(embedded: EmbeddedServers) -> str:
    """A database with the schema, to copy: its name."""

    async def make() -> None:
        await _admin(embedded, "CREATE DATABASE talkspurt_template")
        connection = await asyncpg.connect(_database(embedded, "talkspurt_template"))
        await connection.execute(shared_file("schema.sql").read_text())
        await connection.close()

    asyncio.run(make())
    return "talkspurt_template"


@pytest.fixture
def database_url(embedded: EmbeddedServers, _template: str) -> Iterator[str]:
    """A database of the test's own, with the schema and no rows."""
    name = f"test_{next(_numbers)}"
    asyncio.run(_admin(embedded, f"CREATE DATABASE {name} TEMPLATE {_template} STRATEGY file_copy"))
    yield _database(embedded, name)
    asyncio.run(_admin(embedded, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def redis_url(embedded: EmbeddedServers) -> str:
    """An empty Redis."""

    async def empty() -> None:
        redis = Redis.open(embedded.redis_url, SystemClock(), command_s=2.0)
        await redis.execute("FLUSHALL")
        await redis.close()

    asyncio.run(empty())
    return embedded.redis_url


def _database(embedded: EmbeddedServers, name: str) -> str:
    return urlunsplit(urlsplit(embedded.database_url)._replace(path=f"/{name}"))


async def _admin(embedded: EmbeddedServers, statement: str) -> None:
    connection = await asyncpg.connect(embedded.database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
