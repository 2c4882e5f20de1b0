"""The agents that calls reach: imported from YAML, versioned in PostgreSQL, answered from memory.

    agents/*.yaml ──import──► agent, agent_version, phone_number ──refresh──► memory ──► agent_for_number
                                                                     └──► snapshot file (for a start without database)

A call never waits for the database. A version is made only when the settings changed; going back to earlier
settings activates the earlier version again. The snapshot is signed, because a file decides what the agent says.
An agent that this process cannot serve stops its start; one that comes later leaves the version that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import asyncpg
import orjson

from server.agent.importer import ANY_NUMBER, AgentDefinition, AgentFileError, check_numbers, parse_agent, settings_json
from server.agent.settings import AgentSettings, SettingsError
from server.clock import Clock
from server.errors import ConfigError
from server.store import queries
from server.store.postgres import Postgres, PostgresUnavailable

log = logging.getLogger(__name__)

REFRESH_S = 10.0
"""How long a change made by another process may take to reach this one's new calls."""
SNAPSHOT_MAX_AGE_S = 24 * 3600
"""Older than this, starting on it does more harm than not starting."""

Source = Literal["nothing", "snapshot", "database"]
AgentCheck = Callable[[str, AgentSettings], None]
"""Whether this process can serve the agent of that slug; raises ConfigError, naming it, when it cannot."""


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """What a call pins at its start. `id` goes into the call's row."""

    id: str
    agent_id: str
    slug: str
    version: int
    settings: AgentSettings


