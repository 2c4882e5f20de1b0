"""One Twilio media stream, the carrier's side (protocols: Twilio, sections 4 and 5).

Speaks exactly what Twilio speaks: text JSON, counters as strings, `connected` then `start`, a frame of 20 ms for each
tick, marks when the playout passes them, `stop` before the close. What the server sends is checked: binary and
undecodable messages are 31950, wrong ones 31951; each is reported once for a stream and always dropped.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from bench.sim.arrival import Arrivals, Way
from bench.sim.fault import FaultPlan, FaultyPath
from bench.sim.party import Party
from bench.sim.playout import CHUNK_MS, LEAD_MS, Playout
from bench.sim.sound import FRAME_MS, SAMPLES_PER_MS, SILENCE
from bench.sim.twiml import Stream

INVALID_MESSAGE = 31951
UNDECODABLE = 31950
MAX_RECORD_FRAMES = 50 * 60 * 30
"""Half an hour of recording for each side; a longer call keeps its beginning."""

Clock = Callable[[], int]


@dataclass(slots=True)
class StreamFacts:
    """What a stream was; `close_code` is None when TCP broke without a close frame."""

    stream_sid: str
    call_sid: str
    opened_ns: int = 0
    frames_in: int = 0
    frames_out: int = 0
    marks: list[str] = field(default_factory=list)
    clears: int = 0
    bad_messages: int = 0
    close_code: int | None = None
    closed_by_server: bool = False


class MediaStream(WSListener):
    """A stream that is being carried. `on_warning(code, text)` is the debugger; `record` keeps both sides' sound."""

    def __init__(
        self,
        *,
        stream: Stream,
        stream_sid: str,
        call_sid: str,
        account_sid: str,
        party: Party,
        on_warning: Callable[[int, str], None],
        faults: FaultPlan | None = None,
        arrivals: Arrivals | None = None,
        record: bool = False,
        lead_ms: int = LEAD_MS,
        chunk_ms: int = CHUNK_MS,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.facts = StreamFacts(stream_sid, call_sid)
        self.party = party
        self.playout = Playout(lead_ms, chunk_ms)
        self.path = FaultyPath(faults) if faults else None
        self.way = Way(arrivals, self._deliver) if arrivals else None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hung_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.said: list[bytes] | None = [] if record else None
        self.heard: list[bytes] | None = [] if record else None
        self._stream = stream
        self._account_sid = account_sid
        self._warn = on_warning
        self._warned: set[int] = set()
        self._clock = clock
        self._transport: WSTransport | None = None
        self._stopping = False
        self._sequence = 0
        self._chunk = 0
        self._partial = b""

    # ── the socket ───────────────────────────────────────────────────────────────────────────────────────────

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        for message in self._opening():
            self._send(message)
        self.facts.opened_ns = self._clock()
        self.party.on_start(self, self.facts.opened_ns)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.facts.close_code = int(frame.get_close_code())  # type: ignore[call-overload]
            self.facts.closed_by_server = not self._stopping
            if not self._stopping:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        if frame.msg_type == WSMsgType.BINARY:
            self._bad(UNDECODABLE, "binary message")
            return
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            return
        payload = frame.get_payload_as_bytes()
        if not frame.fin:
            self._partial += payload
            return
        if self._partial:
            payload, self._partial = self._partial + payload, b""
        self._receive(payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)
            self.party.on_end(self._clock())

    # ── the tick ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._stopping

    def step(self, now_ns: int) -> None:
        """Twenty milliseconds pass: the caller hears, speaks, and marks come back."""
        transport = self._transport
        if transport is None or self._stopping:
            return
        heard = self.playout.read()
        payload = self.party.step(heard, now_ns)
        if payload is None:
            if not self.hung_up.done():
                self.hung_up.set_result(None)
            return
        if self.said is not None and self.heard is not None and len(self.said) < MAX_RECORD_FRAMES:
            self.said.append(base64.b64decode(payload))
            self.heard.append(heard or SILENCE)
        self._chunk += 1
        self._sequence += 1
        message = self._media_message(payload)
        if self.path is None:
            self.facts.frames_out += 1
            self._put(message, now_ns)
        else:
            self._send_faulty(message, now_ns)
        self._return_marks(self.playout.marks_passed(self._position(now_ns)))

    def send_dtmf(self, digit: str) -> None:
        self._send(self._dtmf_message(digit))

    def end_utterance(self) -> None:
        self.playout.end_utterance()

    def stop(self) -> None:
        """The call leaves this stream: `stop`, then the close."""
        transport = self._transport
        if transport is None or self._stopping:
            return
        self._send(self._stop_message())
        if self.way is not None:
            self.way.deliver_all()
        self._stopping = True
        transport.send_close(WSCloseCode.OK)

    def abort(self) -> None:
        """Drop the TCP connection without a word."""
        if self._transport is not None:
            self._transport.underlying_transport.abort()

    # ── Twilio's words ───────────────────────────────────────────────────────────────────────────────────────────

    def _opening(self) -> list[dict[str, Any]]:
        return [
            {"event": "connected", "protocol": "Call", "version": "1.0.0"},
            {
                "event": "start",
                "sequenceNumber": self._next(),
                "start": {
                    "accountSid": self._account_sid,
                    "streamSid": self.facts.stream_sid,
                    "callSid": self.facts.call_sid,
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": self._stream.parameters,
                },
                "streamSid": self.facts.stream_sid,
            },
        ]

    def _media_message(self, payload: str) -> bytes:
        """The frame `_chunk`; `payload` is base64 of 160 mu-law codes."""
        return (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound","chunk":"{self._chunk}",'
            f'"timestamp":"{self._chunk * FRAME_MS}","payload":"{payload}"}},"streamSid":"{self.facts.stream_sid}"}}'
        ).encode()

    def _dtmf_message(self, digit: str) -> dict[str, Any]:
        return {
            "event": "dtmf",
            "streamSid": self.facts.stream_sid,
            "sequenceNumber": self._next(),
            "dtmf": {"track": "inbound_track", "digit": digit},
        }

    def _mark_message(self, name: str) -> dict[str, Any]:
        return {
            "event": "mark",
            "sequenceNumber": self._next(),
            "streamSid": self.facts.stream_sid,
            "mark": {"name": name},
        }

    def _stop_message(self) -> dict[str, Any]:
        return {
            "event": "stop",
            "sequenceNumber": self._next(),
            "stop": {"accountSid": self._account_sid, "callSid": self.facts.call_sid},
            "streamSid": self.facts.stream_sid,
        }

    def _to_pcmu(self, payload: bytes) -> tuple[bytes, str]:
        """What the server sent as mu-law codes, and what is wrong with it; the line's own codec is mu-law."""
        return payload, ""

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────

    def _send_faulty(self, message: bytes, now_ns: int) -> None:
        assert self.path is not None
        if self.path.wants_abort(self._chunk):
            self.abort()
            return
        for one in self.path.pass_on(self._chunk, message):
            self.facts.frames_out += 1
            self._put(one, now_ns)

    def _receive(self, payload: bytes) -> None:
        now_ns = self._clock()
        try:
            message = json.loads(payload)
        except ValueError:
            self._bad(UNDECODABLE, "not JSON")
            return
        fault = self._check(message)
        if fault:
            self._bad(INVALID_MESSAGE, fault)
            return
        if message["event"] == "media":
            self._on_media(message["media"]["payload"], now_ns)
        elif message["event"] == "mark":
            name = message["mark"]["name"]
            self.facts.marks.append(name)
            self._return_marks(self.playout.mark(name, self._position(now_ns)))
        else:
            self.facts.clears += 1
            names = self.playout.clear(self._position(now_ns))
            self.party.on_clear(now_ns)
            self._return_marks(names)

    def _on_media(self, encoded: str, now_ns: int) -> None:
        try:
            pcmu = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self._bad(INVALID_MESSAGE, "media.payload is not base64")
            return
        pcmu, fault = self._to_pcmu(pcmu)
        if fault:
            self._bad(INVALID_MESSAGE, fault)
            return
        self.facts.frames_in += (len(pcmu) + 159) // 160
        self.playout.media(pcmu, self._position(now_ns))
        self.party.on_media(pcmu, now_ns)

    def _check(self, message: Any) -> str:
        """What is wrong with a message of the server; empty when nothing is."""
        if not isinstance(message, dict):
            return "not an object"
        event = message.get("event")
        if event not in ("media", "mark", "clear"):
            return f"unknown event {event!r}"
        if message.get("streamSid") != self.facts.stream_sid:
            return f"wrong streamSid {message.get('streamSid')!r}"
        wanted = {"media": ("media", "payload"), "mark": ("mark", "name"), "clear": None}[event]
        extra = set(message) - {"event", "streamSid", wanted[0] if wanted else "event"}
        if extra:
            return f"unknown fields {sorted(extra)}"
        if wanted is None:
            return ""
        inner = message.get(wanted[0])
        if not isinstance(inner, dict) or set(inner) != {wanted[1]} or not isinstance(inner[wanted[1]], str):
            return f"{wanted[0]}: expected an object with the text {wanted[1]!r}"
        return ""

    def _return_marks(self, names: list[str]) -> None:
        for name in names:
            if self.path is not None and self.path.loses_mark():
                continue
            self._send(self._mark_message(name))

    def _bad(self, code: int, text: str) -> None:
        self.facts.bad_messages += 1
        if code not in self._warned:
            self._warned.add(code)
            self._warn(code, text)

    def _position(self, now_ns: int) -> float:
        return (now_ns - self.facts.opened_ns) * SAMPLES_PER_MS / 1_000_000

    def _next(self) -> str:
        self._sequence += 1
        return str(self._sequence)

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None and not self._stopping:
            self._put(json.dumps(message, separators=(",", ":")).encode(), self._clock())

    def _put(self, message: bytes, now_ns: int) -> None:
        if self.way is None:
            self._deliver(message)
        else:
            self.way.send(message, now_ns)

    def _deliver(self, message: bytes) -> None:
        if self._transport is not None and not self._stopping:
            self._transport.send(WSMsgType.TEXT, message)
