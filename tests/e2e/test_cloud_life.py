"""Two hundred calls through the vendors' SDKs leave nothing behind: no thread, no descriptor, no task, no object of
ours or of theirs, and no memory; exit code 0."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import uvloop

from bench.demo import cloud
from bench.demo.script import PlannedCall
from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim.caller import Say, ScriptedCaller
from bench.sim.process import ProviderProcesses
from bench.sim.twilio import Account, Exchange
from bench.sim.voice import pico_clip
from tests.support.census import Census, grown

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

CALLS = 200
AT_ONCE = 40
WARM = 40
TURN = Say(clip=pico_clip("When are you open?", rate_percent=100))
SETTLE_S = 20.0
OF_A_CALL = {"server.call.session.CallSession", "audio_native.uplink.Uplink", "providers.azure.sdk_native.Native"}
WAITING = "server.store.segment.Record"
# What is left unused between what is used, and what is remembered of each call. A leaked synthesizer or recogniser is
# half a megabyte, the ring of a call 100 KiB.
MAX_RSS_KIB_PER_100_CALLS = 12_000
# Memories with a bound of their own: the call, its answer to the carrier and its token.
MAX_REMEMBERED_PER_CALL = 5


class CountedServer(ServerProcess):
    """A server that is asked what it holds, by signal, and answers in a file."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._file = folder / "census.json"
        env = {**env, "CENSUS_FILE": str(self._file)}
        super().__init__(env, log=folder / "server.log", data_dir=folder / "data")

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.counted_server"]

    async def census(self) -> Census:
        os.kill(self.pid, signal.SIGUSR1)
        async with asyncio.timeout(SETTLE_S):
            while (answer := self._answer()) is None:
                await asyncio.sleep(0.02)
        return answer

    def _answer(self) -> Census | None:
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return None
        self._file.unlink()
        return Census(**json.loads(text))


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


async def rest(server: CountedServer) -> Census:
    """What is held when nothing ends any more, and every fact of the calls is in the database."""
    last = await server.census()
    async with asyncio.timeout(SETTLE_S):
        while True:
            now = await server.census()
            if not grown(now, last) and not grown(last, now) and WAITING not in now.objects:
                return now
            last = now


async def settled(server: CountedServer, before: Census) -> Census:
    """What is held as soon as it is no more than `before`, or has had time to be."""
    end_s = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        now = await server.census()
        if not grown(before, now) or asyncio.get_running_loop().time() > end_s:
            return now


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
                "MAX_CALLS": str(2 * AT_ONCE),  # a place is free a moment after its call is over
                **sims.env,
            }
            server = CountedServer(env, tmp_path)
            async with server:
                exchange.local_url = server.url
                await place_all(exchange, WARM)
                before = await rest(server)  # modules, metrics and pools of all calls are there now
                await place_all(exchange, CALLS)
                after = await settled(server, before)
                assert not grown(before, after)
                assert not OF_A_CALL & after.objects.keys()
                for name, count in after.remembered.items():
                    assert count - before.remembered.get(name, 0) <= MAX_REMEMBERED_PER_CALL * CALLS, name
                rss_kib = (after.rss_kib - before.rss_kib) * 100 // CALLS
                assert rss_kib <= MAX_RSS_KIB_PER_100_CALLS, f"{before.rss_kib} KiB, then {after.rss_kib}"
                lines, _ = server.log_lines()
                ended = [one for one in lines if one.get("event") == "call_ended"]
                assert len(ended) == CALLS + WARM
                failed = [one for one in lines if one.get("level") == "error"]
                assert not failed, failed[:3]
            codes.append(server.returncode)

    uvloop.run(main())
    assert codes == [0]
