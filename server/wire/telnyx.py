"""Telnyx media streaming, version 1.0.0, in bidirectional RTP mode.

    connected -> start -> (media | dtmf | mark)* -> stop          from Telnyx; `error` at any time
                          (media | mark | clear)*                  to Telnyx

Differs from Twilio in names, and in three things that matter: the order of frames is not promised (the uplink puts
them right by `chunk`), the codec is what `start` says and not what we asked for, and our messages carry no stream id.
Where the documents disagree or are silent (numbers as texts or numbers, parameters as object or list) both are taken.

Guarantees: as `server.wire.twilio`.
Source: Telnyx, "Media streaming over WebSockets" and its AsyncAPI page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import orjson

from audio_native.media import MediaWriter
from server.errors import LocalWireError
from server.wire import json
from server.wire.event import (
    Codec,
    DtmfReceived,
    Ignored,
    MarkReached,
    MediaEvent,
    MediaFormat,
    MediaReceived,
    StreamConnected,
    StreamStarted,
    StreamStopped,
)

CODECS: Mapping[str, tuple[Codec, frozenset[int]]] = {
    "PCMU": ("PCMU", frozenset({8000})),
    "PCMA": ("PCMA", frozenset({8000})),
    "L16": ("L16", frozenset({8000, 16000})),
}
TOKEN_KEY = "x-telnyx-streaming-auth-token"
MAX_TOKEN_CHARS = 4000
MIN_PAYLOAD_MS = 20
MAX_PAYLOAD_MS = 30_000
"""Both are Telnyx's limits of one message in rtp mode."""
WRITER = MediaWriter(b'{"event":"media","media":{"payload":"', b'"}}')
CLEAR = b'{"event":"clear"}'
ERRORS: Mapping[int, str] = {
    100002: "error_unknown",
    100003: "error_malformed_frame",
    100004: "error_invalid_media",
    100005: "error_rate_limit_reached",
}


