"""The Twilio simulator against a stand-in server: order, signatures, marks, faults, REST, ends."""

from __future__ import annotations

import asyncio
import base64
import wave
from pathlib import Path

import httpx
import pytest
import uvloop
from picows import WSMsgType
from twilio.request_validator import RequestValidator

from bench.sim.caller import Say, ScriptedCaller, When
from bench.sim.fault import FaultPlan
from bench.sim.sound import Clip, write_stereo
from bench.sim.twilio import Call, Exchange
from tests.bench.stand_in import PUBLIC, TOKEN, TWIML, Agent, Behaviour, StandIn, tone

CLIP = Clip.from_pcmu(tone(400, 300), text="a tone", source="test")
pytestmark = pytest.mark.slow


async def place(
    stand_in: StandIn, party: ScriptedCaller, *, faults: FaultPlan | None = None, record: bool = False
) -> tuple[Call, Exchange]:
    async with Exchange(public_url=PUBLIC, local_url=stand_in.url) as exchange, asyncio.timeout(20):
        call = await exchange.call(party, from_="+15552000001", to="+15550100", faults=faults, record=record)
    return call, exchange


def run(
    party: ScriptedCaller,
    behaviour: Behaviour | None = None,
    *,
    faults: FaultPlan | None = None,
    record: bool = False,
) -> tuple[StandIn, Call, Exchange]:
    async def main() -> tuple[StandIn, Call, Exchange]:
        async with StandIn(behaviour) as stand_in:
            call, exchange = await place(stand_in, party, faults=faults, record=record)
        return stand_in, call, exchange

    return uvloop.run(main())


def test_a_conversation_is_heard_answered_and_recorded(tmp_path: Path) -> None:
    caller = ScriptedCaller([Say(clip=CLIP, think_ms=0), Say(clip=CLIP, think_ms=0)], quiet_ms=300)
    stand_in, call, exchange = run(caller, Behaviour(greeting_ms=300, reply_ms=300), record=True)
    assert (call.status, call.ended_by, exchange.debugger) == ("completed", "caller", [])
    assert [record.reply_latency_ms is not None for record in caller.records] == [True, True]
    # The stand-in answers after 20 silent frames.
    for record in caller.records:
        assert record.reply_latency_ms is not None
        assert 380 <= record.reply_latency_ms <= 600
    stream = call.streams[0]
    assert stream.said is not None
    assert stream.heard is not None
    path = tmp_path / "call.wav"
    write_stereo(path, b"".join(stream.said), b"".join(stream.heard))
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, len(stream.said) * 160)
    assert [valid for _, _, valid in stand_in.posts] == [True] * len(stand_in.posts)
    paths = [path for path, _, _ in stand_in.posts]
    assert paths[0] == "/twilio/voice"
    assert sorted(paths[1:]) == ["/twilio/status", "/twilio/stream-status", "/twilio/stream-status"]


def test_messages_come_in_twilios_form_and_order() -> None:
    caller = ScriptedCaller([Say(key="5"), Say(clip=CLIP, think_ms=0)], quiet_ms=100, patience_ms=300)
    stand_in, call, _ = run(caller, Behaviour(greeting_ms=200, reply_ms=200))
    events = [message["event"] for message in stand_in.messages]
    assert events[:3] == ["connected", "start", "media"]
    assert events[-1] == "stop"
    assert "dtmf" in events
    numbered = [message["sequenceNumber"] for message in stand_in.messages if message["event"] != "connected"]
    assert numbered == [str(n) for n in range(1, len(numbered) + 1)]
    media = [message["media"] for message in stand_in.messages if message["event"] == "media"]
    assert [part["chunk"] for part in media] == [str(n) for n in range(1, len(media) + 1)]
    assert [part["timestamp"] for part in media] == [str(20 * n) for n in range(1, len(media) + 1)]
    assert {len(base64.b64decode(part["payload"])) for part in media} == {160}
    start = stand_in.messages[1]["start"]
    assert start["customParameters"] == {"token": "secret"}
    assert start["callSid"] == call.sid
    marks = [message["mark"]["name"] for message in stand_in.messages if message["event"] == "mark"]
    assert marks == call.streams[0].facts.marks


def test_the_upgrade_is_signed_over_the_public_address() -> None:
    stand_in, _, _ = run(ScriptedCaller([], quiet_ms=100, patience_ms=200))
    upgrade = stand_in.upgrades[0]
    assert upgrade["host"] == "bench.example.test"
    assert upgrade["user-agent"] == "Twilio.TmeWs/1.0"
    wss = "wss://bench.example.test" + upgrade[":path"]
    validator = RequestValidator(TOKEN)
    assert validator.validate(wss, {}, upgrade["x-twilio-signature"])
    assert not validator.validate(wss + "x", {}, upgrade["x-twilio-signature"])


def test_a_barge_in_is_cleared_and_timed() -> None:
    caller = ScriptedCaller([Say(clip=CLIP, when=When.BARGE_IN, after_ms=200)], quiet_ms=200)
    _, call, _ = run(caller, Behaviour(greeting_ms=5000, reply_ms=200))
    record = caller.records[0]
    assert call.streams[0].facts.clears == 1
    assert record.time_to_clear_ms is not None
    assert 20 <= record.time_to_clear_ms <= 120
    assert caller.agent_speech_ms < 1500
    assert call.streams[0].playout.counters.cleared_samples > 3000 * 8


