"""The media events that every carrier's messages turn into, and the protocol both directions share.

A media message normally never reaches this module: `audio_native.uplink.Uplink.feed` takes it whole. What the
fast path does not recognise comes here, through the complete parser, and goes back as `MediaReceived`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Codec = Literal["PCMU", "PCMA", "L16", "S16"]
"""Form of a payload: G.711, L16 network order (RFC 3551), or the browser's S16 little-endian."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    codec: Codec
    rate_hz: int


@dataclass(frozen=True, slots=True)
class StreamConnected:
    """The socket speaks the protocol; nothing is known of the call yet. `token`: Telnyx's stream_auth_token."""

    token: str = ""


@dataclass(frozen=True, slots=True)
class StreamStarted:
    stream_id: str
    call_id: str
    media_format: MediaFormat
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MediaReceived:
    """`payload` is decoded from base64. `chunk` counts from 1 for each track; `timestamp_ms` is media time."""

    chunk: int
    timestamp_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DtmfReceived:
    digit: str


@dataclass(frozen=True, slots=True)
class MarkReached:
    name: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    pass


@dataclass(frozen=True, slots=True)
class Ignored:
    """Known and without meaning for us (another track, Telnyx's error reports): `reason` is a counter label."""

    reason: str


MediaEvent = StreamConnected | StreamStarted | MediaReceived | DtmfReceived | MarkReached | StreamStopped | Ignored


class Wire(Protocol):
    """One media stream in one carrier's language. Nothing awaits; the order of messages is checked."""

    @property
    def carrier(self) -> str:
        """twilio, telnyx or browser."""

    @property
    def may_reorder(self) -> bool:
        """Whether the carrier says that media may come in another order than it was said in."""

    def receive(self, message: bytes) -> MediaEvent:
        """Parse one text message. Raises RemoteWireError; the message has then had no effect."""

    def media(self, payload: bytes) -> bytes:
        """A message that plays `payload` (coded audio, whole frames). Raises LocalWireError before `start`."""

    def mark(self, name: str) -> bytes:
        """A message that comes back when all audio before it has been played."""

    def clear(self) -> bytes:
        """A message that drops all audio that has not been played; pending marks come back."""
