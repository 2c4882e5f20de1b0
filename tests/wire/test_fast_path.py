"""What the native fast path takes, the complete parser understands alike; the rest is the complete parser's."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_native.media import MediaGrammar, b64decode
from server.wire.event import MediaReceived
from server.wire.grammar import grammar_for
from tests.wire.test_media_torture import ROWS, message_of, wire_of
from tests.wire.test_wire_fuzz import opened

MEDIA = {row["carrier"]: row for row in ROWS if row["why"] == "media as documented"}
IDS = {"twilio": "MZ0f00000000000000000000000000beef", "telnyx": "32de0dea-53cb-4b21-89a4-9e1819c043bc"}


def grammar(carrier: str) -> MediaGrammar:
    found = grammar_for(carrier, IDS[carrier])
    assert found is not None
    return found


def check_agreement(carrier: str, message: bytes) -> bool:
    """Whether the fast path understands `message`; if so, the complete parser of a fresh stream says the same.

    A payload that is not base64 is no understanding: what stands there may be escaped, or be more than the payload.
    """
    fields = grammar(carrier).fields(message)
    if fields is None:
        return False
    chunk, timestamp_ms, text = fields
    try:
        audio = b64decode(text)
    except ValueError:
        return False
    if not audio:
        return False
    assert opened(carrier, 2).receive(message) == MediaReceived(chunk, timestamp_ms, audio)
    return True


@pytest.mark.parametrize("carrier", MEDIA)
def test_documented_message_takes_the_fast_path(carrier: str) -> None:
    assert check_agreement(carrier, message_of(MEDIA[carrier]))


@pytest.mark.parametrize("carrier", MEDIA)
def test_torture_set(carrier: str) -> None:
    """Nothing that must be refused or means something else slips through the fast path."""
    taken = 0
    for row in ROWS:
        if row["carrier"] != carrier or row["before"] != MEDIA[carrier]["before"]:
            continue
        if check_agreement(carrier, message_of(row)):
            taken += 1
            assert isinstance(wire_of(row).receive(message_of(row)), MediaReceived), row["why"]
    assert taken >= 8


@pytest.mark.slow
@pytest.mark.parametrize("carrier", MEDIA)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_messages(carrier: str, data: st.DataObject) -> None:
    audio = data.draw(st.binary(max_size=24))
    message = bytearray(message_of(MEDIA[carrier]))
    start = message.index(b'"payload":"') + len(b'"payload":"')
    message[start : message.index(b'"', start)] = base64.b64encode(audio)
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(message)))
        end = min(len(message), at + data.draw(st.integers(0, 4)))
        message[at:end] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"0", b"9", b"=", b"/", b'"', b"00", b" "])
        )
    check_agreement(carrier, bytes(message))
