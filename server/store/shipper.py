"""Copies the spool to PostgreSQL: in batches, in order, each fact exactly once.

A batch is one transaction that also moves the boot's `shipped_seq`; a fact at or below it has taken effect before
and is skipped, so a lost reply to COMMIT does no harm. While PostgreSQL is away the files wait. A fact that the
database refuses is tried five times and then set aside in `spool_quarantine`, so that the rest flows on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from server.store import queries
from server.store.backlog import Backlog, adopt_dead
from server.store.fact import (
    STAGES,
    CallAnswered,
    CallEnded,
    CallStarted,
    Fact,
    FactError,
    SegmentFact,
    ToolEnded,
    ToolStarted,
    TurnFact,
    decode,
)
from server.store.postgres import Connection, Postgres
from server.store.segment import Record
from server.store.spool import Spool

log = logging.getLogger(__name__)

BATCH_RECORDS = 500
BATCH_S = 5.0
"""One transaction; a slow commit makes the next batch larger, nothing waits for it."""
GATHER_S = 0.25
"""From the first fact that waits to the transaction that takes it and all that came meanwhile. Facts are on the local
disk by then; a transaction for each group of the spool cost a tenth of the server's CPU (docs/performance.md)."""
BACKOFF_S = (0.1, 5.0)
# A zero character in JSON; after an odd number of further backslashes it is six characters of a text.
_ESCAPED_ZERO = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
POISON_TRIES = 5
POISON_BACKOFF_S = 0.02
ADOPT_EVERY_S = 30.0
"""How long a neighbour's spool may lie before it is adopted."""

_STATEMENTS: tuple[tuple[type[Fact], str], ...] = (
    (CallStarted, queries.INSERT_CALL),
    (CallAnswered, queries.ANSWER_CALL),
    (TurnFact, queries.INSERT_TURN),
    (SegmentFact, queries.INSERT_SEGMENT),
    (ToolStarted, queries.INSERT_TOOL),
    (ToolEnded, queries.END_TOOL),
    (CallEnded, queries.END_CALL),
)
"""In the order that the foreign keys want."""


