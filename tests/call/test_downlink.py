"""The way out, under a manual clock: pacing at the lead, whole frames, marks, and a clear that tells the truth."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from providers.base import AudioFormat
from server.call.downlink import HIGH_WATER_MS, MAX_SOCKET_BYTES, Converter, Downlink
from server.call.pacer import TICK_NS, Pacer
from server.clock import ManualClock
from server.dialogue import event as ev
from server.wire.event import MediaFormat
from server.wire.twilio import TwilioWire

PCMU = AudioFormat("pcmu", 8000)
START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC" + "b" * 32,
        "streamSid": "MZ" + "0" * 32,
        "callSid": "CA" + "a" * 32,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {},
    },
    "streamSid": "MZ" + "0" * 32,
}


class Line:
    """The carrier's end of the socket: what was sent, in order."""

    def __init__(self) -> None:
        self.buffered_bytes = 0
        self.sent: list[dict[str, Any]] = []

    def send_media(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    send_control = send_media

    def audio(self) -> bytes:
        return b"".join(base64.b64decode(m["media"]["payload"]) for m in self.sent if m["event"] == "media")

    def sizes_ms(self) -> list[int]:
        return [len(base64.b64decode(m["media"]["payload"])) // 8 for m in self.sent if m["event"] == "media"]

    def marks(self) -> list[str]:
        return [m["mark"]["name"] for m in self.sent if m["event"] == "mark"]


class Rig:
    def __init__(self, lead_ms: int = 200, chunk_ms: int = 100) -> None:
        self.clock = ManualClock(1_000_000_000)
        self.line = Line()
        self.events: list[ev.Event] = []
        self.late: list[float] = []
        wire = TwilioWire()
        wire.receive(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        wire.receive(json.dumps(START).encode())
        self.downlink = Downlink(
            wire=wire,
            fmt=MediaFormat("PCMU", 8000),
            sink=self.line,
            pacer=Pacer(self.clock, lambda late_s: None),
            clock=self.clock,
            dispatch=self.events.append,
            on_lateness=self.late.append,
            lead_ms=lead_ms,
            chunk_ms=chunk_ms,
        )

    def say(self, clause_no: int, ms: int, code: int = 0x10) -> None:
        self.downlink.begin_clause()
        self.downlink.push(clause_no, bytes([code]) * (8 * ms), PCMU)
        self.downlink.end_clause(clause_no)

    def run(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.clock.advance_ms(20)
            self.downlink.tick(self.clock.now_ns())


def on_loop(test: Callable[[], None]) -> Callable[[], None]:
    """The pacer arms a timer on the running loop; the loop never gets to fire it."""

    def run() -> None:
        async def body() -> None:
            test()

        asyncio.run(body())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@on_loop
def test_first_chunk_leaves_at_once_and_the_lead_is_kept() -> None:
    rig = Rig()
    rig.say(1, 1000)
    assert rig.line.sizes_ms() == [100, 100]
    assert rig.events[0] == ev.FirstSent(1)
    buffered = []
    for _ in range(40):
        rig.run(20)
        buffered.append(rig.downlink.playout.buffered_ns(rig.clock.now_ns()) // 1_000_000)
    assert max(buffered) <= 220 and min(buffered[:35]) >= 100
    assert rig.line.audio() == b"\x10" * 8000
    assert rig.downlink.playout.underruns == 0
    assert max(rig.late) == 0


@on_loop
def test_a_tick_with_nothing_due_does_not_ask_the_socket() -> None:
    rig = Rig()
    rig.say(1, 1000)
    sent = len(rig.line.sent)
    del rig.line.buffered_bytes
    rig.run(60)
    rig.line.buffered_bytes = 0
    assert len(rig.line.sent) == sent
    rig.run(20)
    assert len(rig.line.sent) > sent


@on_loop
def test_only_whole_frames_leave_and_the_last_one_is_filled_with_silence() -> None:
    rig = Rig()
    rig.downlink.begin_clause()
    for _ in range(7):
        rig.downlink.push(1, b"\x10" * 333, PCMU)
    rig.downlink.end_clause(1)
    rig.run(400)
    assert all(ms % 20 == 0 for ms in rig.line.sizes_ms())
    assert rig.line.audio() == b"\x10" * 2331 + b"\xff" * 69
    assert ev.SpeechRendered(1, 2400) in rig.events


@on_loop
def test_mark_follows_each_clause_and_finishes_it() -> None:
    rig = Rig()
    rig.say(1, 100)
    rig.say(2, 60)
    rig.run(100)
    assert rig.line.marks() == ["g0:1", "g0:2"]
    rig.downlink.on_mark("g0:1")
    assert rig.events[-1] == ev.PlayoutFinished(1, True)
    rig.downlink.on_mark("g0:1")
    rig.downlink.on_mark("g7:2")
    rig.downlink.on_mark("nonsense")
    assert rig.events[-1] == ev.PlayoutFinished(1, True)
    rig.downlink.on_mark("g0:2")
    assert rig.events[-1] == ev.PlayoutFinished(2, True)
    assert rig.downlink.tick(rig.clock.now_ns()) is False


@on_loop
def test_mark_that_never_comes_back_is_given_up_a_second_later() -> None:
    rig = Rig()
    rig.say(1, 500)
    rig.run(1480)
    assert not any(isinstance(e, ev.PlayoutFinished) for e in rig.events)
    rig.run(60)
    assert rig.events[-1] == ev.PlayoutFinished(1, False)


@on_loop
def test_clear_drops_the_rest_and_says_what_was_heard() -> None:
    rig = Rig()
    rig.say(1, 100)
    rig.say(2, 1000)
    rig.run(400)
    cleared = rig.downlink.clear()
    assert rig.line.sent[-1]["event"] == "clear"
    heard = {clause: samples for clause, samples, _ in cleared.heard}
    assert heard == {1: 800, 2: 2400}
    count = len(rig.line.sent)
    rig.run(1000)
    assert len(rig.line.sent) == count
    # All marks come back on clear, of a generation that is over.
    rig.downlink.on_mark("g0:1")
    assert not any(isinstance(e, ev.PlayoutFinished) for e in rig.events)
    rig.say(3, 100)
    assert rig.line.marks()[-1] == "g1:3"


@on_loop
def test_stall_of_the_loop_catches_up_without_drift() -> None:
    rig = Rig(lead_ms=200)
    rig.say(1, 3000)
    rig.clock.advance_ms(80)
    rig.downlink.tick(rig.clock.now_ns())
    assert rig.downlink.playout.underruns == 0
    rig.clock.advance_ms(350)
    rig.downlink.tick(rig.clock.now_ns())
    assert rig.downlink.playout.underruns == 1
    assert max(rig.late) == pytest.approx(0.1)
    rig.run(3200)
    assert len(rig.line.audio()) == 24_000


@on_loop
def test_peer_that_does_not_read_is_sent_nothing_more() -> None:
    rig = Rig()
    rig.line.buffered_bytes = MAX_SOCKET_BYTES
    rig.say(1, 400)
    rig.run(1000)
    assert rig.line.sent == []
    rig.line.buffered_bytes = 0
    rig.run(20)
    assert rig.line.sizes_ms()[0] == 100


@on_loop
def test_closed_stream_sends_nothing_but_still_knows() -> None:
    rig = Rig()
    rig.say(1, 1000)
    rig.run(100)
    rig.downlink.close()
    count = len(rig.line.sent)
    assert rig.downlink.tick(rig.clock.now_ns()) is False
    assert rig.downlink.clear().heard == ((1, 800, 2400),) or len(rig.line.sent) == count


def test_synthesiser_waits_when_eight_seconds_are_queued() -> None:
    async def body() -> None:
        rig = Rig()
        rig.downlink.begin_clause()
        rig.downlink.push(1, b"\x10" * (8 * (HIGH_WATER_MS + 400)), PCMU)
        waiting = asyncio.ensure_future(rig.downlink.wait_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        rig.run(600)
        await asyncio.wait_for(waiting, 1)

    asyncio.run(body())


def test_pacer_ticks_on_absolute_deadlines_and_only_while_needed() -> None:
    class Counting:
        def __init__(self, left: int) -> None:
            self.left = left
            self.at: list[int] = []
            self.done = asyncio.Event()

        def tick(self, now_ns: int) -> bool:
            self.at.append(now_ns)
            self.left -= 1
            if self.left == 0:
                self.done.set()
            return self.left > 0

    async def body() -> None:
        from server.clock import SystemClock

        clock = SystemClock()
        late: list[float] = []
        pacer = Pacer(clock, late.append)
        paced = Counting(10)
        began_ns = clock.now_ns()
        pacer.add(paced)
        await asyncio.wait_for(paced.done.wait(), 5)
        # Late or not, the tenth tick belongs to the tenth deadline or a later one, never to an earlier one.
        assert paced.at[-1] - began_ns >= 10 * TICK_NS
        assert len(late) == 10
        again = Counting(1)
        pacer.add(again)
        await asyncio.wait_for(again.done.wait(), 5)
        assert len(paced.at) == 10

    asyncio.run(body())


@pytest.mark.parametrize("chunk", [1, 3, 160, 640, 5000])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (AudioFormat("s16", 16000), MediaFormat("PCMU", 8000)),
        (AudioFormat("s16", 24000), MediaFormat("PCMA", 8000)),
        (AudioFormat("pcmu", 8000), MediaFormat("PCMU", 8000)),
        (AudioFormat("pcmu", 8000), MediaFormat("S16", 16000)),
        (AudioFormat("s16", 16000), MediaFormat("L16", 16000)),
    ],
    ids=str,
)
def test_conversion_is_the_same_however_the_audio_is_cut(source: AudioFormat, target: MediaFormat, chunk: int) -> None:
    audio = bytes(range(256)) * 40
    whole = Converter(source, target)
    expected = whole.convert(audio) + whole.flush()
    pieces = Converter(source, target)
    got = b"".join(pieces.convert(audio[i : i + chunk]) for i in range(0, len(audio), chunk)) + pieces.flush()
    assert got == expected
    seconds = len(audio) / source.bytes_per_sample / source.rate_hz
    width = 1 if target.codec.startswith("PCM") else 2
    assert len(expected) / width / target.rate_hz == pytest.approx(seconds, abs=0.005)


@on_loop
def test_format_changes_within_a_clause() -> None:
    """A second provider takes over in mid-clause: its audio is converted as what it is."""
    rig = Rig()
    rig.downlink.begin_clause()
    rig.downlink.push(1, b"\x10" * 800, PCMU)
    rig.downlink.push(1, b"\0\0" * 1600, AudioFormat("s16", 16000))
    rig.downlink.end_clause(1)
    rendered = [one for one in rig.events if isinstance(one, ev.SpeechRendered)]
    # 100 ms of each, and the filter's delay rounded up to a whole frame.
    assert [one.samples for one in rendered] == [1600 + 160]
