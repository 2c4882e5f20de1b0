"""PostgreSQL by asyncpg, with every wait bounded and no connection kept that cannot be trusted.

    acquire     250 ms, connecting included up to 2 s
    command     2 s; when the time is up the connection is terminated, because asyncpg's own way of cancelling waits
                for a second connection (72 s were measured)
    evicted     SQLSTATE 25006 (read only), 57P0x (shutting down), 08xxx (connection): all idle connections go too,
                so that a failover costs one error and not a pool (M8)

Prepared statements are asyncpg's default: cached, 100 a connection. A pooler in transaction mode in between needs
statement_cache_size=0 in DATABASE_URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from server.store.queries import LOCK_SCHEMA

Connection: TypeAlias = "PoolConnectionProxy[Any]"
"""What `connection` and `transaction` give: an asyncpg connection that belongs to the pool."""

CONNECT_S = 2.0
COMMAND_S = 2.0
ACQUIRE_S = 0.25
SCHEMA_S = 60.0
POOL_SIZE = 4


class PostgresUnavailable(Exception):
    """PostgreSQL cannot be reached, is read only, or did not answer in time. Try again later."""


class Postgres:
    """A pool. `open` never connects, so a process starts without its database.

    Attributes:
        evictions: times that all idle connections were given up.
    """

    __slots__ = ("_acquire_s", "_pool", "evictions")

    def __init__(self, pool: asyncpg.Pool, *, acquire_s: float = ACQUIRE_S) -> None:
        self._pool = pool
        self._acquire_s = acquire_s
        self.evictions = 0

    @classmethod
    async def open(cls, url: str, *, size: int = POOL_SIZE, acquire_s: float = ACQUIRE_S) -> Postgres:
        """A pool of at most `size` connections to the primary of `url`. Raises ValueError for a bad URL."""
        pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=size,
            timeout=CONNECT_S,
            command_timeout=COMMAND_S,
            target_session_attrs="primary",
            server_settings={"application_name": "talkspurt", "timezone": "UTC"},
        )
        await pool
        return cls(pool, acquire_s=acquire_s)

    async def close(self) -> None:
        """Close all connections, by force after 2 s."""
        try:
            async with asyncio.timeout(COMMAND_S):
                await self._pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError):
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self, limit_s: float = COMMAND_S) -> AsyncIterator[Connection]:
        """A connection for at most `limit_s` in all.

        Raises:
            PostgresUnavailable: no connection in time, or it failed or overran; it is not used again.
            asyncpg.PostgresError: the database refused the statement.
        """
        try:
            connection = await self._acquire()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            await self._evict_if_lost(error)
            raise PostgresUnavailable(f"no connection: {error!r}") from error
        try:
            async with asyncio.timeout(limit_s):
                yield connection
        except BaseException as error:
            if is_lost(error) or isinstance(error, asyncio.CancelledError):
                connection.terminate()
            if is_lost(error):
                await self._evict_if_lost(error)
                raise PostgresUnavailable(f"connection lost: {error!r}") from error
            raise
        finally:
            # A terminated connection is released at once; the others reset their session.
            try:
                await self._pool.release(connection, timeout=COMMAND_S)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    @asynccontextmanager
    async def transaction(self, limit_s: float = COMMAND_S) -> AsyncIterator[Connection]:
        """`connection` with BEGIN and COMMIT around it. A lost reply to COMMIT raises PostgresUnavailable too."""
        async with self.connection(limit_s) as connection, connection.transaction():
            yield connection

    async def apply_schema(self, sql: str) -> None:
        """Run `schema.sql` in one transaction; processes that start together take turns.

        Raises:
            PostgresUnavailable, asyncpg.PostgresError: nothing has been changed.
        """
        async with self.connection(SCHEMA_S) as connection, connection.transaction():
            # A table that is in use must not make every other query of it wait behind us.
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            await connection.execute("SET LOCAL client_min_messages = warning")
            await connection.execute(LOCK_SCHEMA, timeout=SCHEMA_S)
            await connection.execute(sql, timeout=SCHEMA_S)

    async def check(self) -> None:
        """Is it there and writable? A read-only node answers SELECT 1. Raises PostgresUnavailable."""
        async with self.connection() as connection:
            if await connection.fetchval(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"
            ):
                await self._expire()
                raise PostgresUnavailable("connected to a node that is read only")

    async def _acquire(self) -> Any:
        if self._pool.get_idle_size() or self._pool.get_size() >= self._pool.get_max_size():
            return await self._pool.acquire(timeout=self._acquire_s)
        return await self._pool.acquire(timeout=CONNECT_S)

    async def _evict_if_lost(self, error: BaseException) -> None:
        if is_lost(error):
            await self._expire()

    async def _expire(self) -> None:
        self.evictions += 1
        await self._pool.expire_connections()


def is_lost(error: BaseException) -> bool:
    """Does `error` say that the connection, or its server, must not be used again?"""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        return state == "25006" or state.startswith(("08", "57P0"))
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    return isinstance(error, TimeoutError | OSError | asyncpg.InternalClientError)