class Shipper:
    """Ships one process's spool and those of dead neighbours. `run` is the one task.

    Attributes:
        shipped: facts that took effect. failures: batches that PostgreSQL did not take because it was away.
        quarantined: facts that were set aside. torn_tails: segments of dead lives that ended within a record.
    """

    def __init__(
        self,
        spool: Spool,
        postgres: Postgres,
        *,
        batch_records: int = BATCH_RECORDS,
        backoff_s: tuple[float, float] = BACKOFF_S,
        gather_s: float = GATHER_S,
    ) -> None:
        self.shipped = 0
        self.failures = 0
        self.quarantined = 0
        self.torn_tails = 0
        self._spool = spool
        self._postgres = postgres
        self._batch_records = batch_records
        self._backoff_s = backoff_s
        self._gather_s = gather_s
        self._own = Backlog(spool.folder, spool.boot)
        self._adopted: list[Backlog] = []
        self._wake = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._waiters = 0
        self._is_hurried = asyncio.Event()
        self._has_looked = False
        self._behind_since: float | None = None

    @property
    def age_s(self) -> float:
        """How long facts have been waiting for PostgreSQL, 0 when none are."""
        return 0.0 if self._behind_since is None else time.monotonic() - self._behind_since

    async def run(self) -> None:
        """Ship until cancelled. Returns never; nothing that PostgreSQL does makes it raise."""
        loop = asyncio.get_running_loop()

        def on_durable() -> None:
            loop.call_soon_threadsafe(self._on_durable)

        self._spool.on_durable = on_durable
        next_adoption = 0.0
        backoff_s = self._backoff_s[0]
        try:
            while True:
                self._wake.clear()
                if time.monotonic() >= next_adoption:
                    await self._adopt()
                    next_adoption = time.monotonic() + ADOPT_EVERY_S
                try:
                    await self._ship_everything()
                except Exception as error:  # noqa: BLE001  whatever it is, the files are there and it is tried again
                    self._on_failure(error)
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                    backoff_s = min(backoff_s * 2, self._backoff_s[1])
                    continue
                if self.failures and backoff_s > self._backoff_s[0]:
                    log.info("facts reach PostgreSQL again", extra={"shipped": self.shipped})
                backoff_s = self._backoff_s[0]
                try:
                    async with asyncio.timeout(max(0.0, next_adoption - time.monotonic())):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                await self._gather()
        finally:
            self._spool.on_durable = None
            for backlog in self._adopted:
                backlog.release()

    async def wait_shipped(self) -> None:
        """Return when everything appended so far, and every life adopted so far, is in PostgreSQL.

        Waits for the first look at what ended processes left. The caller brings the deadline.
        """
        await self._spool.flush()
        target = self._spool.durable_seq
        self._waiters += 1
        self._is_hurried.set()
        try:
            while self._spool.shipped_seq < target or self._adopted or not self._has_looked:
                self._caught_up.clear()
                await self._caught_up.wait()
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._is_hurried.clear()

    async def _gather(self) -> None:
        """Let more facts come, unless somebody waits for those that are there."""
        try:
            async with asyncio.timeout(self._gather_s):
                await self._is_hurried.wait()
        except TimeoutError:
            pass

    def _on_durable(self) -> None:
        if self._behind_since is None:
            self._behind_since = time.monotonic()
        self._wake.set()

    async def _adopt(self) -> None:
        known = {self._spool.boot, *(backlog.boot for backlog in self._adopted)}
        try:
            found = await asyncio.to_thread(adopt_dead, self._spool.folder, known)
        except OSError as error:
            log.error("cannot adopt the spool of ended processes", extra={"error": str(error)})
            return
        for backlog in found:
            self.torn_tails += backlog.torn_tails
        self._adopted += found

    async def _ship_everything(self) -> None:
        while self._adopted:
            if not await self._ship_some(self._adopted[0], None):
                await asyncio.to_thread(self._adopted.pop(0).finish)
        # What comes meanwhile gathers for the next time.
        upto, began = self._spool.durable_seq, time.monotonic()
        while self._spool.shipped_seq < upto and await self._ship_some(self._own, upto):
            pass
        self._behind_since = None if self._spool.shipped_seq == self._spool.durable_seq else began
        self._has_looked = True
        self._caught_up.set()

    async def _ship_some(self, backlog: Backlog, upto_seq: int | None) -> bool:
        """One batch. False when there was nothing to ship. On an error the backlog stands where it stood."""
        position = backlog.position
        batch = await asyncio.to_thread(backlog.read, self._batch_records, upto_seq)
        if not batch:
            return False
        try:
            try:
                await self._apply(backlog, batch)
            except (FactError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError) as error:
                if not is_poison(error):
                    raise
                await self._apply_singly(backlog, batch)
        except BaseException:
            backlog.rewind(*position)
            raise
        await asyncio.to_thread(backlog.acknowledge)
        if backlog is self._own:
            self._spool.shipped_seq = batch[-1].seq
        return True

    async def _apply(self, backlog: Backlog, batch: Sequence[Record]) -> None:
        # Decoded first: what is not a fact must not cost a transaction.
        facts = [(record.seq, decode(record.payload)) for record in batch]
        async with self._postgres.transaction(BATCH_S) as connection:
            shipped_seq = await connection.fetchval(queries.LOCK_BOOT, backlog.boot)
            fresh = [fact for seq, fact in facts if seq > shipped_seq]
            await _insert(connection, fresh)
            if fresh:
                await connection.execute(queries.MOVE_BOOT, backlog.boot, batch[-1].seq)
        self.shipped += len(fresh)

    async def _apply_singly(self, backlog: Backlog, batch: Sequence[Record]) -> None:
        for record in batch:
            for attempt in range(1, POISON_TRIES + 1):
                try:
                    await self._apply(backlog, [record])
                    break
                except (FactError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError) as error:
                    if not is_poison(error):
                        raise
                    if attempt == POISON_TRIES:
                        await self._quarantine(backlog, record, error)
                    else:
                        await asyncio.sleep(POISON_BACKOFF_S * 2**attempt)

    async def _quarantine(self, backlog: Backlog, record: Record, error: Exception) -> None:
        async with self._postgres.transaction(BATCH_S) as connection:
            if record.seq <= await connection.fetchval(queries.LOCK_BOOT, backlog.boot):
                return
            text = f"{type(error).__name__}: {error}".replace("\0", "")[:1000]
            await connection.execute(queries.INSERT_QUARANTINE, backlog.boot, record.seq, record.payload, text)
            await connection.execute(queries.MOVE_BOOT, backlog.boot, record.seq)
        self.quarantined += 1
        # Not `text`: what the database says of a row quotes it, and it holds what was said or a caller's number.
        kind = {"error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)}
        kind["constraint"] = getattr(error, "constraint_name", None)
        log.error("a fact was set aside", extra={"boot": str(backlog.boot), "seq": record.seq, **kind})

    def _on_failure(self, error: Exception) -> None:
        self.failures += 1
        if self._behind_since is None:
            self._behind_since = time.monotonic()
        if self.failures & (self.failures - 1) == 0:  # 1, 2, 4, 8 …: an outage is not a flood of lines
            log.warning("facts wait for PostgreSQL", extra={"failures": self.failures, "error": str(error)})


def is_poison(error: BaseException) -> bool:
    """Is it the record's fault? Class 22 data, 23 integrity, or what asyncpg or we cannot even send.

    All else (no connection, no disk, no table yet) is the database's, and the record waits.
    """
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "")[:2] in ("22", "23")
    return isinstance(error, FactError | ValueError | TypeError)


