"""The attacks of tests/edge/test_hostile.py on the server as a user runs it, with a live call beside them.

The same call is made alone first: what it heard then, and how late, is what it must hear beside the attack. Peers are
as strange as they get once they have a stream: each was given its own by the key, and sends what no page sends.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from bench.load.server_process import ServerProcess
from bench.sim.caller import Say, ScriptedCaller
from bench.sim.twilio import Exchange
from tests.e2e.test_calls import API_KEY, CLIP, NUMBER, serve, stores
from tests.edge.test_hostile import MIB, WORST_MS, peak_bytes, push
from tests.support.ws_client import TEXT, WsClient, raw_client, ws_client, ws_frame_head

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

GROWTH_BYTES = 8 * MIB
# Longer than the server waits for a head.
REAPED_S = 10


def begin_peak(pid: int) -> None:
    """What `peak_bytes` gives is the peak from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def placed(exchange: Exchange) -> float:
    """The longest wait for an answer, in ms, in a call of four turns, each of which was answered."""
    caller = ScriptedCaller([Say(clip=CLIP)] * 4, quiet_ms=400)
    call = await exchange.call(caller, from_="+15552000007", to=NUMBER)
    assert call.ended_by == "caller" and len(call.streams) == 1
    waits_ms = [one.reply_latency_ms for one in caller.records if one.reply_latency_ms is not None]
    assert len(waits_ms) == 4
    return max(waits_ms)


async def endless_message(server: ServerProcess, http: httpx.AsyncClient) -> None:
    made = await http.post("/api/v1/browser-calls", json={"agent": "test"})
    async with (
        ws_client(server.port, f"/media/browser/{made.json()['stream_id']}") as client,
        asyncio.TaskGroup() as group,
    ):
        assert client.status == 101
        code = group.create_task(client.close_code())
        assert await push(client, ws_frame_head(TEXT, 300 * MIB), bytes(MIB), 300 * MIB) < 100 * MIB
        assert await code in (1009, 1006)


async def reaped(client: WsClient) -> bool:
    try:
        async with asyncio.timeout(REAPED_S):
            return not await client.reader.read()
    except ConnectionError:
        return True


async def wave(server: ServerProcess, http: httpx.AsyncClient) -> None:
    """300 MiB in one message by eight peers at once, and 200 sockets that say nothing until they are reaped."""
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(raw_client(server.port)) for _ in range(200)]
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(endless_message(server, http))
            ends = [group.create_task(reaped(one)) for one in idle]
        assert all(one.result() for one in ends)


def test_a_call_and_the_memory_are_unharmed(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        process = psutil.Process(server.pid)
        keyed = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(base_url=server.url, headers=keyed, timeout=10) as http:
            # Code and buffers of an ordinary call and of a refused peer are not the attack's growth.
            alone_ms = await placed(exchange)
            await endless_message(server, http)
            before_bytes = process.memory_info().rss
            begin_peak(server.pid)
            beside = asyncio.ensure_future(placed(exchange))
            waves = 0
            while not beside.done():
                await wave(server, http)
                waves += 1
            attacked_ms = await beside
        grown_bytes = peak_bytes(process) - before_bytes
        assert waves >= 1
        assert grown_bytes < GROWTH_BYTES, f"grew by {grown_bytes / MIB:.1f} MiB"
        assert attacked_ms < alone_ms + WORST_MS, f"answered after {attacked_ms:.0f} ms, alone after {alone_ms:.0f} ms"
        assert "\nunderruns_total 0.0" in await server.metrics()

    serve(tmp_path, body, {**stores(database_url, redis_url), "API_KEY": API_KEY})
