"""Whole calls: the server as a process, Twilio's protocol over real sockets, real PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
import uvloop

from bench.load.server_process import PUBLIC_URL, ServerProcess, free_port
from bench.sim.caller import Say, ScriptedCaller, When
from bench.sim.fault import FaultPlan
from bench.sim.openai import Flavour, OpenAiSim
from bench.sim.twilio import Account, Call, Exchange
from bench.sim.voice import pico_clip
from server.call.plane import MAX_RESUMES
from server.call.replay import replay_capture, steps
from server.dialogue import event as ev

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

CLIP = pico_clip("Would that be possible?")
NUMBER = "+15550100"
PERSON = "+15550142"
API_KEY = "browser-key-0123456789"
CAPTURED = Path(__file__).parents[1] / "data" / "captures" / "cough.capture"
AGENT = """
name: Test
numbers: ["+15550100"]
language: en-US
stt: {provider: scripted}
llm: {provider: scripted}
tts: {provider: scripted}
opening: {text: "code 0 0 0"}
turn: {min_delay_ms: 300, max_delay_ms: 600}
capture: {audio: true}
limits:
  idle_timeout_ms: 1500
  idle_prompts: ["code 0 1 0"]
  idle_goodbye: "code 0 2 0"
  goodbye: "code 0 3 0"
  apology: "code 0 4 0"
