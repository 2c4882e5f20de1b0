"""Whole calls over Telnyx: the server as a process, Call Control and media over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import uvloop
from websockets.asyncio.client import connect

from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim.caller import Say, ScriptedCaller, When
from bench.sim.fault import FaultPlan
from bench.sim.telnyx import Call, Exchange
from bench.sim.telnyx_stream import Encoding
from server.call.plane import MAX_RESUMES
from server.dialogue import event as ev
from tests.e2e.test_calls import AGENT, API_KEY, CLIP, NUMBER, assert_captures_decide_the_same, stores

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

EVERY_EVENT = (
    "call.initiated", "call.answered", "call.hangup", "streaming.started", "streaming.stopped", "streaming.failed",
)  # fmt: skip
Body = Callable[[ServerProcess, Exchange], Awaitable[None]]


def serve(tmp_path: Path, body: Body, env: Mapping[str, str], **options: Any) -> Path:
    """Run `body` against a server of its own and an exchange with `options`; returns the server's data folder."""
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "test.yaml").write_text(AGENT)
    data = tmp_path / "data"

    async def main() -> None:
        async with Exchange(public_url=PUBLIC_URL, local_url="", **options) as exchange:
            base = {"PUBLIC_URL": PUBLIC_URL, "AGENTS_DIR": str(agents), "TALKSPURT_SECRET": "s" * 40}
            async with ServerProcess({**base, **exchange.server_env, **env}, data_dir=data) as server:
                exchange.local_url = server.url
                await body(server, exchange)
                assert await exchange.wait_delivered(10)
                assert exchange.callbacks_failed == 0

    uvloop.run(main())
    return data


async def one_call(
    exchange: Exchange, *turns: Say, to: str = NUMBER, faults: FaultPlan | None = None, **options: Any
) -> Call:
    caller = ScriptedCaller(turns, quiet_ms=400, **options)
    return await exchange.call(caller, from_="+15552000007", to=to, faults=faults)


def actions(call: Call) -> list[str]:
    return [one.action for one in call.taken]


