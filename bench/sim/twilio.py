"""Twilio, simulated: webhooks, TwiML, media streams, REST, callbacks (protocols: Twilio, section 12).

Everything that Twilio signs is signed here by Twilio's own library (`twilio.request_validator`). `Exchange.call` is one
phone call from ringing to its end:

    voice webhook ──→ TwiML ──→ verbs ──→ <Connect><Stream> ⇄ server ──→ action or next verb ──→ completed
                                               ↑ REST: Status=completed, Twiml, Url
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import httpx
from picows import WSError
from twilio.request_validator import RequestValidator

from bench.sim.exchange import PhoneCall, Switchboard
from bench.sim.fault import FaultPlan
from bench.sim.party import Party
from bench.sim.twilio_rest import RestServer
from bench.sim.twilio_stream import MediaStream
from bench.sim.twiml import Stream, TwimlError, Verb, check_stream_url, parse_twiml

MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class Account:
    account_sid: str = "AC" + "b" * 32
    auth_token: str = field(default="0123456789abcdef0123456789abcdef", repr=False)


@dataclass(slots=True)
class Call(PhoneCall):
    """`said` holds texts of `<Say>`."""

    said: list[str] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    commands: asyncio.Queue[list[Stream | Verb]] = field(default_factory=lambda: asyncio.Queue(8))
    sequence: int = 0
    redirects: int = 0


class Exchange(Switchboard[Call]):
    """A Twilio account with a number that points at our server; signatures are over its public URL.

    Args:
        status_path: path of the number's status callback, empty for none.
        options: as Switchboard.
    """

    def __init__(
        self,
        *,
        public_url: str,
        local_url: str,
        account: Account | None = None,
        voice_path: str = "/twilio/voice",
        status_path: str = "/twilio/status",
        **options: Any,
    ) -> None:
        self.account = account or Account()
        self.rest = RestServer(self.account.account_sid, self.account.auth_token, self)
        super().__init__(public_url=public_url, local_url=local_url, rest=self.rest, **options)
        self.dial_status = "completed"
        self.refuses_updates = False
        self._voice_path = voice_path
        self._status_path = status_path
        self._signer = RequestValidator(self.account.auth_token)

    @property
    def server_env(self) -> Mapping[str, str]:
        return {
            "TWILIO_ACCOUNT_SID": self.account.account_sid,
            "TWILIO_AUTH_TOKEN": self.account.auth_token,
            "TWILIO_API_URL": self.rest_url,
        }

    def end_call(self, sid: str) -> None:
        self.update_call(sid, {"Status": "completed"})

    async def call(
        self,
        party: Party,
        *,
        from_: str,
        to: str,
        faults: FaultPlan | None = None,
        record: bool = False,
        parameters: Mapping[str, str] | None = None,
    ) -> Call:
        """Place one inbound call and stay with it until it is over. Never raises for what the server does."""
        call = Call("CA" + secrets.token_hex(16), from_, to, started_ns=time.monotonic_ns())
        self.calls[call.sid] = call
        call.status = "ringing"
        try:
            verbs = await self._fetch(call, self.public_url + self._voice_path, dict(parameters or {}))
            await self._execute(call, verbs, party, faults, record)
        except TwimlError as error:
            self._warn(call, error.code, str(error))
            call.ended_by = call.ended_by or "failed"
            call.status = "failed" if not call.answered_ns else "completed"
        call.ended_ns = time.monotonic_ns()
        if not call.is_over:
            call.status = "completed"
        if self._status_path:
            self._status_callback(call)
        return call

    # ── REST ─────────────────────────────────────────────────────────────────────────────────────────────────

    def find_call(self, sid: str) -> dict[str, Any] | None:
        call = self.calls.get(sid)
        if call is None:
            return None
        uri = f"/2010-04-01/Accounts/{self.account.account_sid}/Calls/{sid}.json"
        return {
            "sid": sid,
            "account_sid": self.account.account_sid,
            "api_version": "2010-04-01",
            "to": call.to,
            "from": call.from_,
            "status": call.status,
            "direction": "inbound",
            "duration": str((call.ended_ns - call.started_ns) // 1_000_000_000) if call.ended_ns else None,
            "price": None,
            "queue_time": "0",
            "uri": uri,
        }

    def update_call(self, sid: str, form: dict[str, str]) -> tuple[int, str]:
        call = self.calls[sid]
        if call.is_over:
            return 404, ""
        if self.refuses_updates:
            return 400, "updates are refused"
        if form.get("Status") in ("completed", "canceled"):
            call.ended_by = call.ended_by or "rest"
            command: list[Stream | Verb] = [Verb("Hangup")]
        elif "Twiml" in form:
            try:
                command = parse_twiml(form["Twiml"].encode(), "text/xml")
            except TwimlError as error:
                return 400, str(error)
        elif "Url" in form:
            command = [Verb("Redirect", {"method": form.get("Method", "POST")}, form["Url"])]
        else:
            return 400, "nothing to update"
        try:
            call.commands.put_nowait(command)
        except asyncio.QueueFull:
            return 429, "too many updates of one call"
        return 200, ""

    # ── TwiML ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _execute(
        self, call: Call, verbs: list[Stream | Verb], party: Party, faults: FaultPlan | None, record: bool
    ) -> None:
        queue = list(verbs)
        while queue:
            verb = queue.pop(0)
            if isinstance(verb, Stream):
                call.verbs.append("Connect")
                self._answer(call)
                following = await self._carry(call, verb, party, faults, record)
                if following is not None:
                    queue = following
                continue
            call.verbs.append(verb.name)
            if verb.name == "Reject":
                call.status, call.ended_by = "busy", "rejected"
                return
            if verb.name == "Hangup":
                break
            if verb.name == "Redirect":
                queue = await self._fetch(call, urljoin(self.public_url + self._voice_path, verb.text), {})
                continue
            self._answer(call)
            if verb.name in ("Say", "Play", "Dial"):
                call.said.append(f"{verb.name}: {verb.text}")
            if verb.name == "Dial" and verb.attributes.get("action"):
                # With an action the verbs after <Dial> are not reached.
                queue = await self._fetch(call, verb.attributes["action"], self._dialled(call, verb))
        call.ended_by = call.ended_by or "twiml"

    def _dialled(self, call: Call, verb: Verb) -> dict[str, str]:
        """The dialled number rings, answers and hangs up in an instant: only the outcome is simulated."""
        call.dialled.append(verb.text)
        facts = {"DialCallStatus": self.dial_status, "DialCallSid": "CA" + secrets.token_hex(16)}
        if self.dial_status == "completed":
            facts |= {"DialCallDuration": "7", "DialBridged": "true"}
        return facts

    async def _carry(
        self, call: Call, verb: Stream, party: Party, faults: FaultPlan | None, record: bool
    ) -> list[Stream | Verb] | None:
        """Run one stream to its end; what to execute next, None for the verb after it, [] for the end."""
        lead_ms, chunk_ms = self._pacing
        stream = MediaStream(
            stream=verb,
            stream_sid="MZ" + secrets.token_hex(16),
            call_sid=call.sid,
            account_sid=self.account.account_sid,
            party=party,
            on_warning=lambda code, text: self._warn(call, code, text),
            faults=faults,
            arrivals=self.arrivals,
            record=record,
            lead_ms=lead_ms,
            chunk_ms=chunk_ms,
        )
        if not await self._open(call, verb, stream):
            return await self._after(call, verb, stream)
        self._stream_callback(call, verb, stream, "stream-started")
        command = await self._live(stream, call.commands)
        self._stream_callback(call, verb, stream, "stream-stopped")
        if stream.hung_up.done():
            call.ended_by = "caller"
            return []
        if command is not None:
            return command
        code = 31903 if stream.facts.close_code is None else 31921
        self._warn(call, code, "stream closed by the server" if code == 31921 else "broken pipe")
        return await self._after(call, verb, stream)

    async def _after(self, call: Call, verb: Stream, stream: MediaStream) -> list[Stream | Verb] | None:
        if not verb.action:
            return None
        facts = {"StreamSid": stream.facts.stream_sid, "StreamName": verb.name or stream.facts.stream_sid}
        return await self._fetch(call, urljoin(self.public_url + self._voice_path, verb.action), facts)

    async def _open(self, call: Call, verb: Stream, stream: MediaStream) -> bool:
        check_stream_url(verb.url)
        call.streams.append(stream)
        try:
            signature = self._signer.compute_signature(verb.url, {})
            headers = {"user-agent": "Twilio.TmeWs/1.0", "x-twilio-signature": signature}
            await self._connect(stream, verb.url, headers)
        except TimeoutError:
            self._stream_failed(call, verb, stream, 31901, "connect timeout")
        except OSError as error:
            self._stream_failed(call, verb, stream, 31902, f"refused: {error}")
        except WSError as error:
            self._stream_failed(call, verb, stream, 31920, f"handshake: {error}")
        else:
            return True
        return False

    # ── webhooks ─────────────────────────────────────────────────────────────────────────────────────────────

    def form(self, call: Call) -> dict[str, str]:
        """The parameters that every webhook of a call carries."""
        return {
            "CallSid": call.sid,
            "AccountSid": self.account.account_sid,
            "From": call.from_,
            "To": call.to,
            "Caller": call.from_,
            "Called": call.to,
            "CallStatus": call.status,
            "ApiVersion": "2010-04-01",
            "Direction": "inbound",
            "FromCity": "",
            "FromCountry": "US",
            "StirVerstat": "TN-Validation-Passed-A",
        }

    async def post(self, url: str, form: Mapping[str, str], *, signature: str | None = None) -> httpx.Response:
        """A signed form POST to a public URL, delivered to the local port. `signature` replaces the right one."""
        headers = {
            "User-Agent": "TwilioProxy/1.1",
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": signature if signature is not None else self.sign(url, form),
            "I-Twilio-Idempotency-Token": secrets.token_hex(16),
        }
        return await self._post(url, urlencode(dict(form)).encode(), headers)

    def sign(self, url: str, form: Mapping[str, str]) -> str:
        """Twilio's signature: over https the port and user are left out, the fragment always is."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "https" and parts.port:
            host += f":{parts.port}"
        return str(self._signer.compute_signature(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), form))

    async def _fetch(self, call: Call, url: str, extra: Mapping[str, str]) -> list[Stream | Verb]:
        call.redirects += 1
        if call.redirects > MAX_REDIRECTS + 1:
            raise TwimlError(11215, "too many redirects")
        try:
            response = await self.post(url, {**self.form(call), **extra})
        except httpx.HTTPError as error:
            raise TwimlError(11200, f"{url}: {type(error).__name__} {error}") from None
        if response.status_code >= 400:
            raise TwimlError(11200, f"{url}: HTTP {response.status_code}")
        return parse_twiml(response.content, response.headers.get("content-type", ""))

    def _status_callback(self, call: Call) -> None:
        call.sequence += 1
        seconds = (call.ended_ns - (call.answered_ns or call.ended_ns)) // 1_000_000_000
        form = {
            **self.form(call),
            "SequenceNumber": str(call.sequence),
            "Timestamp": formatdate(usegmt=True),
            "CallbackSource": "call-progress-events",
            "Duration": str(-(-seconds // 60)),
            "CallDuration": str(seconds),
            "SipResponseCode": "200" if call.status == "completed" else "486",
        }
        self._deliver_soon(self.post(self.public_url + self._status_path, form))

    def _stream_callback(self, call: Call, verb: Stream, stream: MediaStream, event: str, error: str = "") -> None:
        if not verb.status_callback:
            return
        form = {
            "AccountSid": self.account.account_sid,
            "CallSid": call.sid,
            "StreamSid": stream.facts.stream_sid,
            "StreamName": verb.name or stream.facts.stream_sid,
            "StreamEvent": event,
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        }
        if error:
            form["StreamError"] = error
        self._deliver_soon(self.post(verb.status_callback, form))

    def _stream_failed(self, call: Call, verb: Stream, stream: MediaStream, code: int, text: str) -> None:
        self._warn(call, code, text)
        self._stream_callback(call, verb, stream, "stream-error", text)