"""

Body = Callable[[ServerProcess, Exchange], Awaitable[None]]


def serve(
    tmp_path: Path,
    body: Body,
    env: Mapping[str, str] | None = None,
    agent: str = AGENT,
    beside: AbstractAsyncContextManager[object] | None = None,
) -> Path:
    """Run `body` against a server of its own, which finds `beside` running; returns its data folder."""
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "test.yaml").write_text(agent)
    data = tmp_path / "data"

    async def main() -> None:
        account = Account()
        async with (
            beside or nullcontext(),
            Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange,
        ):
            base = {
                "PUBLIC_URL": PUBLIC_URL,
                "TWILIO_ACCOUNT_SID": account.account_sid,
                "TWILIO_AUTH_TOKEN": account.auth_token,
                "TWILIO_API_URL": exchange.rest_url,
                "AGENTS_DIR": str(agents),
                "TALKSPURT_SECRET": "s" * 40,
            }
            async with ServerProcess({**base, **(env or {})}, data_dir=data) as server:
                exchange.local_url = server.url
                await body(server, exchange)

    uvloop.run(main())
    return data


def stores(database_url: str, redis_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


async def one_call(exchange: Exchange, *turns: Say, faults: FaultPlan | None = None, **options: Any) -> Call:
    caller = ScriptedCaller(turns, quiet_ms=400, **options)
    return await exchange.call(caller, from_="+15552000007", to=NUMBER, faults=faults)


def assert_captures_decide_the_same(data: Path, calls: int) -> list[ev.Event]:
    """Decide every call of the run again, and hear it again where it was captured with its audio."""
    captures = sorted((data / "capture").glob("*.capture"))
    assert len(captures) == calls
    events: list[ev.Event] = []
    for path in captures:
        replayed = replay_capture(path)
        assert replayed.is_same, replayed.differences
        assert not replayed.is_cut
        events += [event for _, event, _, _ in steps(path)]
    return events


def test_call_is_answered_recorded_and_replayed(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        turns = [Say(clip=CLIP), Say(clip=CLIP), Say(clip=CLIP, when=When.BARGE_IN, after_ms=600)]
        call = await one_call(exchange, *turns)
        assert call.ended_by == "caller"
        assert exchange.debugger == []
        metrics = (await httpx.AsyncClient().get(f"{server.url}/metrics")).text
        assert 'turn_latency_seconds_count{channel="twilio",provider="scripted"} 3.0' in metrics
        assert "underruns_total 0.0" in metrics

    data = serve(tmp_path, body, stores(database_url, redis_url))
    events = assert_captures_decide_the_same(data, 1)
    assert any(isinstance(one, ev.PlayoutCleared) and one.heard for one in events)

    async def rows() -> None:
        connection = await asyncpg.connect(database_url)
        call = await connection.fetchrow("SELECT * FROM call")
        assert call is not None
        assert (call["to_number"], call["from_number"]) == (NUMBER, "+15552000007")
        assert call["ended_at"] is not None
        turns = await connection.fetch("SELECT * FROM turn ORDER BY turn_no")
        assert [one["turn_no"] for one in turns] == [1, 2, 3]
        for one in turns:
            stages = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own")
            total = sum(one[f"{stage}_ms"] or 0 for stage in stages)
            assert total == pytest.approx(one["turn_latency_ms"], abs=0.01)
            assert 250 <= one["turn_latency_ms"] <= 900
        # The third turn of the caller cut the second answer short.
        assert [one["interrupted"] for one in turns] == [False, True, False]
        segments = await connection.fetch("SELECT * FROM transcript_segment ORDER BY seq")
        assert [one["speaker"] for one in segments] == ["agent", "caller"] * 3 + ["agent"]
        assert all(one["start_ms"] <= one["end_ms"] for one in segments)
        await connection.close()

    asyncio.run(rows())


def test_silent_caller_is_prompted_and_hung_up_by_rest(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, stay=True, max_ms=30_000)
        assert call.ended_by == "rest"

    data = serve(tmp_path, body, stores(database_url, redis_url))
    assert_captures_decide_the_same(data, 1)


def test_broken_stream_is_carried_on(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        turns = [Say(clip=CLIP) for _ in range(4)]
        call = await one_call(exchange, *turns, faults=FaultPlan(abort_at=120))
        assert len(call.streams) >= 2

    data = serve(tmp_path, body, stores(database_url, redis_url))
    events = assert_captures_decide_the_same(data, 1)
    assert sum(isinstance(one, ev.StreamResumed) for one in events) == 3


def test_a_stream_that_breaks_again_and_again_is_given_to_a_person(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    """On a disk that is nearly full, too: no stream of it has a capture, and their folder is kept within its bounds."""
    folder = tmp_path / "data" / "capture"
    folder.mkdir(parents=True)
    room, size = 1 << 20, CAPTURED.stat().st_size
    for number in range(room // size + 3):
        file = folder / f"{number}.capture"
        file.write_bytes(CAPTURED.read_bytes())
        changed_s = time.time() - 1000 * (1 + number) - 24 * 3600 * (number == 3)
        os.utime(file, (changed_s, changed_s))
    bounds = {"CAPTURE_MAX_DAYS": "1", "CAPTURE_MAX_TOTAL_BYTES": str(room), "CAPTURE_MIN_FREE_BYTES": str(10**15)}

    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, Say(clip=CLIP), Say(clip=CLIP), faults=FaultPlan(abort_at=60))
        assert len(call.streams) == 1 + MAX_RESUMES
        assert call.dialled == [PERSON] and call.said == [f"Dial: {PERSON}"]
        found = await server.metrics()
        assert f"captures_skipped_total {1 + MAX_RESUMES}.0" in found

    serve(tmp_path, body, {**stores(database_url, redis_url), **bounds}, AGENT + f'  fallback_number: "{PERSON}"\n')
    # One was too old; of the others the oldest went, until 95 % of the room was enough.
    left = {int(one.stem) for one in folder.iterdir()}
    assert left == set(range(len(left) + 1)) - {3} and len(left) == room * 95 // 100 // size


def test_a_hand_over_that_the_carrier_does_not_take_ends_in_a_farewell(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    openai = OpenAiSim(Flavour.OPENAI, port=free_port(), keys=("key-of-nobody",))

    async def body(server: ServerProcess, exchange: Exchange) -> None:
        openai.go_down()
        exchange.refuses_updates = True
        call = await one_call(exchange, *[Say(clip=CLIP)] * 3, stay=True, max_ms=60_000)
        assert call.dialled == [] and call.ended_by == "twiml"
        segments = [one for one in server.log_lines()[0] if one.get("event") == "segment"]
        assert segments[-1]["text"] == "code 0 5 0"

    agent = AGENT.replace("llm: {provider: scripted}", "llm: {provider: openai}")
    agent += f'  fallback_number: "{PERSON}"\n  farewell: "code 0 5 0"\n  hand_over: "code 0 6 0"\n'
    env = {"OPENAI_API_KEY": "key-of-nobody", "OPENAI_BASE_URL": openai.base_url, "LOG_TRANSCRIPTS": "1"}
    serve(tmp_path, body, {**stores(database_url, redis_url), **env}, agent, openai)


def test_rough_line_loses_no_turn(tmp_path: Path, database_url: str, redis_url: str) -> None:
    rough = FaultPlan(
        drop_rate=0.02, duplicate_rate=0.02, swap=range(50, 400, 17), stalls=[(200, 60)], swallow_marks=True
    )

    async def body(server: ServerProcess, exchange: Exchange) -> None:
        caller = ScriptedCaller([Say(clip=CLIP), Say(clip=CLIP)], quiet_ms=600)
        await exchange.call(caller, from_="+15552000007", to=NUMBER, faults=rough)
        assert [one.reply_latency_ms is not None for one in caller.records] == [True, True]

    data = serve(tmp_path, body, stores(database_url, redis_url))
    assert_captures_decide_the_same(data, 1)


def test_strangers_are_refused_before_anything_is_done(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        async with httpx.AsyncClient(base_url=server.url) as http:
            upgrade = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            unknown = await http.get("/media/twilio/AAAAAAAAAAAAAAAAAAAAAA", headers=upgrade)
            assert unknown.status_code == 403
            unsigned = await http.post("/twilio/voice", data={"CallSid": "CA1", "To": NUMBER})
            assert unsigned.status_code == 403
            assert (await http.post("/api/v1/browser-calls", json={"agent": "test"})).status_code == 401
            keyed = {"Authorization": f"Bearer {API_KEY}"}
            # A page's stream without the right secret is closed, and the secret is good for one stream only.
            made = (await http.post("/api/v1/browser-calls", json={"agent": "test"}, headers=keyed)).json()
            from websockets.asyncio.client import connect

            local = made["url"].replace(PUBLIC_URL.replace("https", "wss"), server.url.replace("http", "ws"))
            async with connect(local, proxy=None) as socket:
                await socket.send('{"event":"start","secret":"wrong","sampleRate":16000}')
                await socket.wait_closed()
                assert socket.close_code == 1008
            made = (await http.post("/api/v1/browser-calls", json={"agent": "test"}, headers=keyed)).json()
            local = made["url"].replace(PUBLIC_URL.replace("https", "wss"), server.url.replace("http", "ws"))
            async with connect(local, proxy=None) as socket:
                await socket.send(f'{{"event":"start","secret":"{made["secret"]}","sampleRate":16000}}')
                first = await socket.recv()
                assert isinstance(first, bytes) and len(first) % 640 == 0
            refused = await http.get(local.replace("ws://", "http://"), headers=upgrade)
            assert refused.status_code == 403

    serve(tmp_path, body, {**stores(database_url, redis_url), "API_KEY": API_KEY})


def test_without_a_key_nobody_takes_a_place_from_a_browser(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        async with httpx.AsyncClient(base_url=server.url) as http:
            for _ in range(3):
                asked = await http.post("/api/v1/browser-calls", json={"agent": "test"})
                assert asked.status_code == 404 and "stream_id" not in asked.text
        assert (await one_call(exchange, Say(clip=CLIP))).ended_by == "caller"

    serve(tmp_path, body, {**stores(database_url, redis_url), "MAX_CALLS": "1"})


def test_full_process_answers_busy(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        first = asyncio.ensure_future(one_call(exchange, Say(clip=CLIP), Say(clip=CLIP)))
        while not exchange.calls or not next(iter(exchange.calls.values())).streams:
            await asyncio.sleep(0.02)
        second = await one_call(exchange, Say(clip=CLIP))
        assert second.status == "busy"
        assert (await first).ended_by == "caller"

    serve(tmp_path, body, {**stores(database_url, redis_url), "MAX_CALLS": "1"})


def test_calls_go_on_without_redis_and_database(tmp_path: Path) -> None:
    """Both away from the start of the call on: the caller notices nothing, and the facts wait in the spool."""

    async def body(server: ServerProcess, exchange: Exchange) -> None:
        assert (await one_call(exchange, Say(clip=CLIP))).ended_by == "caller"
        for child in psutil.Process(server.pid).children(recursive=True):
            if any(name in child.name() for name in ("valkey", "postgres")):
                child.kill()
        caller = ScriptedCaller([Say(clip=CLIP)], quiet_ms=400)
        call = await exchange.call(caller, from_="+15552000008", to=NUMBER)
        assert call.ended_by == "caller"
        assert caller.records[0].reply_latency_ms is not None

    data = serve(tmp_path, body)
    assert list((data / "spool").glob("*.seg"))
