"""The browser's media stream: JSON texts for control, binary messages for audio, both ways.

Audio is S16 little-endian, mono, 16000 Hz, any length of whole samples up to 64 KiB; the page's AudioContext resamples.
The stream id is in the path of the socket; the secret came with it from POST /api/v1/browser-calls.

    from the page
        {"event":"start","secret":"...","sampleRate":16000}
        <binary audio>
        {"event":"mark","name":"..."}                       played up to here
        {"event":"dtmf","digit":"5"}
        {"event":"stop"}
    to the page
        <binary audio>
        {"event":"clear"}                                   drop what is not yet played
        {"event":"mark","name":"..."}                       send back when played
        {"event":"transcript","speaker":"caller","text":"...","final":true}
        {"event":"turn","latencyMs":612.5,"stages":{"stt":210.0}}

`start` is the first message and says hello as well: there is no `connected`. Its secret arrives as the parameter
"secret", where a carrier's custom parameter would be.
Guarantees: as `server.wire.twilio`. Binary messages go to `receive_audio`, which counts chunks and media time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import orjson

from server.errors import LocalWireError, RemoteWireError
from server.wire import json
from server.wire.event import (
    DtmfReceived,
    Ignored,
    MarkReached,
    MediaEvent,
    MediaFormat,
    MediaReceived,
    StreamStarted,
    StreamStopped,
)
from server.wire.json import StreamState

RATE_HZ = 16000
SAMPLE_BYTES = 2
CLEAR = b'{"event":"clear"}'

ORDER: Mapping[str, tuple[StreamState, StreamState]] = {
    "start": (StreamState.OPENED, StreamState.STREAMING),
    "media": (StreamState.STREAMING, StreamState.STREAMING),
    "dtmf": (StreamState.STREAMING, StreamState.STREAMING),
    "mark": (StreamState.STREAMING, StreamState.STREAMING),
    "stop": (StreamState.STREAMING, StreamState.STOPPED),
}


class BrowserWire:
    """One media stream of a browser, see `server.wire.event.Wire`.

    Args:
        stream_id: from the path; stands for the call as well, a page has no other id.
    """

    __slots__ = ("_chunk", "_order", "_position_samples", "_stream_id")

    carrier: ClassVar[str] = "browser"
    sends_binary: ClassVar[bool] = True
    """Whether the bytes of `media` go out as a binary WebSocket message."""
    may_reorder: ClassVar[bool] = False
    """Whether media may come in another order than it was said in. Numbered here, on arrival."""

    def __init__(self, stream_id: str) -> None:
        self._order = json.StreamOrder(ORDER)
        self._stream_id = stream_id
        self._chunk = 0
        self._position_samples = 0

    @property
    def state(self) -> StreamState:
        return self._order.state

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

    def receive_audio(self, message: bytes | memoryview) -> MediaReceived:
        """One binary message: S16 little-endian. Raises RemoteWireError; the message has then had no effect."""
        self._order.check("media")
        if len(message) > json.MAX_MESSAGE_BYTES:
            raise RemoteWireError(f"audio: expected at most {json.MAX_MESSAGE_BYTES} bytes", json.TOO_LONG)
        if not message or len(message) % SAMPLE_BYTES:
            raise json.bad("audio", "whole samples of S16", f"{len(message)} bytes")
        timestamp_ms = self._position_samples * 1000 // RATE_HZ
        self._chunk += 1
        self._position_samples += len(message) // SAMPLE_BYTES
        return MediaReceived(self._chunk, timestamp_ms, bytes(message))

    def media(self, payload: bytes) -> bytes:
        """`payload` itself, S16 little-endian: send it as a binary message."""
        self._order.check_sending()
        if not payload or len(payload) % SAMPLE_BYTES:
            raise LocalWireError(f"media: expected whole samples of S16, got {len(payload)} bytes")
        return payload

    def mark(self, name: str) -> bytes:
        """A text message that comes back when all audio before it has been played, or at once after `clear`."""
        self._order.check_sending()
        json.check_mark_name(name)
        return orjson.dumps({"event": "mark", "name": name})

    def clear(self) -> bytes:
        """A text message that drops all audio that has not been played; pending marks come back."""
        self._order.check_sending()
        return CLEAR

    def transcript(self, speaker: Literal["caller", "agent"], text: str, *, final: bool) -> bytes:
        """A text message that shows what was said; one that is not final is replaced by the next of its speaker."""
        self._order.check_sending()
        return orjson.dumps({"event": "transcript", "speaker": speaker, "text": text, "final": final})

    def turn(self, latency_ms: float, stages_ms: Mapping[str, float]) -> bytes:
        """A text message that shows the latency account of a turn."""
        self._order.check_sending()
        return orjson.dumps({"event": "turn", "latencyMs": latency_ms, "stages": dict(stages_ms)})

    def _start(self, raw: dict[str, Any]) -> MediaEvent:
        secret = json.text(raw, "secret")
        rate_hz = raw.get("sampleRate")
        if type(rate_hz) is not int or rate_hz != RATE_HZ:
            raise json.bad("sampleRate", str(RATE_HZ), rate_hz, json.BAD_FORMAT)
        return StreamStarted(self._stream_id, self._stream_id, MediaFormat("S16", rate_hz), {"secret": secret})

    def _media(self, raw: dict[str, Any]) -> MediaEvent:
        raise json.bad("media", "audio in binary messages", "a text message")

    def _dtmf(self, raw: dict[str, Any]) -> MediaEvent:
        return DtmfReceived(json.digit(raw))

    def _mark(self, raw: dict[str, Any]) -> MediaEvent:
        return MarkReached(json.text(raw, "name", json.MAX_MARK_CHARS))

    def _stop(self, raw: dict[str, Any]) -> MediaEvent:
        return StreamStopped()


_PARSERS: Mapping[str, Callable[[BrowserWire, dict[str, Any]], MediaEvent]] = {
    "start": BrowserWire._start,
    "media": BrowserWire._media,
    "dtmf": BrowserWire._dtmf,
    "mark": BrowserWire._mark,
    "stop": BrowserWire._stop,
}
