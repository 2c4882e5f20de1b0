"""Any bytes, in any state, give a media event or RemoteWireError; nothing else, and nothing half done."""

from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import RemoteWireError
from server.wire.browser import BrowserWire
from server.wire.event import MediaEvent, MediaReceived, Wire
from server.wire.telnyx import TelnyxWire
from server.wire.twilio import TwilioWire
from tests.wire.test_media_torture import ROWS, message_of

BROWSER_START = b'{"event":"start","secret":"s","sampleRate":16000}'
OPENINGS: dict[str, list[bytes]] = {
    row["carrier"]: [message.encode() for message in row["before"]]
    for row in ROWS
    if row["why"] == "media as documented"
} | {"browser": [BROWSER_START]}
SEEDS = {
    carrier: [message_of(row) for row in ROWS if row["carrier"] == carrier and len(row.get("message", "")) < 2000]
    for carrier in ("twilio", "telnyx")
} | {
    "browser": [
        BROWSER_START,
        b'{"event":"mark","name":"g1"}',
        b'{"event":"dtmf","digit":"5"}',
        b'{"event":"stop"}',
        b'{"event":"media"}',
    ]
}
KEYS = (
    "event streamSid stream_id sequenceNumber sequence_number start media mark dtmf stop payload chunk timestamp track "
    "digit name mediaFormat media_format encoding sampleRate sample_rate channels customParameters custom_parameters "
    "callSid call_control_id secret connected protocol version code"
).split()
CODES = {1002, 1003, 1007, 1008, 1009}


def new_wire(carrier: str) -> Wire:
    return {"twilio": TwilioWire, "telnyx": TelnyxWire, "browser": lambda: BrowserWire("s1")}[carrier]()


def opened(carrier: str, messages: int) -> Wire:
    wire = new_wire(carrier)
    for message in OPENINGS[carrier][:messages]:
        wire.receive(message)
    return wire


def feed(wire: Wire, message: bytes) -> None:
    state = wire.state  # type: ignore[attr-defined]
    try:
        event = wire.receive(message)
    except RemoteWireError as error:
        assert error.close_code in CODES
        assert wire.state is state  # type: ignore[attr-defined]
    else:
        assert isinstance(event, get_args(MediaEvent))


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
)
values = st.recursive(
    scalars | st.sampled_from(["start", "media", "mark", "connected", "1", "20", "//8=", "inbound", "PCMU"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=6,
)
messages = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


@pytest.mark.slow
@pytest.mark.parametrize("carrier", OPENINGS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(noise=st.lists(st.binary(max_size=400), max_size=8), opening=st.integers(0, 2))
def test_noise(carrier: str, noise: list[bytes], opening: int) -> None:
    wire = opened(carrier, opening)
    for message in noise:
        feed(wire, message)


@pytest.mark.slow
@pytest.mark.parametrize("carrier", OPENINGS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(parts=st.lists(messages, max_size=4), opening=st.integers(0, 2))
def test_json_of_the_right_words(carrier: str, parts: list[dict[str, Any]], opening: int) -> None:
    wire = opened(carrier, opening)
    for part in parts:
        feed(wire, orjson.dumps(part))


@pytest.mark.slow
@pytest.mark.parametrize("carrier", OPENINGS)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), opening=st.integers(0, 2))
def test_real_messages_damaged(carrier: str, data: st.DataObject, opening: int) -> None:
    wire = opened(carrier, opening)
    for message in data.draw(st.lists(st.sampled_from(SEEDS[carrier]), min_size=1, max_size=4)):
        damaged = bytearray(message)
        for _ in range(data.draw(st.integers(0, 3))):
            start = data.draw(st.integers(0, len(damaged)))
            end = min(len(damaged), start + data.draw(st.integers(0, 8)))
            damaged[start:end] = data.draw(
                st.binary(max_size=6) | st.sampled_from([b'"', b"{", b"}", b"[", b"0", b"null"])
            )
        feed(wire, bytes(damaged))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(parts=st.lists(st.binary(max_size=60), max_size=12))
def test_browser_audio_keeps_its_timeline(parts: list[bytes]) -> None:
    wire = opened("browser", 1)
    assert isinstance(wire, BrowserWire)
    chunk, samples = 0, 0
    for part in parts:
        if not part or len(part) % 2:
            with pytest.raises(RemoteWireError):
                wire.receive_audio(part)
            continue
        chunk += 1
        assert wire.receive_audio(part) == MediaReceived(chunk, samples * 1000 // 16000, part)
        samples += len(part) // 2