def test_a_caller_hangs_up_in_mid_sentence() -> None:
    caller = ScriptedCaller([Say(clip=CLIP, think_ms=0, cut_ms=200)], quiet_ms=100)
    stand_in, call, _ = run(caller, Behaviour(greeting_ms=100))
    assert caller.cut_off
    assert call.ended_by == "caller"
    assert stand_in.messages[-1]["event"] == "stop"


def test_the_server_ends_the_stream_and_action_is_asked() -> None:
    def close(agent: Agent) -> None:
        agent.transport.send_close()
        agent.transport.disconnect()

    answers = {"/twilio/voice": TWIML, "/twilio/after": "<Response><Say>Bye.</Say><Hangup/></Response>"}
    stand_in, call, exchange = run(ScriptedCaller([], stay=True), Behaviour(on_start=close, answers=answers))
    assert call.ended_by == "twiml"
    assert call.said == ["Say: Bye."]
    assert call.verbs == ["Connect", "Say", "Hangup"]
    assert [one.code for one in exchange.debugger] == [31921]
    assert "/twilio/after" in [path for path, _, _ in stand_in.posts]


def test_rest_hangs_up_with_auth_faults_and_404() -> None:
    async def main() -> None:
        async with StandIn() as stand_in, Exchange(public_url=PUBLIC, local_url=stand_in.url) as exchange:  # noqa: SIM117
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks, httpx.AsyncClient() as http:
                task = tasks.create_task(
                    exchange.call(ScriptedCaller([], stay=True), from_="+15552000001", to="+15550100")
                )
                while not stand_in.messages:
                    await asyncio.sleep(0.01)
                sid = next(iter(exchange.calls))
                account = exchange.account
                auth = (account.account_sid, account.auth_token)
                url = f"{exchange.rest_url}/2010-04-01/Accounts/{account.account_sid}/Calls/{sid}.json"
                form = {"Status": "completed"}
                assert (await http.post(url, data=form, auth=("x", "y"))).json()["code"] == 20003
                exchange.rest.faults += [429, 503, "drop"]
                assert (await http.post(url, data=form, auth=auth)).json()["code"] == 20429
                assert (await http.post(url, data=form, auth=auth)).status_code == 503
                with pytest.raises(httpx.RemoteProtocolError):
                    await http.post(url, data=form, auth=auth)
                missing = await http.post(url.replace(sid, "CA" + "0" * 32), data=form, auth=auth)
                assert (missing.status_code, missing.json()["code"]) == (404, 20404)
                assert (await http.post(url, data=form, auth=auth)).json()["sid"] == sid
                call = await task
                assert (call.status, call.ended_by) == ("completed", "rest")
                assert stand_in.messages[-1]["event"] == "stop"
                assert (await http.post(url, data=form, auth=auth)).status_code == 404

    uvloop.run(main())


def test_rest_redirect_opens_a_new_stream() -> None:
    async def main() -> None:
        async with StandIn() as stand_in, Exchange(public_url=PUBLIC, local_url=stand_in.url) as exchange:
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                task = tasks.create_task(
                    exchange.call(ScriptedCaller([], stay=True), from_="+15552000001", to="+15550100")
                )
                while not stand_in.messages:
                    await asyncio.sleep(0.01)
                sid = next(iter(exchange.calls))
                assert exchange.update_call(sid, {"Twiml": TWIML}) == (200, "")
                while len(stand_in.agents) < 2 or not stand_in.agents[1].stream_sid:
                    await asyncio.sleep(0.01)
                assert exchange.update_call(sid, {"Status": "completed"}) == (200, "")
                call = await task
            sids = [stream.facts.stream_sid for stream in call.streams]
            assert len(set(sids)) == 2
            starts = [m for m in stand_in.messages if m["event"] == "start"]
            assert [m["sequenceNumber"] for m in starts] == ["1", "1"]

    uvloop.run(main())


@pytest.mark.parametrize(
    ("twiml", "status", "ended_by", "code"),
    [
        ('<Response><Reject reason="busy"/></Response>', "busy", "rejected", None),
        ("<Response><Hangup/></Response>", "completed", "twiml", None),
        ("<Response><Redirect>/twilio/second</Redirect></Response>", "completed", "twiml", None),
        ("<Response><Redirect>/twilio/voice</Redirect></Response>", "failed", "failed", 11215),
        (TWIML.replace("/abc", "/abc?x=1"), "failed", "failed", 31920),
        (TWIML.replace("wss:", "ws:"), "failed", "failed", 31922),
        (TWIML.replace("wss://bench.example.test", ""), "failed", "failed", 31923),
        ("<Response><connect/></Response>", "failed", "failed", 12200),
        ("<Response>", "failed", "failed", 12100),
    ],
)
def test_twiml_is_executed_or_refused(twiml: str, status: str, ended_by: str, code: int | None) -> None:
    answers = {"/twilio/voice": twiml, "/twilio/second": "<Response><Hangup/></Response>"}
    _, call, exchange = run(ScriptedCaller([]), Behaviour(answers=answers))
    assert (call.status, call.ended_by) == (status, ended_by)
    assert [one.code for one in exchange.debugger] == ([] if code is None else [code])


