"""Base64 and the media grammar, against the standard library and orjson."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_native.media import MediaGrammar, MediaWriter, b64decode, b64encode
from server.wire.grammar import grammar_for, telnyx_grammar, twilio_grammar

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def reference(text: bytes) -> bytes | None:
    if len(text) % 4:
        return None  # Python 3.11 takes b"////=" even when strict; RFC 4648 pads to four letters
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def ours(text: bytes) -> bytes | None:
    try:
        return b64decode(text)
    except ValueError:
        return None


@given(st.binary(max_size=700))
def test_base64_there_and_back(data: bytes) -> None:
    assert b64encode(data) == base64.b64encode(data)
    assert b64decode(base64.b64encode(data)) == data
    assert b64decode(memoryview(base64.b64encode(data))) == data


@pytest.mark.parametrize("length", [4, 8, 12, 216])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_every_bad_byte_in_every_place_is_refused(isa: str, length: int, padding: int) -> None:
    good = base64.b64encode(bytes(range(length * 3 // 4 - padding)))
    assert len(good) == length and ours(good) is not None
    for place in range(length):
        for byte in range(256):
            text = good[:place] + bytes([byte]) + good[place + 1 :]
            assert ours(text) == reference(text), (place, byte)


@given(st.binary(max_size=24) | st.text(alphabet="AZaz09+/=\n -", max_size=24).map(str.encode))
def test_base64_accepts_and_refuses_as_the_standard_library_does(text: bytes) -> None:
    assert ours(text) == reference(text)


@pytest.mark.parametrize("length", range(280))
def test_every_length(isa: str, length: int) -> None:
    text = b"A" * length
    assert ours(text) == reference(text)
    data = bytes(at * 37 % 256 for at in range(length))
    assert b64encode(data) == base64.b64encode(data)
    assert ours(b64encode(data)) == data


def test_writer_is_prefix_payload_suffix() -> None:
    writer = MediaWriter(b'{"payload":"', b'"}')
    for size in range(200):
        payload = bytes(range(256))[:size]
        assert writer.message(payload) == b'{"payload":"' + base64.b64encode(payload) + b'"}'


def twilio_message(sequence: int = 4, chunk: int = 3, timestamp: int = 60, payload: str = "fn5+") -> bytes:
    return orjson.dumps(
        {
            "event": "media",
            "sequenceNumber": str(sequence),
            "media": {"track": "inbound", "chunk": str(chunk), "timestamp": str(timestamp), "payload": payload},
            "streamSid": "MZ1",
        }
    )


def telnyx_message(sequence: int = 4, chunk: int = 3, timestamp: int = 60, payload: str = "fn5+") -> bytes:
    return orjson.dumps(
        {
            "event": "media",
            "sequence_number": str(sequence),
            "media": {"track": "inbound", "chunk": str(chunk), "timestamp": str(timestamp), "payload": payload},
            "stream_id": "u-1",
        }
    )


def test_carriers_own_messages_are_taken() -> None:
    assert twilio_grammar("MZ1").fields(twilio_message()) == (3, 60, b"fn5+")
    assert telnyx_grammar("u-1").fields(telnyx_message()) == (3, 60, b"fn5+")
    assert grammar_for("browser", "x") is None
    assert grammar_for("twilio", "é") is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        twilio_message()[:-1],
        twilio_message() + b" ",
        twilio_message().replace(b"inbound", b"outbound"),
        twilio_message().replace(b"MZ1", b"MZ2"),
        twilio_message().replace(b'"3"', b'"03"'),
        twilio_message().replace(b'"3"', b'"0"'),
        twilio_message().replace(b'"3"', b'""'),
        twilio_message().replace(b'"3"', b'"-3"'),
        twilio_message().replace(b'"3"', b'"' + b"9" * 19 + b'"'),
        twilio_message().replace(b":", b": ", 1),
        telnyx_message(),
    ],
)
def test_anything_else_is_left_to_the_parser(message: bytes) -> None:
    assert twilio_grammar("MZ1").fields(message) is None


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from([b"", b'"', b"\\", b"}", b" ", b"0", b"\xc3\xa9", b"\x00", b"A"])),
    max_size=4,
)


@given(st.integers(0, 10**19), st.integers(0, 10**19), st.binary(max_size=40), MUTATIONS)
def test_what_the_fast_path_takes_is_what_a_json_parser_reads(
    chunk: int, timestamp: int, audio: bytes, mutations: list[tuple[int, bytes]]
) -> None:
    message = twilio_message(7, chunk, timestamp, base64.b64encode(audio).decode())
    for place, text in mutations:
        message = message[:place] + text + message[place + 1 :]
    fields = twilio_grammar("MZ1").fields(message)
    if fields is None:
        return
    if ours(fields[2]) is None:
        return  # counted as bad, whatever else it may be
    assert message.isascii()
    parsed: dict[str, Any] = orjson.loads(message)
    assert set(parsed) == {"event", "sequenceNumber", "media", "streamSid"}
    assert set(parsed["media"]) == {"track", "chunk", "timestamp", "payload"}
    assert (parsed["event"], parsed["streamSid"], parsed["media"]["track"]) == ("media", "MZ1", "inbound")
    assert fields == (
        int(parsed["media"]["chunk"]),
        int(parsed["media"]["timestamp"]),
        parsed["media"]["payload"].encode(),
    )


@pytest.mark.parametrize("bad", [b"", "é".encode()])
def test_grammar_refuses_texts_that_cannot_be(bad: bytes) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        MediaGrammar(b"a", b"b", bad, b"d", b"e")
