"""What we send, and what all wires have in common. What they understand is in test_media_torture."""

from __future__ import annotations

import base64
import json

import pytest

from server.errors import LocalWireError, RemoteWireError
from server.wire.browser import BrowserWire
from server.wire.event import DtmfReceived, MarkReached, MediaFormat, StreamStarted, StreamStopped, Wire
from server.wire.json import DROPPABLE_CLOSE_CODES, MAX_MESSAGE_BYTES, SequenceTracker, StreamState
from server.wire.telnyx import TelnyxWire
from server.wire.twilio import TwilioWire
from tests.wire.test_media_torture import ROWS
from tests.wire.test_wire_fuzz import OPENINGS, new_wire, opened

TWILIO_SID = "MZ0f00000000000000000000000000beef"
STOPS = {
    row["carrier"]: row["message"].encode() for row in ROWS if row.get("event", {}).get("type") == "StreamStopped"
} | {"browser": b'{"event":"stop"}'}


@pytest.mark.parametrize("carrier", OPENINGS)
def test_sends_only_while_streaming(carrier: str) -> None:
    wire = new_wire(carrier)
    for message in [*OPENINGS[carrier], STOPS[carrier]]:
        if wire.state is not StreamState.STREAMING:  # type: ignore[attr-defined]
            for send in (lambda: wire.media(bytes(320)), lambda: wire.mark("m"), wire.clear):
                with pytest.raises(LocalWireError):
                    send()
        wire.receive(message)
    for send in (lambda: wire.media(bytes(320)), lambda: wire.mark("m"), wire.clear):
        with pytest.raises(LocalWireError):
            send()


def test_twilio_messages() -> None:
    wire = opened("twilio", 2)
    assert wire.media(b"\x00\x7f\xff" * 60) == (
        b'{"event":"media","streamSid":"%s","media":{"payload":"%s"}}'
        % (TWILIO_SID.encode(), base64.b64encode(b"\x00\x7f\xff" * 60))
    )
    assert json.loads(wire.mark("g1:u2")) == {"event": "mark", "streamSid": TWILIO_SID, "mark": {"name": "g1:u2"}}
    assert json.loads(wire.clear()) == {"event": "clear", "streamSid": TWILIO_SID}


def test_twilio_stream_id_is_escaped() -> None:
    """An id is whatever the carrier chose; it must not break out of its string."""
    wire = TwilioWire()
    connected, start = (message.decode() for message in OPENINGS["twilio"])
    wire.receive(connected.encode())
    wire.receive(start.replace(TWILIO_SID, 'MZ\\"}\\u0000').encode())
    for message in (wire.media(b"\xff"), wire.mark("m"), wire.clear()):
        assert json.loads(message)["streamSid"] == 'MZ"}\0'


def test_telnyx_messages() -> None:
    wire = opened("telnyx", 2)
    assert wire.media(b"\xff" * 160) == b'{"event":"media","media":{"payload":"%s"}}' % base64.b64encode(b"\xff" * 160)
    assert json.loads(wire.mark("g1:u2")) == {"event": "mark", "mark": {"name": "g1:u2"}}
    assert json.loads(wire.clear()) == {"event": "clear"}


def test_telnyx_keeps_to_message_lengths() -> None:
    wire = opened("telnyx", 2)
    for size in (160, 240_000):
        assert wire.media(bytes(size))
    for size in (0, 159, 240_001):
        with pytest.raises(LocalWireError):
            wire.media(bytes(size))


def test_telnyx_l16_needs_whole_samples() -> None:
    wire = TelnyxWire()
    connected, start = OPENINGS["telnyx"]
    wire.receive(connected)
    started = wire.receive(
        start.replace(b'"encoding":"PCMU","sample_rate":8000', b'"encoding":"L16","sample_rate":16000')
    )
    assert isinstance(started, StreamStarted)
    assert started.media_format == MediaFormat("L16", 16000)
    assert wire.media(bytes(640))
    for size in (638, 641):
        with pytest.raises(LocalWireError):
            wire.media(bytes(size))