class AgentStore:
    """Agents of this process's memory.

    Args:
        check: asked of each version before it is imported or served.
    Attributes:
        source: where the memory came from; "snapshot" until the database has been reached.
    """

    def __init__(self, postgres: Postgres, snapshot: Path, key: bytes, clock: Clock, check: AgentCheck) -> None:
        self.source: Source = "nothing"
        self._postgres = postgres
        self._snapshot = snapshot
        self._key = hmac.digest(key, b"talkspurt agent snapshot", "sha256")
        self._clock = clock
        self._check = check
        self._is_started = False
        self._refused: frozenset[str] = frozenset()  # ids of versions that were logged as unusable
        self._by_slug: dict[str, AgentVersion] = {}
        self._by_number: dict[str, AgentVersion] = {}
        self._to_import: Sequence[AgentDefinition] = ()
        self._saved: bytes = b""
        self._saved_at_s = 0.0

    @property
    def agents(self) -> tuple[AgentVersion, ...]:
        return tuple(self._by_slug.values())

    async def agent_for_number(self, number: str) -> AgentVersion | None:
        """Who answers `number` (E.164)? From memory: never waits. None when nobody does."""
        return self._by_number.get(number) or self._by_number.get(ANY_NUMBER)

    async def agent_named(self, slug: str) -> AgentVersion | None:
        """The agent of the file `slug`.yaml. From memory: never waits."""
        return self._by_slug.get(slug)

    async def start(self, folder: Path) -> Source:
        """Import `folder`, fill the memory. With the database away, from the snapshot; "nothing" without one.

        Raises:
            AgentFileError: a file in `folder` is not an agent.
            ConfigError: an agent of the folder, or one that is stored, cannot be served. Nothing has been imported if
                it is one of the folder's: other processes may be able to serve what they have.
        """
        self._to_import = await asyncio.to_thread(read_folder, folder)
        for one in self._to_import:
            self._check(one.slug, one.settings)
        try:
            await self.refresh()
        except (PostgresUnavailable, asyncpg.PostgresError) as error:
            self._load_snapshot()
            log.warning("agents without the database", extra={"source": self.source, "error": str(error)})
        self._is_started = True
        return self.source

    async def run(self) -> None:
        """Keep the memory fresh until cancelled; an outage leaves it as it is."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001  the memory stands, the next round tries again
                log.warning("agents not refreshed", extra={"error": str(error)})

    async def refresh(self) -> None:
        """Import what is still to be imported, then read all agents.

        Raises:
            PostgresUnavailable, asyncpg.PostgresError: the memory is as before.
        """
        if self._to_import:
            await self._import(self._to_import)
            self._to_import = ()
        async with self._postgres.connection() as connection:
            versions = [dict(row) for row in await connection.fetch(queries.SELECT_AGENTS)]
            numbers = [(row["number"], str(row["agent_id"])) for row in await connection.fetch(queries.SELECT_NUMBERS)]
        table = [
            {"slug": v["slug"], "agent_id": str(v["agent_id"]), "id": str(v["id"]), "version": v["version"],
             "settings": orjson.loads(v["settings"])}
            for v in versions
        ]  # fmt: skip
        self._fill(table, numbers)
        self.source = "database"
        await self._save_snapshot(orjson.dumps({"agents": table, "numbers": numbers}))

    async def _import(self, definitions: Iterable[AgentDefinition]) -> None:
        async with self._postgres.transaction(10.0) as connection:
            await connection.execute(queries.LOCK_SCHEMA)
            for one in definitions:
                agent_id = await connection.fetchval(queries.UPSERT_AGENT, one.slug)
                await connection.execute(
                    queries.INSERT_VERSION, agent_id, one.content_hash, settings_json(one.settings)
                )
                moved = await connection.execute(queries.ACTIVATE_VERSION, agent_id, one.content_hash)
                await connection.execute(queries.DELETE_OTHER_NUMBERS, agent_id, list(one.numbers))
                for number in one.numbers:
                    await connection.execute(queries.UPSERT_NUMBER, number, agent_id)
                if moved != "UPDATE 0":
                    log.info("agent imported", extra={"agent": one.slug, "content_hash": one.content_hash[:12]})

    def _fill(self, table: Iterable[dict[str, Any]], numbers: Iterable[tuple[str, str]]) -> None:
        by_slug: dict[str, AgentVersion] = {}
        refused: set[str] = set()
        for row in table:
            slug, version_id = row["slug"], row["id"]
            known = self._by_slug.get(slug)
            if known is None or known.id != version_id:
                try:
                    settings = AgentSettings.parse(row["settings"])
                    self._check(slug, settings)
                    known = AgentVersion(version_id, row["agent_id"], slug, row["version"], settings)
                except (SettingsError, ConfigError) as error:
                    if isinstance(error, ConfigError) and not self._is_started:
                        raise
                    # Stored by another release or for another process: the version that works stays, and the others.
                    refused.add(version_id)
                    if version_id not in self._refused:
                        extra = {"event": "agent_refused", "agent": slug}
                        log.error("agent version cannot be used: %s", error, extra=extra)
            if known is not None:
                by_slug[slug] = known
        self._refused = frozenset(refused)
        by_agent = {one.agent_id: one for one in by_slug.values()}
        self._by_slug = by_slug
        self._by_number = {number: by_agent[agent] for number, agent in numbers if agent in by_agent}

    async def _save_snapshot(self, body: bytes) -> None:
        """Write the snapshot when it changed, or is an hour old; a disk that refuses is only logged."""
        now_s = self._clock.wall_s()
        if body == self._saved and now_s - self._saved_at_s < 3600:
            return
        signed = orjson.dumps({"at": now_s}) + b"\n" + body
        try:
            await asyncio.to_thread(_replace, self._snapshot, self._sign(signed) + b"\n" + signed)
        except OSError as error:
            log.warning("agent snapshot not written", extra={"error": str(error)})
            return
        self._saved, self._saved_at_s = body, now_s

    def _load_snapshot(self) -> None:
        try:
            mac, _, signed = self._snapshot.read_bytes().partition(b"\n")
        except OSError:
            return
        if not hmac.compare_digest(mac, self._sign(signed)):
            log.error("agent snapshot refused: its signature is not ours", extra={"path": str(self._snapshot)})
            return
        head, _, body = signed.partition(b"\n")
        age_s = self._clock.wall_s() - orjson.loads(head)["at"]
        if age_s > SNAPSHOT_MAX_AGE_S:
            log.error("agent snapshot refused: too old", extra={"age_s": round(age_s)})
            return
        content = orjson.loads(body)
        self._fill(content["agents"], [(number, agent) for number, agent in content["numbers"]])
        self.source = "snapshot"

    def _sign(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256").hex().encode()


def read_folder(folder: Path) -> list[AgentDefinition]:
    """All *.yaml of `folder`, by name. Raises AgentFileError for the first that is not an agent."""
    definitions = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AgentFileError(path.stem, f"cannot be read ({error})") from error
        definitions.append(parse_agent(path.stem, text))
    check_numbers(definitions)
    return definitions


async def stored_agents(connection: asyncpg.Connection[asyncpg.Record]) -> list[tuple[str, AgentSettings]]:
    """Slug and settings of every stored agent that this release can read."""
    agents = []
    for row in await connection.fetch(queries.SELECT_AGENTS):
        with contextlib.suppress(SettingsError):
            agents.append((row["slug"], AgentSettings.parse(orjson.loads(row["settings"]))))
    return agents


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