def logged(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    return [one for one in server.log_lines()[0] if one.get("event") == event]


def calls_on_record(database_url: str) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(database_url)
        rows = await connection.fetch("SELECT * FROM call ORDER BY started_at")
        await connection.close()
        return [dict(one) for one in rows]

    return asyncio.run(read())


@pytest.mark.parametrize("encoding", ["PCMU", "PCMA", "L16"])
def test_a_call_is_answered_in_each_codec(
    tmp_path: Path, database_url: str, redis_url: str, encoding: Encoding
) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        turns = [Say(clip=CLIP), Say(clip=CLIP), Say(clip=CLIP, when=When.BARGE_IN, after_ms=600)]
        call = await one_call(exchange, *turns)
        assert (call.ended_by, call.status, actions(call)) == ("caller", "completed", ["answer"])
        assert exchange.debugger == []
        (stream,) = call.streams
        assert (stream.facts.bad_messages, stream.playout.counters.underruns) == (0, 0)
        assert stream.facts.clears == 1
        # The secret in the stream's path is good for nothing any more, and still nobody writes it down.
        secret = call.taken[0].asked["stream_url"].rpartition("/")[2]
        kept = [server.log, *(server.data_dir / "capture").iterdir()]
        assert len(secret) > 60 and not [one for one in kept if secret.encode() in one.read_bytes()]
        metrics = (await httpx.AsyncClient().get(f"{server.url}/metrics")).text
        assert 'turn_latency_seconds_count{channel="telnyx",provider="scripted"} 3.0' in metrics

    data = serve(tmp_path, body, stores(database_url, redis_url), encoding=encoding)
    assert_captures_decide_the_same(data, 1)
    (call,) = calls_on_record(database_url)
    assert (call["carrier"], call["to_number"], call["from_number"]) == ("telnyx", NUMBER, "+15552000007")
    assert call["ended_at"] is not None


def test_events_that_come_twice_and_late_change_nothing(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, Say(clip=CLIP))
        assert (call.ended_by, actions(call), len(call.streams)) == ("caller", ["answer"], 1)
        # Once more, when the call is over.
        exchange.late_s = {}
        exchange.tell(call, "call.initiated", direction="incoming", state="parked")
        assert await exchange.wait_delivered(10)
        assert [one for one in exchange.rest.requests if one[1].endswith("/answer")] == exchange.rest.requests[:1]

    late_s = {"call.answered": 1.0, "streaming.started": 1.5, "call.hangup": 0.0, "streaming.stopped": 0.5}
    options = {"doubled": EVERY_EVENT, "late_s": late_s}
    data = serve(tmp_path, body, stores(database_url, redis_url), **options)
    assert_captures_decide_the_same(data, 1)
    assert len(calls_on_record(database_url)) == 1


def test_a_caller_who_has_given_up_is_not_an_error(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, Say(clip=CLIP))
        assert (call.ended_by, call.status, call.streams) == ("caller", "no-answer", [])
        assert await exchange.wait_delivered(10)
        while not exchange.rest.requests:
            await asyncio.sleep(0.02)
        ((_, path, _, status),) = exchange.rest.requests
        assert path.endswith("/actions/answer") and status == 422
        assert not logged(server, "answer_failed")

    late_s = {"call.initiated": 0.4}
    serve(tmp_path, body, stores(database_url, redis_url), late_s=late_s, ring_s=0.1)


def test_a_codec_that_is_not_decoded_ends_the_call_and_says_why(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, Say(clip=CLIP))
        assert (call.ended_by, actions(call)) == ("rest", ["answer", "hangup"])
        assert call.streams[0].facts.close_code == 1003
        # Nobody waits for a stream that was refused.
        assert call.ended_ns - call.answered_ns < 3_000_000_000
        (refused,) = logged(server, "refused_stream")
        assert "expected one of PCMU, PCMA, L16, got 'OPUS'" in refused["message"]

    serve(tmp_path, body, stores(database_url, redis_url), announced="OPUS")
    (call,) = calls_on_record(database_url)
    assert call["end_reason"] == "refused"


def test_a_broken_stream_is_carried_on_and_not_for_ever(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, Say(clip=CLIP), Say(clip=CLIP), faults=FaultPlan(abort_at=60))
        assert actions(call) == ["answer", *["streaming_start"] * MAX_RESUMES, "hangup"]
        assert (call.ended_by, len(call.streams)) == ("rest", 1 + MAX_RESUMES)

    data = serve(tmp_path, body, stores(database_url, redis_url), doubled=EVERY_EVENT)
    events = assert_captures_decide_the_same(data, 1)
    assert sum(isinstance(one, ev.StreamResumed) for one in events) == MAX_RESUMES


def test_the_agent_hangs_up(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        call = await one_call(exchange, stay=True, max_ms=30_000)
        assert (call.ended_by, actions(call)) == ("rest", ["answer", "hangup"])

    serve(tmp_path, body, stores(database_url, redis_url))


def test_calls_that_are_not_taken_are_refused(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        unknown = await one_call(exchange, to="+15550199")
        assert (unknown.ended_by, unknown.taken[0].asked["cause"]) == ("rejected", "NOT_FOUND")
        first = asyncio.ensure_future(one_call(exchange, Say(clip=CLIP), Say(clip=CLIP)))
        while len(exchange.calls) < 2 or not [*exchange.calls.values()][1].streams:
            await asyncio.sleep(0.02)
        second = await one_call(exchange, Say(clip=CLIP))
        assert (second.ended_by, second.taken[0].asked["cause"]) == ("rejected", "USER_BUSY")
        # A call that we placed is nobody's to answer.
        call = Call("v3:placed", "+15550100", NUMBER, status="ringing")
        exchange.calls[call.sid] = call
        exchange.tell(call, "call.initiated", direction="outgoing", state="bridging")
        assert (await first).ended_by == "caller"
        assert await exchange.wait_delivered(10)
        assert call.taken == []

    serve(tmp_path, body, {**stores(database_url, redis_url), "MAX_CALLS": "1"})


def test_a_drained_call_is_hung_up(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def main(server: ServerProcess, exchange: Exchange) -> None:
        talk = asyncio.ensure_future(one_call(exchange, stay=True, max_ms=30_000))
        while not exchange.calls or not (streams := next(iter(exchange.calls.values())).streams):
            await asyncio.sleep(0.02)
        while not streams[0].facts.frames_in:
            await asyncio.sleep(0.02)
        os.kill(server.pid, signal.SIGTERM)
        os.kill(server.pid, signal.SIGTERM)
        call = await talk
        assert (call.ended_by, actions(call)) == ("rest", ["answer", "hangup"])

    async def body(server: ServerProcess, exchange: Exchange) -> None:
        await main(server, exchange)
        # The last events find nobody: this is what the hang-up is for.
        await exchange.wait_delivered(10)
        exchange.callbacks_failed = 0

    serve(tmp_path, body, stores(database_url, redis_url))


def test_strangers_are_refused(tmp_path: Path, database_url: str, redis_url: str) -> None:
    async def body(server: ServerProcess, exchange: Exchange) -> None:
        forged = json.dumps({"data": {"event_type": "call.initiated", "id": "x", "payload": {}}}).encode()
        assert (await exchange.post(forged, signature="AAAA")).status_code == 403
        assert (await exchange.post(forged, at_s=1)).status_code == 403
        assert (await exchange.post(b"{}")).status_code == 400
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        stream_id, secret = "A" * 22, "B" * 76
        async with httpx.AsyncClient(base_url=server.url) as http:
            for path in (stream_id, f"{stream_id}/{secret}", f"{stream_id}/{secret}/more"):
                assert (await http.get(f"/media/telnyx/{path}", headers=upgrade)).status_code == 403
            keyed = {"Authorization": f"Bearer {API_KEY}"}
            made = (await http.post("/api/v1/browser-calls", json={"agent": "test"}, headers=keyed)).json()
            # Known, with its own secret, but another carrier's.
            other = f"/media/telnyx/{made['stream_id']}/{made['secret']}"
            assert (await http.get(other, headers=upgrade)).status_code == 403
        # Known, but with another secret: closed at its start, before any provider is reached.
        local = f"{server.url.replace('http', 'ws')}/media/browser/{made['stream_id']}"
        async with connect(local, proxy=None) as socket:
            await socket.send(json.dumps({"event": "start", "secret": secret, "sampleRate": 16000}))
            await socket.wait_closed()
            assert socket.close_code == 1008
        assert exchange.rest.requests == []

    serve(tmp_path, body, {**stores(database_url, redis_url), "API_KEY": API_KEY})