def test_bad_messages_are_reported_once_and_dropped() -> None:
    def misbehave(agent: Agent) -> None:
        sid = agent.stream_sid
        agent.stream_sid = "MZ" + "0" * 32
        agent.send("media", payload="AAAA")
        agent.stream_sid = sid
        agent.send("shout")
        agent.send("media", payload="not base64!")
        agent.transport.send(WSMsgType.BINARY, b"\x00")
        agent.transport.send(WSMsgType.TEXT, b"{")

    _, call, exchange = run(ScriptedCaller([], quiet_ms=100, patience_ms=200), Behaviour(on_start=misbehave))
    assert [one.code for one in exchange.debugger] == [31951, 31950]
    assert call.streams[0].facts.bad_messages == 5
    assert call.streams[0].facts.frames_in == 0


def test_faults_reach_the_server_as_planned() -> None:
    plan = FaultPlan(drop=(3,), duplicate=(5,), swap=(7,), stalls=((10, 4),), swallow_marks=True)
    stand_in, _, _ = run(ScriptedCaller([], quiet_ms=100, patience_ms=400), Behaviour(greeting_ms=100), faults=plan)
    chunks = [int(message["media"]["chunk"]) for message in stand_in.messages if message["event"] == "media"]
    assert chunks[:16] == [1, 2, 4, 5, 5, 6, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16][: len(chunks)]
    assert not [message for message in stand_in.messages if message["event"] == "mark"]


def test_one_mark_is_lost_and_the_next_comes_back() -> None:
    def mark_twice(agent: Agent) -> None:
        agent.send("mark", name="first")
        agent.send("mark", name="second")

    quick = ScriptedCaller([], quiet_ms=100, patience_ms=200)
    stand_in, _, _ = run(quick, Behaviour(on_start=mark_twice), faults=FaultPlan(lose_marks=(1,)))
    assert [one["mark"]["name"] for one in stand_in.messages if one["event"] == "mark"] == ["second"]


def test_keys_are_pressed_in_the_middle_of_what_is_said() -> None:
    caller = ScriptedCaller([Say(clip=CLIP, think_ms=0, keys=((100, "4"), (140, "2")))], quiet_ms=100, patience_ms=300)
    stand_in, _, _ = run(caller, Behaviour(greeting_ms=100, reply_ms=100))
    media = [one for one in stand_in.messages if one["event"] in ("media", "dtmf")]
    keys = {one["dtmf"]["digit"]: at for at, one in enumerate(media) if one["event"] == "dtmf"}
    assert list(keys) == ["4", "2"] and keys["2"] - keys["4"] == 3  # 40 ms of audio lie between
    spoken = base64.b64encode(CLIP.pcmu[:160]).decode()
    begin = next(at for at, one in enumerate(media) if one["event"] == "media" and one["media"]["payload"] == spoken)
    assert keys["4"] == begin + 5


def test_an_abrupt_close_is_a_broken_pipe_for_the_server() -> None:
    stand_in, call, _ = run(ScriptedCaller([], stay=True), faults=FaultPlan(abort_at=5))
    assert call.is_over
    assert stand_in.messages[-1]["event"] != "stop"


def test_a_server_that_is_not_there_is_11200() -> None:
    async def main() -> Exchange:
        async with Exchange(public_url=PUBLIC, local_url="http://127.0.0.1:9") as exchange:
            call = await exchange.call(ScriptedCaller([]), from_="+15552000001", to="+15550100")
            assert (call.status, call.ended_by) == ("failed", "failed")
        return exchange

    assert [one.code for one in uvloop.run(main()).debugger] == [11200]


def test_signatures_are_twilios_own() -> None:
    """The vectors of protocols/twilio.md, section 2."""
    exchange = Exchange(public_url="https://voice.example.com", local_url="http://127.0.0.1:9")
    form = {
        "CallSid": "CA" + "a" * 32,
        "AccountSid": "AC" + "b" * 32,
        "From": "+4915112345678",
        "To": "+493012345678",
        "CallStatus": "ringing",
        "ApiVersion": "2010-04-01",
        "Direction": "inbound",
    }
    url = "https://voice.example.com/twilio/voice?tenant=acme"
    assert exchange.sign(url, form) == "6wvKT1gf7PZG6LADCUzdni0Kr5c="
    assert exchange.sign(url.replace(".com/", ".com:8443/"), form) == "6wvKT1gf7PZG6LADCUzdni0Kr5c="
    assert exchange.sign(url + "#rc=2", form) == "6wvKT1gf7PZG6LADCUzdni0Kr5c="
    assert exchange.sign("wss://voice.example.com/twilio/media", {}) == "3Wv0T80qzAY3OCARW9y1gnUJZtE="
    assert RequestValidator(TOKEN).validate(url, form, exchange.sign(url, form))
