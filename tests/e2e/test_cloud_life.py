"""Two hundred calls through the vendors' SDKs leave nothing behind: no thread, no descriptor; exit code 0."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import uvloop

from bench.demo import cloud
from bench.demo.script import PlannedCall
from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim.caller import Say, ScriptedCaller
from bench.sim.process import ProviderProcesses
from bench.sim.twilio import Account, Exchange
from bench.sim.voice import pico_clip

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

CALLS = 200
AT_ONCE = 40
WARM = 40
TURN = Say(clip=pico_clip("When are you open?", rate_percent=100))
LAZY = 8  # workers of pools that are first needed under the larger load, and their descriptors
WORKERS = 12  # threads and descriptors that are made at the first use and kept
SETTLE_S = 20.0


async def place(exchange: Exchange, number: int) -> None:
    """A caller who asks one thing and hangs up in the middle of the answer, every third one before it."""
    turns = [TURN] if number % 3 else [Say(clip=TURN.clip, cut_ms=500)]
    caller = ScriptedCaller(turns, quiet_ms=300, patience_ms=3000, max_ms=8000)
    await exchange.call(caller, from_=f"+1555200{number:04d}", to="+15550100")


async def place_all(exchange: Exchange, count: int) -> None:
    waiting = iter(range(count))

    async def one_after_the_other() -> None:
        for number in waiting:
            await place(exchange, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())


def held(process: psutil.Process, kept_alive: set[int]) -> tuple[int, int]:
    """Threads and descriptors, without the idle connections that are kept to `kept_alive` ports on purpose."""
    idle = sum(1 for one in process.net_connections() if one.raddr and one.raddr.port in kept_alive)
    assert idle <= AT_ONCE + 8, f"{idle} connections for {AT_ONCE} calls at once"
    return process.num_threads(), process.num_fds() - idle


async def settled(process: psutil.Process, kept_alive: set[int], most: tuple[int, int]) -> tuple[int, int]:
    """What is held, once it is no more than `most` or has had time to be."""
    try:
        async with asyncio.timeout(SETTLE_S):
            while True:
                now = held(process, kept_alive)
                if now[0] <= most[0] and now[1] <= most[1]:
                    return now
                await asyncio.sleep(0.2)
    except TimeoutError:
        return held(process, kept_alive)


def test_two_hundred_calls_leave_nothing_behind(tmp_path: Path) -> None:
    codes: list[int | None] = []

    async def main() -> None:
        account = Account()
        book = cloud.write_book([PlannedCall("call", "", (TURN,))], tmp_path / "book.json")
        async with (
            ProviderProcesses(book=book, profile="fast") as sims,
            Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange,
        ):
            env = {
                "PUBLIC_URL": PUBLIC_URL,
                "TWILIO_ACCOUNT_SID": account.account_sid,
                "TWILIO_AUTH_TOKEN": account.auth_token,
                "TWILIO_API_URL": exchange.rest_url,
                "AGENTS_DIR": str(cloud.write_agents(tmp_path / "agents")),
                "HANDSHAKES_PER_S": "1000",
                **sims.env,
            }
            server = ServerProcess(env, log=tmp_path / "server.log", data_dir=tmp_path / "data")
            async with server:
                exchange.local_url = server.url
                process = psutil.Process(server.pid)
                chat = {urlsplit(sims.env[name]).port or 0 for name in ("GROQ_BASE_URL", "OPENAI_BASE_URL")}
                idle = held(process, chat)
                await place_all(exchange, WARM)
                # What the process keeps for all calls (workers, a warm synthesizer) is there now.
                before = await settled(process, chat, (idle[0] + WORKERS, idle[1] + WORKERS))
                await place_all(exchange, CALLS)
                after = await settled(process, chat, (before[0] + LAZY, before[1] + LAZY))
                # One of each left by every tenth call would be twenty.
                grown = after[0] - before[0], after[1] - before[1]
                assert max(grown) <= LAZY, f"{before} threads, descriptors; now {after}"
                lines, _ = server.log_lines()
                ended = [one for one in lines if one.get("event") == "call_ended"]
                assert len(ended) == CALLS + WARM
                failed = [one for one in lines if one.get("level") == "error"]
                assert not failed, failed[:3]
            codes.append(server.returncode)

    uvloop.run(main())
    assert codes == [0]
