"""The Telnyx media simulator against the product's wire module, over a real socket: codecs, order, marks, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from audio_native.uplink import F_BAD, F_SLOW, Uplink
from bench.sim.caller import Say, ScriptedCaller, When
from bench.sim.fault import FaultPlan
from bench.sim.sound import FRAME_NS, Clip, audioop, from_pcmu
from bench.sim.telnyx_stream import Encoding, TelnyxStream
from bench.sim.ticker import Ticker
from server.wire.event import DtmfReceived, MarkReached, MediaFormat, MediaReceived, StreamConnected, StreamStarted
from server.wire.grammar import grammar_for
from server.wire.telnyx import TelnyxWire
from tests.bench.stand_in import tone

CLIP = Clip.from_pcmu(tone(400, 300), text="a tone", source="test")
STREAM_ID = "32de0dea-53cb-4b21-89a4-9e1819c043bc"
pytestmark = pytest.mark.slow


@dataclass
class Heard:
    """What the product's parsers made of the stream."""

    events: list[Any] = field(default_factory=list)
    started: StreamStarted | None = None
    uplink: Uplink | None = None
    slow: int = 0
    bad: int = 0
    raw: list[dict[str, Any]] = field(default_factory=list)
    codes: bytearray = field(default_factory=bytearray)


class Server(WSListener):
    """Takes messages as the product does: `start` by the parser, media by the uplink, the rest by the parser."""

    def __init__(self, heard: Heard, on_start: Callable[[TelnyxWire, WSTransport, MediaFormat], None]) -> None:
        self.heard = heard
        self.wire = TelnyxWire()
        self._on_start = on_start

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        message, heard = frame.get_payload_as_bytes(), self.heard
        heard.raw.append(json.loads(message))
        if heard.uplink is None:
            event = self.wire.receive(message)
            heard.events.append(event)
            if isinstance(event, StreamStarted):
                fmt = event.media_format
                heard.started = event
                heard.uplink = Uplink(
                    grammar=grammar_for("telnyx", event.stream_id), codec=fmt.codec, rate_hz=fmt.rate_hz, out="s16",
                    may_reorder=self.wire.may_reorder,
                )  # fmt: skip
                heard.uplink.is_wanted = True
                self._on_start(self.wire, transport, fmt)
            return
        flags = heard.uplink.feed(message)
        heard.bad += bool(flags & F_BAD)
        if not flags & F_SLOW:
            heard.codes += heard.uplink.take()
            return
        event = self.wire.receive(message)
        if isinstance(event, MediaReceived):
            heard.slow += 1
            heard.uplink.feed_payload(event.payload, event.chunk, event.timestamp_ms)
        else:
            heard.events.append(event)


def coded(pcmu: bytes, fmt: MediaFormat) -> bytes:
    """mu-law codes in the stream's codec, by audioop."""
    s16 = from_pcmu(pcmu)
    if fmt.codec == "PCMA":
        return bytes(audioop.lin2alaw(s16, 2))
    if fmt.codec == "L16":
        return bytes(audioop.byteswap(audioop.ratecv(s16, 2, 1, 8000, fmt.rate_hz, None)[0], 2))
    return pcmu


