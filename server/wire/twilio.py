"""Twilio Media Streams, version 1.0.0: a bidirectional stream opened by <Connect><Stream>.

    connected -> start -> (media | dtmf | mark)* -> stop          from Twilio
                          (media | mark | clear)*                  to Twilio

Guarantees: `receive` gives an event or raises RemoteWireError and then nothing has changed; what we send holds the
stream's own id and is refused (LocalWireError) outside of `start` ... `stop`. Loss and reordering of audio are not
judged here: `chunk` and `timestamp_ms` go to the uplink, which keeps the media timeline.
Source: Twilio, "Media Streams - WebSocket Messages".
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
    "audio/x-mulaw": ("PCMU", frozenset({8000})),
    "audio/x-alaw": ("PCMA", frozenset({8000})),
    # Not documented, but the `audioFormat` and `sampleRate` attributes of <Stream> exist: decode what we can.
    "audio/x-l16": ("L16", frozenset({8000, 16000})),
}
SUFFIX = b'"}}'


class TwilioWire:
    """One media stream of Twilio, see `server.wire.event.Wire`."""

    __slots__ = ("_format", "_order", "_sequence", "_stream_id", "_writer")

    carrier: ClassVar[str] = "twilio"
    sends_binary: ClassVar[bool] = False
    """Whether the bytes of `media` go out as a binary WebSocket message."""
    may_reorder: ClassVar[bool] = False
    """Whether media may come in another order than it was said in. Twilio speaks of nothing like it."""

    def __init__(self) -> None:
        self._order = json.StreamOrder()
        self._sequence = json.SequenceTracker()
        self._stream_id = ""
        self._format = MediaFormat("PCMU", 8000)
        self._writer = MediaWriter(b"", b"")

    @property
    def state(self) -> json.StreamState:
        return self._order.state

    @property
    def highest_sequence(self) -> int:
        """Highest sequenceNumber that reached this parser; 0 before `start`."""
        return self._sequence.highest

    def receive(self, message: bytes) -> MediaEvent:
        """Parse one text message. Raises RemoteWireError; the message has then had no effect."""
        raw = json.parse_object(message)
        event = json.text(raw, "event", json.MAX_MESSAGE_BYTES)
        parse = _PARSERS.get(event)
        if parse is None:
            return Ignored("unknown_event")
        self._order.check(event)
        result = parse(self, raw)
        self._order.advance(event)
        return result

    def media(self, payload: bytes) -> bytes:
        """A message that plays `payload`: codes of the stream's format, no header, any whole number of samples."""
        self._order.check_sending()
        if not payload or len(payload) % json.sample_bytes(self._format.codec):
            raise LocalWireError(f"media: expected whole samples of {self._format.codec}, got {len(payload)} bytes")
        return self._writer.message(payload)

    def mark(self, name: str) -> bytes:
        """A message that comes back when all audio before it has been played, or at once after `clear`."""
        self._order.check_sending()
        json.check_mark_name(name)
        return orjson.dumps({"event": "mark", "streamSid": self._stream_id, "mark": {"name": name}})

    def clear(self) -> bytes:
        """A message that drops all audio that has not been played; pending marks come back."""
        self._order.check_sending()
        return orjson.dumps({"event": "clear", "streamSid": self._stream_id})

    def _connected(self, raw: dict[str, Any]) -> MediaEvent:
        json.text(raw, "protocol")
        json.text(raw, "version")
        return StreamConnected()

    def _start(self, raw: dict[str, Any]) -> MediaEvent:
        number = json.counter(raw, "sequenceNumber")
        start = json.child(raw, "start")
        stream_id = json.text(start, "streamSid")
        if json.text(raw, "streamSid") != stream_id:
            raise json.bad("streamSid", "the same in the message and in start", raw["streamSid"])
        call_id = json.text(start, "callSid")
        media_format = json.media_format(json.child(start, "mediaFormat"), "sampleRate", CODECS)
        parameters = json.parameters(start.get("customParameters"))
        self._sequence.is_repeat(number)
        self._stream_id = stream_id
        self._format = media_format
        # Everything of a media message but the audio, once for the stream.
        prefix = orjson.dumps({"event": "media", "streamSid": stream_id})[:-1] + b',"media":{"payload":"'
        self._writer = MediaWriter(prefix, SUFFIX)
        return StreamStarted(stream_id, call_id, media_format, parameters)

    def _media(self, raw: dict[str, Any]) -> MediaEvent:
        number = self._number(raw)
        media = json.child(raw, "media")
        track = json.text(media, "track")
        chunk = json.counter(media, "chunk", 1)
        timestamp_ms = json.counter(media, "timestamp")
        audio = json.payload(media, self._format)
        self._sequence.is_repeat(number)
        if track != "inbound":
            return Ignored("other_track")
        return MediaReceived(chunk, timestamp_ms, audio)

    def _dtmf(self, raw: dict[str, Any]) -> MediaEvent:
        number = self._number(raw)
        digit = json.digit(json.child(raw, "dtmf"))
        if self._sequence.is_repeat(number):
            return Ignored("repeated_dtmf")
        return DtmfReceived(digit)

    def _mark(self, raw: dict[str, Any]) -> MediaEvent:
        number = self._number(raw)
        name = json.text(json.child(raw, "mark"), "name", json.MAX_MARK_CHARS)
        self._sequence.is_repeat(number)
        return MarkReached(name)

    def _stop(self, raw: dict[str, Any]) -> MediaEvent:
        number = self._number(raw)
        json.child(raw, "stop")
        self._sequence.is_repeat(number)
        return StreamStopped()

    def _number(self, raw: dict[str, Any]) -> int:
        if json.text(raw, "streamSid") != self._stream_id:
            raise json.bad("streamSid", self._stream_id, raw["streamSid"], json.FOREIGN_MESSAGE)
        return json.counter(raw, "sequenceNumber")


_PARSERS: Mapping[str, Callable[[TwilioWire, dict[str, Any]], MediaEvent]] = {
    "connected": TwilioWire._connected,
    "start": TwilioWire._start,
    "media": TwilioWire._media,
    "dtmf": TwilioWire._dtmf,
    "mark": TwilioWire._mark,
    "stop": TwilioWire._stop,
}