def test_browser_both_ways() -> None:
    wire = BrowserWire("stream-1")
    with pytest.raises(RemoteWireError) as caught:
        wire.receive_audio(bytes(640))
    assert caught.value.close_code == 1002
    started = wire.receive(b'{"event":"start","secret":"s3","sampleRate":16000,"page":"console"}')
    assert started == StreamStarted("stream-1", "stream-1", MediaFormat("S16", 16000), {"secret": "s3"})
    assert wire.media(b"\x01\x02") == b"\x01\x02"
    assert json.loads(wire.mark("g1")) == {"event": "mark", "name": "g1"}
    assert json.loads(wire.clear()) == {"event": "clear"}
    shown = {"event": "transcript", "speaker": "caller", "text": "hola", "final": False}
    assert json.loads(wire.transcript("caller", "hola", final=False)) == shown
    assert json.loads(wire.turn(612.5, {"stt": 210.0})) == {
        "event": "turn",
        "latencyMs": 612.5,
        "stages": {"stt": 210.0},
    }
    assert wire.receive(b'{"event":"mark","name":"g1"}') == MarkReached("g1")
    assert wire.receive(b'{"event":"dtmf","digit":"#"}') == DtmfReceived("#")
    assert wire.receive(b'{"event":"stop"}') == StreamStopped()
    with pytest.raises(RemoteWireError):
        wire.receive_audio(bytes(640))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b'{"event":"start","sampleRate":16000}', 1007),
        (b'{"event":"start","secret":"","sampleRate":16000}', 1007),
        (b'{"event":"start","secret":"s"}', 1003),
        (b'{"event":"start","secret":"s","sampleRate":48000}', 1003),
        (b'{"event":"start","secret":"s","sampleRate":true}', 1003),
        (b'{"event":"mark","name":"m"}', 1002),
    ],
)
def test_browser_start_is_checked(message: bytes, code: int) -> None:
    with pytest.raises(RemoteWireError) as caught:
        BrowserWire("s").receive(message)
    assert caught.value.close_code == code


def test_browser_bounds() -> None:
    wire = opened("browser", 1)
    assert isinstance(wire, BrowserWire)
    assert wire.receive_audio(bytes(MAX_MESSAGE_BYTES)).chunk == 1
    with pytest.raises(RemoteWireError) as caught:
        wire.receive_audio(bytes(MAX_MESSAGE_BYTES + 2))
    assert caught.value.close_code == 1009
    with pytest.raises(RemoteWireError) as caught:
        wire.receive(b'{"event":"media"}')
    assert caught.value.close_code in DROPPABLE_CLOSE_CODES
    for size in (0, 1):
        with pytest.raises(LocalWireError):
            wire.media(bytes(size))


@pytest.mark.parametrize("carrier", OPENINGS)
def test_mark_names_that_could_not_come_back_are_not_sent(carrier: str) -> None:
    wire = opened(carrier, 2)
    for name in ("", "m" * 257):
        with pytest.raises(LocalWireError):
            wire.mark(name)


def test_sequence_tracker_is_bounded() -> None:
    tracker = SequenceTracker()
    assert not any(tracker.is_repeat(number) for number in range(1, 1001))
    assert tracker.is_repeat(1000)
    assert tracker.is_repeat(1000 - SequenceTracker.WINDOW + 1)
    assert not tracker.is_repeat(1000 - SequenceTracker.WINDOW), "forgotten"
    assert (tracker.highest, tracker.repeats) == (1000, 2)


@pytest.mark.parametrize("carrier", ["twilio", "telnyx"])
def test_highest_sequence_is_known(carrier: str) -> None:
    wire: Wire = opened(carrier, 2)
    wire.receive(STOPS[carrier])
    assert wire.highest_sequence == 901  # type: ignore[attr-defined]