async def _insert(connection: Connection, facts: Sequence[Fact]) -> None:
    for kind, statement in _STATEMENTS:
        rows = [_row(fact) for fact in facts if type(fact) is kind]
        if rows:
            await connection.executemany(statement, rows)


def _row(fact: Fact) -> tuple[Any, ...]:
    match fact:
        case CallStarted():
            row: tuple[Any, ...] = (fact.call_id, fact.carrier, fact.carrier_call_id, fact.direction)
            row += (fact.from_number, fact.to_number, fact.agent_version_id, fact.at)
        case CallAnswered():
            row = (fact.call_id, fact.at)
        case TurnFact():
            row = (fact.call_id, fact.turn_no, fact.turn_latency_ms, *(fact.stages.get(stage) for stage in STAGES))
            row += (fact.interrupted, fact.caller_text, fact.agent_text, fact.prompt_tokens, fact.completion_tokens)
            row += tuple(fact.providers.get(service, "") for service in ("stt", "llm", "tts"))
        case SegmentFact():
            heard_text = fact.text if fact.heard_text is None else fact.heard_text
            row = (fact.call_id, fact.seq, fact.speaker, fact.text, heard_text)
            row += (fact.start_ms, fact.end_ms, fact.confidence, fact.interrupted)
        case ToolStarted():
            arguments = orjson.dumps(dict(fact.arguments)).decode()
            # Nor has jsonb for an escaped one.
            row = (fact.call_id, fact.tool_no, fact.name, _ESCAPED_ZERO.sub(r"\1", arguments), fact.at)
        case ToolEnded():
            row = (fact.call_id, fact.tool_no, fact.outcome, fact.result, fact.attempts, fact.duration_ms)
        case CallEnded():
            row = (fact.call_id, fact.reason, fact.duration_ms, fact.at, orjson.dumps(dict(fact.counters)).decode())
    # PostgreSQL has no form for a zero character; a model may still write one.
    return tuple(value.replace("\0", "") if isinstance(value, str) else value for value in row)
