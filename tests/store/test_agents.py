"""Agents: imported once, versioned by content, routed from memory, and there without the database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from providers.observer import Unobserved
from server.agent.importer import AgentFileError
from server.catalogue import Catalogue
from server.clock import ManualClock
from server.config import ProviderConfig
from server.errors import ConfigError
from server.store.agents import AgentStore
from server.store.postgres import Postgres, PostgresUnavailable

KEY = b"k" * 32
ONE = 'numbers: ["+15550100001"]\nname: One\nopening: {text: Hello}\n'
TWO = 'numbers: ["+15550100002", "*"]\nname: Two\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "one.yaml").write_text(ONE)
    (tmp_path / "agents" / "two.yaml").write_text(TWO)
    return tmp_path / "agents"


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(text)


async def open_store(url: str, folder: Path, clock: ManualClock | None = None, key: bytes = KEY) -> AgentStore:
    postgres = await Postgres.open(url)
    catalogue = Catalogue(ProviderConfig(), Unobserved())
    return AgentStore(postgres, folder.parent / "snapshot", key, clock or ManualClock(), catalogue.check)


async def versions(url: str) -> list[tuple[str, int, bool]]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT a.slug, v.version, a.active_version_id = v.id AS active FROM agent_version AS v"
            " JOIN agent AS a ON a.id = v.agent_id ORDER BY 1, 2"
        )
        return [tuple(row) for row in rows]
    finally:
        await connection.close()


def test_numbers_reach_their_agents(database_url: str, folder: Path) -> None:
    async def run() -> None:
        store = await open_store(database_url, folder)
        assert await store.agent_for_number("+15550100001") is None
        assert await store.start(folder) == "database"
        one = await store.agent_for_number("+15550100001")
        assert one is not None and (one.slug, one.version, one.settings.name) == ("one", 1, "One")
        assert one.settings.opening.text == "Hello"
        anyone = await store.agent_for_number("+34911111111")
        assert anyone is not None and anyone.slug == "two"
        assert await store.agent_named("one") is one and await store.agent_named("three") is None
        assert [agent.slug for agent in store.agents] == ["one", "two"]
        await store._postgres.close()

    asyncio.run(run())


def test_a_version_is_made_only_when_the_settings_changed(database_url: str, folder: Path) -> None:
    async def load() -> AgentStore:
        store = await open_store(database_url, folder)
        await store.start(folder)
        await store._postgres.close()
        return store

    async def run() -> None:
        await load()
        await load()
        write(folder, "one", "# a comment\nopening:\n  text: Hello\nname: One\nnumbers: ['+15550100001']\n")
        await load()
        assert await versions(database_url) == [("one", 1, True), ("two", 1, True)]
        write(folder, "one", ONE.replace("Hello", "Good day"))
        store = await load()
        assert await versions(database_url) == [("one", 1, False), ("one", 2, True), ("two", 1, True)]
        one = await store.agent_named("one")
        assert one is not None and (one.version, one.settings.opening.text) == (2, "Good day")
        write(folder, "one", ONE)
        await load()  # back to what it was: the first version again, not a third
        assert await versions(database_url) == [("one", 1, True), ("one", 2, False), ("two", 1, True)]

    asyncio.run(run())


def test_numbers_move_and_go(database_url: str, folder: Path) -> None:
    async def run() -> None:
        store = await open_store(database_url, folder)
        await store.start(folder)
        write(folder, "one", "numbers: []\nname: One\n")
        write(folder, "two", TWO.replace('"*"', '"+15550100001"'))
        await store.start(folder)
        moved = await store.agent_for_number("+15550100001")
        assert moved is not None and moved.slug == "two"
        assert await store.agent_for_number("+34911111111") is None
        await store._postgres.close()

    asyncio.run(run())


def test_processes_that_start_together(database_url: str, folder: Path) -> None:
    async def run() -> None:
        stores = [await open_store(database_url, folder) for _ in range(4)]
        await asyncio.gather(*(store.start(folder) for store in stores))
        assert await versions(database_url) == [("one", 1, True), ("two", 1, True)]
        for store in stores:
            await store._postgres.close()

    asyncio.run(run())


def test_a_refresh_sees_what_another_process_changed_and_keeps_what_did_not(database_url: str, folder: Path) -> None:
    async def run() -> None:
        mine, theirs = await open_store(database_url, folder), await open_store(database_url, folder)
        await mine.start(folder)
        one, two = mine.agents
        write(folder, "one", ONE.replace("Hello", "Good day"))
        await theirs.start(folder)
        await mine.refresh()
        assert mine.agents[0].version == 2 and mine.agents[1] is two and one.version == 1
        await mine._postgres.close()
        await theirs._postgres.close()

    asyncio.run(run())


def test_without_the_database_the_snapshot_serves(database_url: str, folder: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        store = await open_store(database_url, folder, clock)
        await store.start(folder)
        known = store.agents
        await store._postgres.close()
        nowhere = f"postgresql://postgres@/x?host={folder}"

        alone = await open_store(nowhere, folder, clock)
        assert await alone.start(folder) == "snapshot"
        assert alone.agents == known
        anyone = await alone.agent_for_number("+34911111111")
        assert anyone is not None and anyone.slug == "two"
        with pytest.raises(PostgresUnavailable):
            await alone.refresh()
        assert alone.agents == known

        clock.advance_ms(24 * 3600 * 1000 + 1)
        late = await open_store(nowhere, folder, clock)
        assert await late.start(folder) == "nothing"

    asyncio.run(run())


def test_a_snapshot_that_is_not_ours_is_refused(database_url: str, folder: Path) -> None:
    async def run() -> None:
        store = await open_store(database_url, folder)
        await store.start(folder)
        await store._postgres.close()
        nowhere = f"postgresql://postgres@/x?host={folder}"
        stranger = await open_store(nowhere, folder, key=b"x" * 32)
        assert await stranger.start(folder) == "nothing"
        tamper(folder.parent / "snapshot")
        ours = await open_store(nowhere, folder)
        assert await ours.start(folder) == "nothing"
        (await asyncio.to_thread((folder.parent / "snapshot").unlink))
        assert await (await open_store(nowhere, folder)).start(folder) == "nothing"

    asyncio.run(run())


def tamper(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes().replace(b"Hello", b"Pay me"))


async def activate(url: str, settings: str) -> None:
    """What another process might store: a version of agent "one" that no import of ours has checked."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "WITH v AS (INSERT INTO agent_version (agent_id, version, content_hash, settings)"
        " SELECT id, 9, repeat('a', 64), $1::jsonb FROM agent WHERE slug = 'one'"
        " RETURNING id, agent_id)"
        " UPDATE agent SET active_version_id = v.id FROM v WHERE agent.id = v.agent_id",
        settings,
    )
    await connection.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('{"from_the_future": 1}', "from_the_future: unknown setting"),
        ('{"stt": {"provider": "azure"}}', "agent one: stt.provider: expected one of moonshine"),
        ('{"channels": {"browser": {"tts": {"fallbacks": ["scripted", "groq-tts"]}}}}', "groq-tts needs GROQ_API_KEY"),
        ('{"script": {"intents": []}}', "agent one: script: expected one that the dialogue engine takes"),
    ],
)
def test_a_version_that_cannot_be_used_leaves_the_one_that_works(
    database_url: str, folder: Path, caplog: pytest.LogCaptureFixture, settings: str, says: str
) -> None:
    async def run() -> None:
        store = await open_store(database_url, folder)
        await store.start(folder)
        await activate(database_url, settings)
        for _ in range(3):
            await store.refresh()
        one = await store.agent_for_number("+15550100001")
        assert one is not None and one.version == 1
        (line,) = [record for record in caplog.records if "agent version cannot be used" in record.message]
        assert says in line.message and line.__dict__["agent"] == "one"
        await store._postgres.close()

    asyncio.run(run())


