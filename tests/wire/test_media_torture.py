"""The published torture set of media-stream messages: tests/data/media_torture.jsonl, one JSON object a line.

id, carrier, why   which message, in which dialect, and what is odd about it
before             messages that bring a fresh stream into the state in which it arrives; all are accepted
message            the text; or message_base64, where it is not UTF-8
repeat             replaces <REPEAT> in it by `text`, `times` over or until the message has `fill_to_bytes` bytes
event, close_code  the required verdict: the event it means, or the WebSocket code of the error (server/wire/json.py)
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from server.errors import RemoteWireError
from server.wire.event import MediaEvent, MediaReceived, StreamStarted, Wire
from server.wire.telnyx import TelnyxWire
from server.wire.twilio import TwilioWire

FILE = Path(__file__).parents[1] / "data" / "media_torture.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
WIRES = {"twilio": TwilioWire, "telnyx": TelnyxWire}


def message_of(row: dict[str, Any]) -> bytes:
    message = base64.b64decode(row["message_base64"]) if "message_base64" in row else row["message"].encode()
    if "repeat" in row:
        unit = row["repeat"]["text"].encode()
        room = row["repeat"].get("fill_to_bytes", 0) - len(message) + len(b"<REPEAT>")
        message = message.replace(b"<REPEAT>", unit * row["repeat"].get("times", room // len(unit)))
    return message


def shown(event: MediaEvent) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in type(event).__slots__}
    if isinstance(event, MediaReceived):
        values["payload_base64"] = base64.b64encode(values.pop("payload")).decode()
    if isinstance(event, StreamStarted):
        media_format = values.pop("media_format")
        values |= {"codec": media_format.codec, "rate_hz": media_format.rate_hz}
    return {"type": type(event).__name__, **values}


def wire_of(row: dict[str, Any]) -> Wire:
    wire: Wire = WIRES[row["carrier"]]()
    for message in row["before"]:
        wire.receive(message.encode())
    return wire


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_verdict(row: dict[str, Any]) -> None:
    wire = wire_of(row)
    if "event" in row:
        assert shown(wire.receive(message_of(row))) == row["event"], row["why"]
        return
    with pytest.raises(RemoteWireError) as caught:
        wire.receive(message_of(row))
    assert caught.value.close_code == row["close_code"], (row["why"], str(caught.value))
    assert len(str(caught.value)) < 400, "ends in a log line"


@pytest.mark.parametrize("carrier", WIRES)
def test_refused_messages_change_nothing(carrier: str) -> None:
    """All refused messages of a state one after the other, on one stream: what follows is understood as before."""
    by_state: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in ROWS:
        if row["carrier"] == carrier:
            by_state.setdefault(tuple(row["before"]), []).append(row)
    for rows in by_state.values():
        wire = wire_of(rows[0])
        for row in rows:
            if "close_code" in row:
                with pytest.raises(RemoteWireError):
                    wire.receive(message_of(row))
        good = next((row for row in rows if "event" in row and row["event"]["type"] != "Ignored"), None)
        if good is not None:
            assert shown(wire.receive(message_of(good))) == good["event"]


def test_set_is_large_and_balanced() -> None:
    assert len(ROWS) == len({row["id"] for row in ROWS}) >= 240
    for carrier in WIRES:
        verdicts = ["event" in row for row in ROWS if row["carrier"] == carrier]
        assert len(verdicts) >= 120
        assert 0.2 < sum(verdicts) / len(verdicts) < 0.6, "neither only good nor only bad messages"
