"""Telnyx, simulated: signed events of Call Control, its commands, media streams (protocols: Telnyx, section 8).

Events are signed by a key of the exchange's own (Ed25519, by `cryptography`), may come twice and late, and come again
until somebody answers 2xx. A stream that ends does not end its call. `Exchange.call` is one phone call:

    call.initiated ──→ REST: answer ──→ call.answered, streaming.started, stream ⇄ server ──→ streaming.stopped
                       REST: reject          ↑ REST: streaming_start, hangup                          call.hangup
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from picows import WSError

from bench.sim.exchange import PhoneCall, Switchboard
from bench.sim.fault import FaultPlan
from bench.sim.party import Party
from bench.sim.telnyx_rest import CALL_ENDED, Refusal, RestServer
from bench.sim.telnyx_stream import Encoding, TelnyxStream

RING_S = 10.0
"""So long a call rings without a command before its caller gives up."""
DEAD_AIR_S = 10.0
"""So long a caller stays on a line that has lost its stream."""
DELIVERIES = 3
AGAIN_S = 0.2
STREAM_FAILED = 1
"""Stands in the debugger for a stream that could not be opened; Telnyx has words for it, and no number."""

_COMMON = {"client_state", "command_id"}
_STREAM = _COMMON | {
    "stream_url", "stream_track", "stream_codec", "stream_bidirectional_mode", "stream_bidirectional_codec",
    "stream_bidirectional_target_legs", "send_silence_when_idle", "webhook_url", "webhook_url_method",
}  # fmt: skip
FIELDS: Mapping[str, Collection[str]] = {
    "answer": _STREAM,
    "streaming_start": _STREAM
    | {"stream_bidirectional_sampling_rate", "stream_auth_token", "custom_parameters", "enable_dialogflow"},
    "reject": _COMMON | {"cause"},
    "hangup": _COMMON | {"custom_headers", "reason"},
}
CODECS = ("PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16")
CAUSES = ("CALL_REJECTED", "NOT_FOUND", "TEMPORARILY_UNAVAILABLE", "USER_BUSY")


@dataclass(frozen=True, slots=True)
class Command:
    action: str
    asked: dict[str, str]


@dataclass(slots=True)
class Call(PhoneCall):
    """`sid` is the call_control_id; `taken` holds the commands, without repeats, `hangup_cause` is the event's."""

    taken: list[Command] = field(default_factory=list)
    waiting: asyncio.Queue[Command] = field(default_factory=lambda: asyncio.Queue(8))
    command_ids: set[str] = field(default_factory=set)
    hangup_cause: str = ""