def test_a_stored_agent_that_cannot_be_served_stops_the_start(database_url: str, folder: Path) -> None:
    async def run() -> None:
        store = await open_store(database_url, folder)
        await store.start(folder)
        await activate(database_url, '{"llm": {"provider": "groq"}}')
        (folder / "one.yaml").unlink()  # its file would take the stored version's place
        later = await open_store(database_url, folder)
        with pytest.raises(ConfigError, match=r"^agent one: llm\.provider: .* groq needs GROQ_API_KEY, got 'groq'$"):
            await later.start(folder)
        await store._postgres.close()
        await later._postgres.close()

    asyncio.run(run())


def test_nothing_of_a_folder_with_a_wrong_agent_is_imported(database_url: str, folder: Path) -> None:
    async def run() -> None:
        write(folder, "two", TWO + "tts: {provider: openai-tts}\n")
        store = await open_store(database_url, folder)
        with pytest.raises(ConfigError, match=r"agent two: tts\.provider: .* OPENAI_API_KEY"):
            await store.start(folder)
        assert await versions(database_url) == []
        await store._postgres.close()

    asyncio.run(run())


def test_a_wrong_file_stops_the_start_by_name(folder: Path) -> None:
    async def run() -> None:
        write(folder, "two", "numbers: ['+15550100001']\n")
        store = await open_store(f"postgresql://postgres@/x?host={folder}", folder)
        with pytest.raises(AgentFileError, match=r"two\.yaml: numbers: \+15550100001 is already answered by one\.yaml"):
            await store.start(folder)

    asyncio.run(run())