def talk(
    party: ScriptedCaller,
    *,
    encoding: Encoding = "PCMU",
    faults: FaultPlan | None = None,
    on_start: Callable[[TelnyxWire, WSTransport, MediaFormat], None] = lambda wire, transport, fmt: None,
) -> tuple[Heard, TelnyxStream, list[int]]:
    """One stream from its opening until the caller hangs up."""
    heard, warnings = Heard(), []

    async def main() -> TelnyxStream:
        server = await ws_create_server(lambda _request: Server(heard, on_start), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        stream = TelnyxStream(
            stream_id=STREAM_ID,
            call_control_id="v3:3m0Fb8",
            party=party,
            on_warning=lambda code, text: warnings.append(code),
            encoding=encoding,
            token="opaque",
            parameters={"secret": "s"},
            faults=faults,
        )
        ticker = Ticker(FRAME_NS, 10)
        ticker.start()
        async with asyncio.timeout(15):
            await ws_connect(lambda: stream, f"ws://127.0.0.1:{port}/media/telnyx/x")
            ticker.add(stream, stream.facts.opened_ns)
            await asyncio.wait([stream.hung_up, stream.closed], return_when=asyncio.FIRST_COMPLETED)
            stream.stop()
            await stream.closed
        ticker.stop()
        server.close()
        await server.wait_closed()
        return stream

    return heard, uvloop.run(main()), warnings


@pytest.mark.parametrize(("encoding", "rate_hz"), [("PCMU", 8000), ("PCMA", 8000), ("L16", 16000)])
def test_each_codec_is_understood_and_plays(encoding: Encoding, rate_hz: int) -> None:
    def speak(wire: TelnyxWire, transport: WSTransport, fmt: MediaFormat) -> None:
        transport.send(WSMsgType.TEXT, wire.media(coded(tone(300, 500), fmt)))
        transport.send(WSMsgType.TEXT, wire.mark("u1"))

    caller = ScriptedCaller([Say(clip=CLIP, think_ms=0)], quiet_ms=100, patience_ms=300)
    heard, stream, warnings = talk(caller, encoding=encoding, on_start=speak)
    assert heard.events[0] == StreamConnected("opaque")
    started = heard.started
    assert started is not None
    assert started.media_format == MediaFormat(encoding, rate_hz)
    assert (started.stream_id, started.call_id) == (STREAM_ID, "v3:3m0Fb8")
    assert started.parameters == {"secret": "s"}
    # The fast path took every frame, and marks came back when their audio had been played.
    assert (heard.slow, heard.bad, warnings) == (0, 0, [])
    assert heard.uplink is not None
    assert heard.uplink.frames == stream.facts.frames_out
    assert MarkReached("u1") in heard.events
    assert caller.first_heard_ms is not None
    assert 260 <= caller.agent_speech_ms <= 340
    said = [one for one in heard.raw if one["event"] == "media"]
    assert [one["media"]["chunk"] for one in said] == [str(n) for n in range(1, len(said) + 1)]
    # What was said arrives as it was said: the tone's level, whatever the codec.
    assert audioop.max(bytes(heard.codes), 2) == pytest.approx(8000, rel=0.1)


def test_frames_that_overtake_each_other_are_put_right() -> None:
    caller = ScriptedCaller([Say(clip=CLIP, think_ms=0)], quiet_ms=100, patience_ms=600)
    heard, stream, _ = talk(caller, faults=FaultPlan(swap_rate=0.2))
    assert stream.path is not None
    assert stream.path.swapped > 2
    assert heard.uplink is not None
    assert heard.uplink.reordered > 0
    assert heard.uplink.duplicates == 0


def test_keys_arrive_and_clear_returns_marks() -> None:
    def speak(wire: TelnyxWire, transport: WSTransport, fmt: MediaFormat) -> None:
        transport.send(WSMsgType.TEXT, wire.media(tone(5000, 500)))
        transport.send(WSMsgType.TEXT, wire.mark("u1"))
        asyncio.get_running_loop().call_later(0.5, transport.send, WSMsgType.TEXT, wire.clear())

    caller = ScriptedCaller([Say(key="7", when=When.BARGE_IN, after_ms=200)], quiet_ms=200, patience_ms=400)
    heard, stream, _ = talk(caller, on_start=speak)
    assert DtmfReceived("7") in heard.events
    assert MarkReached("u1") in heard.events
    assert stream.facts.clears == 1
    assert stream.playout.counters.cleared_samples > 4000 * 8
    assert caller.agent_speech_ms < 900


def test_bad_messages_are_answered_by_errors() -> None:
    def misbehave(wire: TelnyxWire, transport: WSTransport, fmt: MediaFormat) -> None:
        for message in (
            b'{"event":"media","stream_id":"x","media":{"payload":"AAAA"}}',  # no stream id is wanted
            b'{"event":"media","media":{"payload":"AAAA"}}',  # 3 bytes: less than 20 ms
            b'{"event":"media","media":{"payload":"?"}}',
            b'{"event":"shout"}',
            b"{",
        ):
            transport.send(WSMsgType.TEXT, message)

    heard, stream, _ = talk(ScriptedCaller([], quiet_ms=100, patience_ms=300), on_start=misbehave)
    assert stream.errors_sent == [100004, 100004, 100004, 100003, 100003]
    assert stream.facts.frames_in == 0
    answers = [one for one in heard.raw if one["event"] == "error"]
    assert [one["payload"]["code"] for one in answers] == stream.errors_sent
    # The product takes them for what they are.
    reasons = [one.reason for one in heard.events if type(one).__name__ == "Ignored"]
    assert reasons == ["error_invalid_media"] * 3 + ["error_malformed_frame"] * 2
