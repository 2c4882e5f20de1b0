"""An agent whose providers this process does not have: refused before anything listens, or kept out while it runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest
import uvloop

from bench.load.server_process import ROOT, ServerProcess, free_port
from server.config import VARIABLES
from server.store.agents import REFRESH_S

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

AGENT = 'numbers: ["+15550100"]\nstt: {provider: scripted}\nllm: {provider: scripted}\ntts: {provider: scripted}\n'
SCRIPTED = "stt: {provider: scripted}\nllm: {provider: scripted}\n"


def run(command: str, agent: str, env: dict[str, str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "test.yaml").write_text(agent)
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    own = {"DATA_DIR": str(tmp_path / "data"), "AGENTS_DIR": str(tmp_path / "agents"), "PORT": str(free_port())}
    return subprocess.run(
        [sys.executable, "-m", "server", command],
        cwd=ROOT, env=clean | own | env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "env", "says"),
    [
        (
            "stt: {provider: azure}",
            {},
            "agent test: stt.provider: expected one of moonshine, moonshine-es, scripted; "
            "azure needs AZURE_SPEECH_KEY, got 'azure'",
        ),
        ("llm: {provider: dialog}", {}, "agent test: llm.provider: expected one of dialogue, scripted, got 'dialog'"),
        (
            SCRIPTED + "tts: {provider: pico, fallbacks: [scripted, groq-tts/troy]}",
            {},
            "agent test: tts.fallbacks[1]: expected one of pico, scripted; groq-tts needs GROQ_API_KEY, got 'groq-tts'",
        ),
        (
            SCRIPTED + "channels: {telnyx: {llm: {fallbacks: [openai]}}}",
            {},
            "agent test: channels.telnyx.llm.fallbacks[0]: expected one of dialogue, scripted; "
            "openai needs OPENAI_API_KEY, got 'openai'",
        ),
        (
            "llm: {provider: dialogue, fallbacks: [scripted, dialogue]}",
            {},
            "agent test: llm.fallbacks[1]: expected another one than llm.provider, got 'dialogue'",
        ),
        (
            SCRIPTED,
            {"STT_PROVIDER": "groq-stt"},
            "agent test: stt.provider by STT_PROVIDER: expected one of moonshine, moonshine-es, scripted; "
            "groq-stt needs GROQ_API_KEY, got 'groq-stt'",
        ),
        (
            SCRIPTED,
            {"LLM_PROVIDER": "compatible"},
            "agent test: llm.provider by LLM_PROVIDER: expected one of dialogue, scripted; "
            "compatible needs COMPATIBLE_BASE_URL, got 'compatible'",
        ),
        (
            SCRIPTED,
            {"TTS_PROVIDER": "pika"},
            "agent test: tts.provider by TTS_PROVIDER: expected one of pico, scripted, got 'pika'",
        ),
    ],
)
def test_the_start_is_refused_in_one_line(
    agent: str, env: dict[str, str], says: str, tmp_path: Path, database_url: str, redis_url: str
) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    done = run("serve", agent, stores | env, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"talkspurt: {says}"]
    assert "listening" not in done.stdout


def test_doctor_says_the_same(tmp_path: Path, database_url: str, redis_url: str) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    done = run("doctor", "channels: {browser: {stt: {provider: azure}}}", stores, tmp_path)
    assert done.returncode == 1
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("WRONG")]
    assert line.split(maxsplit=2)[1] == "agents"
    assert "agent test: channels.browser.stt.provider: expected one of moonshine" in line
    assert line.endswith("azure needs AZURE_SPEECH_KEY, got 'azure'")


@pytest.mark.slow
def test_a_stored_version_that_cannot_be_served_changes_nothing(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async def main() -> None:
        agents = tmp_path / "agents"
        agents.mkdir()
        (agents / "test.yaml").write_text(AGENT)
        env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "AGENTS_DIR": str(agents)}
        async with ServerProcess(env, data_dir=tmp_path / "data") as server:
            connection = await asyncpg.connect(database_url)
            await connection.execute(
                "WITH v AS (INSERT INTO agent_version (agent_id, version, content_hash, settings)"
                ' SELECT id, 2, repeat(\'a\', 64), \'{"tts": {"provider": "azure"}}\' FROM agent'
                " RETURNING id, agent_id)"
                " UPDATE agent SET active_version_id = v.id FROM v WHERE agent.id = v.agent_id"
            )
            await connection.close()
            errors: list[dict[str, object]] = []
            async with asyncio.timeout(3 * REFRESH_S):
                while not errors:
                    errors = [one for one in server.log_lines()[0] if one.get("event") == "agent_refused"]
                    await asyncio.sleep(0.2)
            assert "agent test: tts.provider: expected one of pico" in str(errors[0]["message"])
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(f"{server.url}/readyz")).status_code == 200
        assert server.returncode == 0

    uvloop.run(main())