class Exchange(Switchboard[Call]):
    """A Telnyx account with a number that points at our server.

    Args:
        encoding: of every stream, whatever was asked for.
        announced: what `start` says instead, for a codec that is not simulated.
        doubled: kinds of events that are delivered twice at the same time.
        late_s: kinds of events that set out so many seconds late.
        ring_s: so long callers wait for an answer.
        options: as Switchboard.
    """

    def __init__(
        self,
        *,
        public_url: str,
        local_url: str,
        events_path: str = "/telnyx/events",
        encoding: Encoding = "PCMU",
        announced: str = "",
        doubled: Collection[str] = (),
        late_s: Mapping[str, float] | None = None,
        ring_s: float = RING_S,
        **options: Any,
    ) -> None:
        self.api_key = "KEY" + secrets.token_hex(16)
        self.rest = RestServer(self.api_key, self)
        super().__init__(public_url=public_url, local_url=local_url, rest=self.rest, **options)
        self.encoding: Encoding = encoding
        self.announced = announced
        self.doubled = doubled
        self.late_s = late_s or {}
        self.ring_s = ring_s
        self._key = Ed25519PrivateKey.generate()
        # Of calls that are no longer kept, too: Telnyx knows that they are over.
        self._ids: set[str] = set()
        self._events_url = self.public_url + events_path

    @property
    def server_env(self) -> Mapping[str, str]:
        public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        return {"TELNYX_API_KEY": self.api_key, "TELNYX_PUBLIC_KEY": public, "TELNYX_API_URL": self.rest_url}

    async def call(
        self, party: Party, *, from_: str, to: str, faults: FaultPlan | None = None, record: bool = False
    ) -> Call:
        call = Call("v3:" + secrets.token_urlsafe(32), from_, to, status="ringing", started_ns=time.monotonic_ns())
        self.calls[call.sid] = call
        self._ids.add(call.sid)
        self.tell(call, "call.initiated", direction="incoming", state="parked", caller_id_name="")
        command = await self._next(call, self.ring_s)
        if command is None:
            call.ended_by, call.hangup_cause = "caller", "originator_cancel"
        while command is not None:
            if command.action == "reject":
                call.status, call.ended_by, call.hangup_cause = "busy", "rejected", "call_rejected"
                break
            if command.action == "hangup":
                call.ended_by, call.hangup_cause = "rest", "normal_clearing"
                break
            command = await self._carry(call, command.asked["stream_url"], party, faults, record)
        call.ended_ns = time.monotonic_ns()
        if not call.is_over:
            call.status = "completed" if call.answered_ns else "no-answer"
        source = "callee" if call.ended_by in ("rest", "rejected") else "caller"
        self.tell(call, "call.hangup", hangup_cause=call.hangup_cause, hangup_source=source, state="hangup")
        return call

    def end_call(self, sid: str) -> None:
        self.command(sid, "hangup", {})

    # ── REST ─────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self, call_control_id: str, action: str, asked: dict[str, str]) -> None:
        call = self.calls.get(call_control_id)
        if call is None and call_control_id not in self._ids:
            raise Refusal(404, "there is no such call")
        if call is None or call.is_over or call.ended_by:
            raise Refusal(422, "This call is no longer active and can't receive commands.", CALL_ENDED)
        command_id = asked.get("command_id", "")
        if command_id and command_id in call.command_ids:
            return
        fault = self._fault(call, action, asked)
        if fault:
            self._warn(call, 422, f"{action}: {fault}")
            raise Refusal(422, fault)
        command = Command(action, asked)
        try:
            call.waiting.put_nowait(command)
        except asyncio.QueueFull:
            raise Refusal(429, "too many commands for one call") from None
        call.command_ids.add(command_id)
        call.taken.append(command)
        if action == "answer":
            self._answer(call)

    def _fault(self, call: Call, action: str, asked: dict[str, str]) -> str:
        """What is wrong with a command; empty when nothing is."""
        if action not in FIELDS:
            return "unknown action"
        if unknown := set(asked) - set(FIELDS[action]):
            return f"unknown fields {sorted(unknown)}"
        if (action in ("answer", "reject")) == bool(call.answered_ns) and action != "hangup":
            return "the call is answered" if call.answered_ns else "the call is not answered"
        if action == "reject":
            return "" if asked.get("cause") in CAUSES else "cause"
        if action == "hangup":
            return ""
        if not asked.get("stream_url", "").startswith("wss://") or not urlsplit(asked["stream_url"]).hostname:
            return "stream_url"
        if asked.get("stream_bidirectional_mode", "mp3") != "rtp":
            return "stream_bidirectional_mode: only rtp is simulated"
        codecs = (asked.get("stream_codec", "default"), asked.get("stream_bidirectional_codec", "PCMU"))
        return "" if codecs[0] in (*CODECS, "default") and codecs[1] in CODECS else "codec"

    async def _next(self, call: Call, seconds: float) -> Command | None:
        try:
            async with asyncio.timeout(seconds):
                return await call.waiting.get()
        except TimeoutError:
            return None

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _carry(
        self, call: Call, url: str, party: Party, faults: FaultPlan | None, record: bool
    ) -> Command | None:
        """Run one stream to its end; the command that follows, None when the call is over."""
        if len(call.streams) == 0:
            self.tell(call, "call.answered", state="answered")
        lead_ms, chunk_ms = self._pacing
        stream = TelnyxStream(
            stream_id=str(uuid.uuid4()),
            call_control_id=call.sid,
            party=party,
            on_warning=lambda code, text: self._warn(call, code, text),
            encoding=self.encoding,
            announced=self.announced,
            from_=call.from_,
            to=call.to,
            faults=faults,
            arrivals=self.arrivals,
            record=record,
            lead_ms=lead_ms,
            chunk_ms=chunk_ms,
        )
        call.streams.append(stream)
        try:
            await self._connect(stream, url, {"user-agent": "Telnyx"})
        except (TimeoutError, OSError, WSError) as error:
            reason = f"{type(error).__name__} {error}"
            self._warn(call, STREAM_FAILED, reason)
            where = {"stream_url": url, "track": "inbound_track"}
            self.tell(call, "streaming.failed", failure_reason=reason, stream_params=where, stream_type="websocket")
            return await self._after(call)
        self.tell(call, "streaming.started", stream_url=url)
        command = await self._live(stream, call.waiting)
        if stream.hung_up.done():
            call.ended_by, call.hangup_cause = "caller", "normal_clearing"
        self.tell(call, "streaming.stopped", stream_url=url)
        if stream.hung_up.done():
            return None
        return command or await self._after(call)

    async def _after(self, call: Call) -> Command | None:
        """The stream is gone, the call is not: somebody must say what becomes of it."""
        command = await self._next(call, DEAD_AIR_S)
        if command is None:
            call.ended_by, call.hangup_cause = "failed", "normal_clearing"
        return command

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, call: Call, kind: str, **facts: Any) -> None:
        """Send an event of the call on its way, as often and as late as this kind goes."""
        payload = {
            "call_control_id": call.sid,
            "call_leg_id": "5f1c0000-0000-4000-8000-000000000000",
            "call_session_id": "5f1b0000-0000-4000-8000-000000000000",
            "connection_id": "1684641123236054244",
            "client_state": None,
            "from": call.from_,
            "to": call.to,
            **facts,
        }
        event = {"record_type": "event", "event_type": kind, "id": str(uuid.uuid4()), "payload": payload}
        event["occurred_at"] = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        for _ in range(2 if kind in self.doubled else 1):
            self._deliver_soon(self._tell(event, self.late_s.get(kind, 0.0)))

    async def _tell(self, event: dict[str, Any], late_s: float) -> httpx.Response:
        await asyncio.sleep(late_s)
        for attempt in range(1, DELIVERIES + 1):
            meta = {"attempt": attempt, "delivered_to": self._events_url}
            response = await self.post(json.dumps({"data": event, "meta": meta}).encode())
            if response.status_code < 300:
                break
            await asyncio.sleep(AGAIN_S)
        return response

    async def post(self, body: bytes, *, at_s: int | None = None, signature: str | None = None) -> httpx.Response:
        """Deliver a body, signed now or at `at_s` (Unix time). `signature` replaces the right one."""
        at = str(int(time.time()) if at_s is None else at_s)
        right = base64.b64encode(self._key.sign(at.encode() + b"|" + body)).decode()
        headers = {
            "User-Agent": "telnyx-webhooks",
            "Content-Type": "application/json",
            "telnyx-signature-ed25519": right if signature is None else signature,
            "telnyx-timestamp": at,
        }
        return await self._post(self._events_url, body, headers)
