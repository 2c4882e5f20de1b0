"""A call in which the model uses a tool: asked over the telephone, looked up by HTTP, answered, on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop
import yaml

from bench.captures.services import serving
from bench.load.rig import wait_for
from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim.caller import Say, ScriptedCaller
from bench.sim.twilio import Exchange
from bench.sim.voice import pico_clip
from tests.support.http_peer import Answer, http_peer

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(90)]

PRICE = pico_clip("Would you look up the price for me?")


def test_a_tool_is_used_in_a_call(tmp_path: Path, database_url: str, redis_url: str) -> None:
    agents = tmp_path / "agents"
    agents.mkdir()

    async def main() -> None:
        async with (
            serving([PRICE], {"euros": "It costs twelve euros."}, {"price for": "find_price"}) as services,
            http_peer(Answer(body=b'{"answer": "twelve euros"}')) as shop,
            Exchange(public_url=PUBLIC_URL, local_url="") as exchange,
        ):
            agent: dict[str, Any] = {
                "name": "Shop", "numbers": ["+15550100"], "stt": {"provider": "azure"}, "llm": {"provider": "groq"},
                "tts": {"provider": "azure"}, "opening": {"mode": "listen", "text": ""},
                "tools": [
                    {
                        "name": "find_price", "description": "What something costs", "url": f"{shop.url}/price",
                        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}}, "secret": "shop",
                    }
                ],
            }  # fmt: skip
            (agents / "shop.yaml").write_text(yaml.safe_dump(agent))
            env = {
                "PUBLIC_URL": PUBLIC_URL, "AGENTS_DIR": str(agents), "TALKSPURT_SECRET": "s" * 40,
                "DATABASE_URL": database_url, "REDIS_URL": redis_url, "TOOL_PRIVATE_HOSTS": "127.0.0.1",
                "TOOL_SECRETS": '{"shop": "Bearer shop-secret"}', "LOG_TRANSCRIPTS": "on",
            }  # fmt: skip
            async with ServerProcess(
                {**env, **services.env, **exchange.server_env}, data_dir=tmp_path / "data"
            ) as server:
                exchange.local_url = server.url
                caller = ScriptedCaller((Say(clip=PRICE),), quiet_ms=700, patience_ms=6000)
                await exchange.call(caller, from_="+15552000007", to="+15550100")
                lines = lambda: server.log_lines()[0]  # noqa: E731
                assert await wait_for(lambda: any(one.get("event") == "call_ended" for one in lines()), 10)
                said = [one["text"] for one in lines() if one.get("speaker") == "agent"]
                assert "It costs twelve euros." in said, said
                assert "shop-secret" not in server.log_tail()
        [seen] = shop.seen
        assert (seen.method, seen.target, seen.body) == ("POST", "/price", '{"item": "price for"}')
        assert seen.headers["authorization"] == "Bearer shop-secret"
        connection = await asyncpg.connect(database_url)
        row = await connection.fetchrow("SELECT t.*, c.id FROM tool_invocation t JOIN call c ON c.id = t.call_id")
        await connection.close()
        assert (row["name"], row["outcome"], row["result"]) == ("find_price", "done", '{"answer": "twelve euros"}')
        assert seen.headers["idempotency-key"] == f"{row['id']}-1"

    uvloop.run(main())