class TelnyxWire:
    """One media stream of Telnyx, see `server.wire.event.Wire`."""

    __slots__ = ("_format", "_order", "_sequence", "_stream_id")

    carrier: ClassVar[str] = "telnyx"
    sends_binary: ClassVar[bool] = False
    """Whether the bytes of `media` go out as a binary WebSocket message."""
    may_reorder: ClassVar[bool] = True
    """Whether media may come in another order than it was said in. Telnyx says so."""

    def __init__(self) -> None:
        self._order = json.StreamOrder()
        self._sequence = json.SequenceTracker()
        self._stream_id = ""
        self._format = MediaFormat("PCMU", 8000)

    @property
    def state(self) -> json.StreamState:
        return self._order.state

    @property
    def highest_sequence(self) -> int:
        """Highest sequence_number that reached this parser; 0 when there was none."""
        return self._sequence.highest

    def receive(self, message: bytes) -> MediaEvent:
        """Parse one text message. Raises RemoteWireError; the message has then had no effect."""
        raw = json.parse_object(message)
        event = json.text(raw, "event", json.MAX_MESSAGE_BYTES)
        if event == "error":
            return self._error(raw)
        parse = _PARSERS.get(event)
        if parse is None:
            return Ignored("unknown_event")
        if event == "media" and self._order.state is json.StreamState.STOPPED:
            # Order is not promised: a frame may be overtaken by the end of its stream.
            return Ignored("media_after_stop")
        self._order.check(event)
        result = parse(self, raw)
        self._order.advance(event)
        return result

    def media(self, payload: bytes) -> bytes:
        """A message that plays `payload`: codes of the stream's format without RTP header, 20 ms to 30 s."""
        self._order.check_sending()
        size = json.sample_bytes(self._format.codec)
        bytes_per_ms = self._format.rate_hz * size // 1000
        if len(payload) % size or not MIN_PAYLOAD_MS * bytes_per_ms <= len(payload) <= MAX_PAYLOAD_MS * bytes_per_ms:
            raise LocalWireError(f"media: expected 20 ms to 30 s of {self._format.codec}, got {len(payload)} bytes")
        return WRITER.message(payload)

    def mark(self, name: str) -> bytes:
        """A message that comes back when all audio before it has been played, or at once after `clear`."""
        self._order.check_sending()
        json.check_mark_name(name)
        return orjson.dumps({"event": "mark", "mark": {"name": name}})

    def clear(self) -> bytes:
        """A message that drops all audio that has not been played; pending marks come back."""
        self._order.check_sending()
        return CLEAR

    def _connected(self, raw: dict[str, Any]) -> MediaEvent:
        json.text(raw, "version")
        if raw.get("connected") is None:
            return StreamConnected()
        inner = json.child(raw, "connected")
        return StreamConnected(json.text(inner, TOKEN_KEY, MAX_TOKEN_CHARS) if TOKEN_KEY in inner else "")

    def _start(self, raw: dict[str, Any]) -> MediaEvent:
        start = json.child(raw, "start")
        stream_id = json.text(raw, "stream_id")
        call_id = json.text(start, "call_control_id")
        media_format = json.media_format(json.child(start, "media_format"), "sample_rate", CODECS)
        parameters = json.parameters(start.get("custom_parameters"), list_too=True)
        self._take_number(raw)
        self._stream_id = stream_id
        self._format = media_format
        return StreamStarted(stream_id, call_id, media_format, parameters)

    def _media(self, raw: dict[str, Any]) -> MediaEvent:
        self._check_stream(raw)
        media = json.child(raw, "media")
        track = json.text(media, "track")
        chunk = json.counter(media, "chunk", number_too=True)
        timestamp_ms = json.counter(media, "timestamp", number_too=True)
        audio = json.payload(media, self._format)
        self._take_number(raw)
        if track != "inbound":
            return Ignored("other_track")
        return MediaReceived(chunk, timestamp_ms, audio)

    def _dtmf(self, raw: dict[str, Any]) -> MediaEvent:
        self._check_stream(raw)
        digit = json.digit(json.child(raw, "dtmf"))
        if self._take_number(raw):
            return Ignored("repeated_dtmf")
        return DtmfReceived(digit)

    def _mark(self, raw: dict[str, Any]) -> MediaEvent:
        self._check_stream(raw)
        name = json.text(json.child(raw, "mark"), "name", json.MAX_MARK_CHARS)
        self._take_number(raw)
        return MarkReached(name)

    def _stop(self, raw: dict[str, Any]) -> MediaEvent:
        self._check_stream(raw)
        json.child(raw, "stop")
        self._take_number(raw)
        return StreamStopped()

    def _error(self, raw: dict[str, Any]) -> MediaEvent:
        """Telnyx's complaint about a message of ours; the reason is one of a bounded set, it labels a counter."""
        body = json.child(raw, "payload")
        code = json.counter(body, "code", number_too=True)
        return Ignored(ERRORS.get(code, "error_other"))

    def _check_stream(self, raw: dict[str, Any]) -> None:
        if json.text(raw, "stream_id") != self._stream_id:
            raise json.bad("stream_id", self._stream_id, raw["stream_id"], json.FOREIGN_MESSAGE)

    def _take_number(self, raw: dict[str, Any]) -> bool:
        """True when the message is a repeat. A message without a number never is."""
        if "sequence_number" not in raw:
            return False
        return self._sequence.is_repeat(json.counter(raw, "sequence_number", number_too=True))


_PARSERS: Mapping[str, Callable[[TelnyxWire, dict[str, Any]], MediaEvent]] = {
    "connected": TelnyxWire._connected,
    "start": TelnyxWire._start,
    "media": TelnyxWire._media,
    "dtmf": TelnyxWire._dtmf,
    "mark": TelnyxWire._mark,
    "stop": TelnyxWire._stop,
}
