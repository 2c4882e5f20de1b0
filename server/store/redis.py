"""Redis for state that can be rebuilt: 50 ms a command, no retries, and no more tries while it is sick.

redis-py's own defaults are 5 s and ten retries: one read of a frozen server had not returned after 30 s
(measured). Here a command costs at most 50 ms, and after five errors in a row none for 10 s. A connection
whose command was cancelled or overran is closed, so that its late reply can never answer somebody else (row 55).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from server.clock import Clock

log = logging.getLogger(__name__)

COMMAND_S = 0.05
BREAK_AFTER = 5
BREAK_S = 10.0
POOL_SIZE = 16
KEY_PREFIX = "talkspurt:"


class RedisUnavailable(Exception):
    """Redis did not answer in time, refused the connection, or is not being asked for a while."""


class Redis:
    """A client of at most 16 connections. `open` never connects.

    Attributes:
        errors: commands that failed. skipped: commands that the open breaker answered.
    """

    __slots__ = ("_client", "_clock", "_command_s", "_failures", "_open_until_ns", "errors", "skipped")

    def __init__(self, client: Client, clock: Clock, *, command_s: float = COMMAND_S) -> None:
        self._client = client
        self._clock = clock
        self._command_s = command_s
        self._failures = 0
        self._open_until_ns = 0
        self.errors = 0
        self.skipped = 0

    @classmethod
    def open(cls, url: str, clock: Clock, *, command_s: float = COMMAND_S) -> Redis:
        """A client for `url`. Raises ValueError when it is no Redis URL."""
        pool: ConnectionPool = BlockingConnectionPool.from_url(
            url,
            max_connections=POOL_SIZE,
            timeout=command_s,
            socket_timeout=command_s,
            socket_connect_timeout=command_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # RESP3 greets every connection first; we use nothing of it
            driver_info=None,
        )
        return cls(Client.from_pool(pool), clock, command_s=command_s)

    @property
    def is_open(self) -> bool:
        """True while the breaker keeps commands away."""
        return self._clock.now_ns() < self._open_until_ns

    async def execute(self, *command: str | bytes | int) -> Any:
        """Run one command, e.g. `execute("SET", key, value, "EX", 60)`.

        Returns:
            The reply: bytes, int, list or None. A status such as OK comes as True.
        Raises:
            RedisUnavailable: within about 60 ms; whether the command took effect is not known.
            redis.exceptions.ResponseError: the server refused the command itself.
        """
        if self.is_open:
            self.skipped += 1
            raise RedisUnavailable(f"not asked for {BREAK_S:.0f} s after {BREAK_AFTER} errors")
        try:
            async with asyncio.timeout(self._command_s):
                reply = await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            # Read only, out of memory and the like are states of the server; the rest is a mistake of ours.
            is_state = isinstance(error, ReadOnlyError | OutOfMemoryError | MasterDownError)
            if not is_state and not str(error).startswith(("MISCONF", "NOREPLICAS")):
                raise
            raise self._failed(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        self._failures = 0
        return reply

    async def check(self) -> None:
        """Raises RedisUnavailable when it does not answer."""
        await self.execute("PING")

    async def close(self) -> None:
        await self._client.aclose(close_connection_pool=True)

    def _failed(self, error: Exception) -> RedisUnavailable:
        self.errors += 1
        self._failures += 1
        if self._failures >= BREAK_AFTER:
            # One failure after the pause opens it again.
            self._failures = BREAK_AFTER - 1
            self._open_until_ns = self._clock.now_ns() + round(BREAK_S * 1e9)
            log.warning("Redis is given a rest", extra={"rest_s": BREAK_S, "error": repr(error)})
        return RedisUnavailable(f"no answer: {error!r}")
