"""Who is let in: the calls behind the carriers' webhooks, the page's request, and the media path.

Guarantees: a call is asked about as often as the carrier likes and gets one answer; a media path is let through only
for a stream that was promised, and from Twilio only with Twilio's signature.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping

import orjson

from server.agent import stock
from server.call.place import Reserved
from server.call.plane import CallPlane
from server.carrier.signature import TWILIO_HEADER, TWILIO_SETTINGS_HEADER, TwilioSignature
from server.edge.media_socket import MediaHandler, MediaSocket
from server.edge.twilio_routes import Accepted, Dial, HangUp, Refused, caller_number
from server.store.agents import AgentStore, AgentVersion
from server.store.answer import Made, SharedAnswers

log = logging.getLogger(__name__)

# Telnyx's `start` cannot be made to carry the secret, its path can.
_PATH = re.compile(
    r"/media/(?:(twilio|browser)/([A-Za-z0-9_-]{16,64})/?|telnyx/([A-Za-z0-9_-]{16,64})/([A-Za-z0-9_.-]{16,128}))"
)


class Reception:
    """Implements TwilioCalls, BrowserCalls and MediaRouter."""

    def __init__(
        self, plane: CallPlane, agents: AgentStore, signature: TwilioSignature | None, answers: SharedAnswers
    ) -> None:
        self._plane = plane
        self._agents = agents
        self._signature = signature
        self._answers = answers

    # ── Twilio's webhooks ─────────────────────────────────────────────────────────────────────────────────────

    async def accept(self, form: Mapping[str, str]) -> Accepted | Refused:
        sid = form.get("CallSid", "")
        if not sid:
            return Refused("unknown_number")

        async def make() -> Made:
            made = await self._accept(sid, form)
            # What was refused now may be taken when the carrier asks again.
            return written(made), isinstance(made, Accepted)

        return read_answer(await self._answers.once(sid, make))

    async def _accept(self, sid: str, form: Mapping[str, str]) -> Accepted | Refused:
        to_number = form.get("To", "")
        version = await self._agents.agent_for_number(to_number)
        if version is None:
            return Refused("unknown_number")
        reserved = await self._plane.reserve("twilio", sid, caller_number(form.get("From", "")), to_number, version)
        return accepted(reserved)

    async def on_status(self, form: Mapping[str, str]) -> None:
        log.info(
            "call status %s",
            form.get("CallStatus", ""),
            extra={
                "event": "carrier_status",
                "carrier_call_id": form.get("CallSid", ""),
                "status": form.get("CallStatus"),
            },
        )

    async def on_stream_status(self, form: Mapping[str, str]) -> None:
        kind = form.get("StreamEvent", "")
        level = logging.WARNING if kind == "stream-error" else logging.INFO
        extra = {"event": "stream_status", "carrier_call_id": form.get("CallSid", ""), "error": form.get("StreamError")}
        log.log(level, "stream status %s", kind, extra=extra)

    async def after_stream(self, form: Mapping[str, str]) -> Accepted | Dial | HangUp:
        sid = form.get("CallSid", "")
        reserved = await self._plane.resume(sid)
        if reserved is not None:
            return Accepted(reserved.stream_id, reserved.secret)
        version = await self._agents.agent_for_number(form.get("To", ""))
        if version is None or not self._plane.is_unfinished(sid):
            return HangUp()
        settings = version.settings.for_channel("twilio")
        if settings.limits.fallback_number:
            log.warning("handing the call over", extra={"event": "hand_over", "carrier_call_id": sid})
            return Dial(settings.limits.fallback_number)
        return HangUp(stock.farewell(settings), settings.language)

    async def after_dial(self, form: Mapping[str, str]) -> HangUp:
        status = form.get("DialCallStatus", "")
        extra = {"event": "after_dial", "carrier_call_id": form.get("CallSid", ""), "status": status}
        log.info("the call was put through: %s", status, extra=extra)
        version = await self._agents.agent_for_number(form.get("To", ""))
        if status in ("completed", "answered") or version is None:
            return HangUp()
        settings = version.settings.for_channel("twilio")
        return HangUp(stock.farewell(settings), settings.language)

    # ── a page ────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self, agent: str) -> Accepted | Refused:
        version: AgentVersion | None = await self._agents.agent_named(agent)
        if version is None:
            return Refused("unknown_number")
        identity = f"browser-{secrets.token_hex(8)}"
        return accepted(await self._plane.reserve("browser", identity, "", "", version))

    # ── the media path ────────────────────────────────────────────────────────────────────────────────────────

    async def admit(self, path: str, headers: Mapping[str, str]) -> Callable[[MediaSocket], MediaHandler] | int:
        found = _PATH.fullmatch(path)
        if found is None:
            return 403
        carrier, stream_id, secret = found[1] or "telnyx", found[2] or found[3], found[4] or ""
        if carrier == "twilio" and self._signature is not None:
            signed = headers.get(TWILIO_HEADER.lower(), "")
            if not self._signature.is_valid_upgrade(path.encode(), signed, headers.get(TWILIO_SETTINGS_HEADER.lower())):
                log.warning("media upgrade: signature refused", extra={"event": "refused_stream"})
                return 403
        open_handler = await self._plane.admit(carrier, stream_id, secret)
        return 403 if open_handler is None else open_handler


def accepted(reserved: Reserved | None) -> Accepted | Refused:
    """What a reservation means for the carrier."""
    return Refused("busy") if reserved is None else Accepted(reserved.stream_id, reserved.secret)


def written(answer: Accepted | Refused) -> bytes:
    """An answer as SharedAnswers keeps it."""
    if isinstance(answer, Refused):
        return orjson.dumps({"reason": answer.reason})
    return orjson.dumps({"stream_id": answer.stream_id, "secret": answer.secret})


def read_answer(data: bytes) -> Accepted | Refused:
    """What `written` wrote."""
    fields = orjson.loads(data)
    return Refused(fields["reason"]) if "reason" in fields else Accepted(fields["stream_id"], fields["secret"])
