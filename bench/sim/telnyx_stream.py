"""One Telnyx media stream in bidirectional RTP mode, the carrier's side (protocols: Telnyx, sections 4 and 5).

As Twilio's stream in most things: the same playout clock, marks and clear. Its own are the names, the numbers as texts,
the codec that `start` announces (the call's, not the one that was asked for), frames that may overtake each other
(`FaultPlan.swap_rate`), our messages without a stream id, and `error` messages that answer a bad one.

Only the media socket; events and commands of Call Control are in telnyx.py.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, Literal

from bench.sim.arrival import Arrivals
from bench.sim.fault import FaultPlan
from bench.sim.party import Party
from bench.sim.playout import CHUNK_MS, LEAD_MS
from bench.sim.sound import FRAME_MS, audioop
from bench.sim.twilio_stream import UNDECODABLE, Clock, MediaStream
from bench.sim.twiml import Stream

Encoding = Literal["PCMU", "PCMA", "L16"]
TOKEN_HEADER = "x-telnyx-streaming-auth-token"
MALFORMED_FRAME, INVALID_MEDIA = 100003, 100004
TITLES = {MALFORMED_FRAME: "malformed_frame", INVALID_MEDIA: "invalid_media"}
MIN_PAYLOAD_MS, MAX_PAYLOAD_MS = 20, 30_000
L16_RATE_HZ = 16_000
_BYTES_PER_MS: dict[Encoding, int] = {"PCMU": 8, "PCMA": 8, "L16": 2 * L16_RATE_HZ // 1000}


class TelnyxStream(MediaStream):
    """A stream that is being carried.

    Args:
        encoding: what `start` announces; L16 is at 16 kHz in network order (RFC 3551).
        announced: what `start` says instead of `encoding`; for a codec that is not simulated.
        token: of `streaming_start`, repeated in `connected`; empty for none.
        parameters: `custom_parameters`, an object.
    """

    def __init__(
        self,
        *,
        stream_id: str,
        call_control_id: str,
        party: Party,
        on_warning: Callable[[int, str], None],
        encoding: Encoding = "PCMU",
        announced: str = "",
        token: str = "",
        parameters: dict[str, str] | None = None,
        from_: str = "+15552000001",
        to: str = "+15550100",
        faults: FaultPlan | None = None,
        arrivals: Arrivals | None = None,
        record: bool = False,
        lead_ms: int = LEAD_MS,
        chunk_ms: int = CHUNK_MS,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        super().__init__(
            stream=Stream("", parameters or {}),
            stream_sid=stream_id,
            call_sid=call_control_id,
            account_sid="8f0c0000-0000-4000-8000-000000000000",
            party=party,
            on_warning=on_warning,
            faults=faults,
            arrivals=arrivals,
            record=record,
            lead_ms=lead_ms,
            chunk_ms=chunk_ms,
            clock=clock,
        )
        self._encoding = encoding
        self._announced = announced or encoding
        self._token = token
        self._numbers = (from_, to)
        self._up: Any = None
        self._down: Any = None
        self.errors_sent: list[int] = []

    # ── Telnyx's words ───────────────────────────────────────────────────────────────────────────────────────────

    def _opening(self) -> list[dict[str, Any]]:
        connected: dict[str, Any] = {"event": "connected", "version": "1.0.0"}
        if self._token:
            connected["connected"] = {TOKEN_HEADER: self._token}
        rate_hz = L16_RATE_HZ if self._encoding == "L16" else 8000
        start = {
            "user_id": self._account_sid,
            "call_control_id": self.facts.call_sid,
            "call_session_id": "5f1b0000-0000-4000-8000-000000000000",
            "from": self._numbers[0],
            "to": self._numbers[1],
            "tags": [],
            "client_state": "",
            "custom_parameters": self._stream.parameters,
            "media_format": {"encoding": self._announced, "sample_rate": rate_hz, "channels": 1},
        }
        return [
            connected,
            {
                "event": "start",
                "sequence_number": self._next(),
                "start": start,
                "stream_id": self.facts.stream_sid,
            },
        ]

    def _media_message(self, payload: str) -> bytes:
        if self._encoding != "PCMU":
            payload = base64.b64encode(self._coded(base64.b64decode(payload))).decode()
        return (
            f'{{"event":"media","sequence_number":"{self._sequence}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{self._chunk * FRAME_MS}","payload":"{payload}"}},'
            f'"stream_id":"{self.facts.stream_sid}"}}'
        ).encode()

    def _dtmf_message(self, digit: str) -> dict[str, Any]:
        return {
            "event": "dtmf",
            "stream_id": self.facts.stream_sid,
            "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            "sequence_number": self._next(),
            "dtmf": {"digit": digit},
        }

    def _mark_message(self, name: str) -> dict[str, Any]:
        return {
            "event": "mark",
            "stream_id": self.facts.stream_sid,
            "sequence_number": self._next(),
            "mark": {"name": name},
        }

    def _stop_message(self) -> dict[str, Any]:
        return {
            "event": "stop",
            "sequence_number": self._next(),
            "stop": {"user_id": self._account_sid, "call_control_id": self.facts.call_sid},
            "stream_id": self.facts.stream_sid,
        }

    def _check(self, message: Any) -> str:
        if not isinstance(message, dict):
            return "not an object"
        event = message.get("event")
        if event == "clear":
            return "" if set(message) == {"event"} else f"unknown fields {sorted(set(message) - {'event'})}"
        name = {"media": "payload", "mark": "name"}.get(event) if isinstance(event, str) else None
        if name is None:
            return f"unknown event {event!r}"
        inner = message.get(event)
        if set(message) != {"event", event} or not isinstance(inner, dict):
            return f"{event}: expected the fields event and {event}"
        if set(inner) != {name} or not isinstance(inner[name], str):
            return f"{event}: expected an object with the text {name!r}"
        return ""

    def _bad(self, code: int, text: str) -> None:
        super()._bad(code, text)
        ours = MALFORMED_FRAME if code == UNDECODABLE else INVALID_MEDIA if "media" in text else MALFORMED_FRAME
        self.errors_sent.append(ours)
        payload = {"code": ours, "title": TITLES[ours], "detail": text}
        self._send({"event": "error", "payload": payload, "stream_id": self.facts.stream_sid})

    # ── codecs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _coded(self, pcmu: bytes) -> bytes:
        """A frame of the caller in the call's codec."""
        s16 = audioop.ulaw2lin(pcmu, 2)
        if self._encoding == "PCMA":
            return bytes(audioop.lin2alaw(s16, 2))
        s16, self._up = audioop.ratecv(s16, 2, 1, 8000, L16_RATE_HZ, self._up)
        return bytes(audioop.byteswap(s16, 2))

    def _to_pcmu(self, payload: bytes) -> tuple[bytes, str]:
        per_ms, width = _BYTES_PER_MS[self._encoding], 2 if self._encoding == "L16" else 1
        if not MIN_PAYLOAD_MS * per_ms <= len(payload) <= MAX_PAYLOAD_MS * per_ms or len(payload) % width:
            return b"", f"media: expected 20 ms to 30 s of {self._encoding}, got {len(payload)} bytes"
        if self._encoding == "PCMU":
            return payload, ""
        if self._encoding == "PCMA":
            return bytes(audioop.lin2ulaw(audioop.alaw2lin(payload, 2), 2)), ""
        s16 = audioop.byteswap(payload, 2)
        s16, self._down = audioop.ratecv(s16, 2, 1, L16_RATE_HZ, 8000, self._down)
        return bytes(audioop.lin2ulaw(s16, 2)), ""
