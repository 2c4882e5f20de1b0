"""/readyz of a real process while the services behind it are dead, and when they are back without any call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from bench.load.server_process import ServerProcess
from bench.sim.process import ProviderProcesses

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

# The breaker's longest pause and a round, with room for a busy machine.
BACK_S = 60.0
ALONE = "numbers: ['+15550100']\nstt: {provider: azure}\nllm: {provider: groq}\ntts: {provider: azure}\n"
COVERED = """
numbers: ["+15550100"]
stt: {provider: azure, fallbacks: [scripted]}
llm: {provider: groq, fallbacks: [scripted]}
tts: {provider: azure, fallbacks: [pico]}
"""


class PatientProcess(ServerProcess):
    """Waits until the server has warmed up, ready or not."""

    async def _wait_ready(self) -> None:
        await answer(self, lambda status, body: body["checks"]["agents"]["status"] == "ok")


async def answer(server: ServerProcess, wanted: Callable[[int, Any], bool]) -> tuple[int, Any]:
    """The first answer of /readyz that is wanted; the last one when none comes in time."""
    last: tuple[int, Any] = (0, {})
    try:
        async with asyncio.timeout(BACK_S), httpx.AsyncClient(trust_env=False, timeout=5) as http:
            while True:
                try:
                    response = await http.get(f"{server.url}/readyz")
                    last = response.status_code, response.json()
                    if wanted(*last):
                        return last
                except httpx.TransportError:
                    assert server.is_running, server.log_tail()
                await asyncio.sleep(0.1)
    except TimeoutError:
        return last


def sample(metrics: str, **labels: str) -> float:
    lines = [one for one in metrics.splitlines() if one.startswith("provider_failures_total{")]
    found = [one for one in lines if all(f'{name}="{value}"' in one for name, value in labels.items())]
    return sum(float(one.rsplit(" ", 1)[1]) for one in found)


async def everything_dies(sims: ProviderProcesses) -> None:
    for service in ("stt", "tts"):
        await sims.fault_azure(kind="http", status=503, on=service, times=None)
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.post(f"{sims.controls['groq']}/down", json={})


def serve(tmp_path: Path, agent: str, stores: Mapping[str, str], body: Any) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "test.yaml").write_text(agent)

    async def main() -> None:
        async with ProviderProcesses(profile="fast") as sims:
            await everything_dies(sims)
            env = {**stores, **sims.env, "AGENTS_DIR": str(tmp_path / "agents")}
            async with PatientProcess(env, data_dir=tmp_path / "data") as server:
                await body(server, sims)
            assert server.returncode == 0

    uvloop.run(main())


def test_an_agent_without_anybody_to_hear_or_think_takes_the_process_out_until_they_are_back(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async def body(server: ServerProcess, sims: ProviderProcesses) -> None:
        status, found = await answer(server, lambda status, body: True)
        assert (status, found["status"]) == (503, "not ready")
        assert found["checks"]["providers"]["detail"] == "nobody hears for agent test (azure: unavailable)"
        assert set(found["degraded"]) == {"stt/azure", "llm/groq", "tts/azure"}
        for one in found["degraded"].values():
            assert one["state"] in ("closed", "open", "half_open") and one["last_error"] == "unavailable"
        metrics = await server.metrics()
        for service, provider in (("stt", "azure"), ("llm", "groq"), ("tts", "azure")):
            assert sample(metrics, service=service, provider=provider, kind="unavailable") >= 1, metrics

        async with httpx.AsyncClient(trust_env=False) as http:
            await http.delete(f"{sims.azure_url}/sim/faults")
            await sims.fault_azure(kind="http", status=503, on="tts", times=None)
            wanted = "nobody thinks for agent test (groq: unavailable)"
            _, found = await answer(server, lambda status, body: body["checks"]["providers"].get("detail") == wanted)
            assert found["checks"]["providers"].get("detail") == wanted
            assert set(found["degraded"]) == {"llm/groq", "tts/azure"}

            # No voice of its own is no reason: its fixed texts are there in the offline one's.
            await http.post(f"{sims.controls['groq']}/up")
            status, found = await answer(server, lambda status, body: status == 200)
            assert (status, found["status"], set(found["degraded"])) == (200, "degraded", {"tts/azure"})

            await http.delete(f"{sims.azure_url}/sim/faults")
            status, found = await answer(server, lambda status, body: not body["degraded"])
            assert (status, found["status"]) == (200, "ready")
            # And what the offline voice spoke for it is its own again.
            renewed: list[str] = []
            async with asyncio.timeout(BACK_S):
                while not renewed:
                    lines, _ = server.log_lines()
                    renewed = [one["message"] for one in lines if one.get("event") == "clips_renewed"]
                    await asyncio.sleep(0.1)
            assert renewed == ["2 texts are in their own voice"], "the apology and the farewell"

    serve(tmp_path, ALONE, {"DATABASE_URL": database_url, "REDIS_URL": redis_url}, body)


def test_fallbacks_that_work_keep_the_process_in(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, sims: ProviderProcesses) -> None:
        status, found = await answer(server, lambda status, body: True)
        assert (status, found["status"]) == (200, "degraded")
        assert set(found["degraded"]) == {"stt/azure", "llm/groq", "tts/azure"}
        assert found["checks"]["providers"] == {"status": "ok"}

    serve(tmp_path, COVERED, {"DATABASE_URL": database_url, "REDIS_URL": redis_url}, body)
