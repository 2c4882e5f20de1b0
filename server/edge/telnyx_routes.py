"""Telnyx's webhook: signed events in, a bare 200 out; what a call does is decided behind `TelnyxCalls`.

    POST /telnyx/events    an event of Call Control    -> 200, at once: commands to the call go by REST

Guarantees: nothing is decided on an event whose signature is not Telnyx's or is older than its tolerance (403), whose
body is longer than 64 KiB (413) or is no event (400). A fault of ours is an error status: Telnyx then delivers again.
Events come in any order, doubled and at the same time; putting that right is left to `TelnyxCalls`. Kinds and fields
that we do not know are let through: Telnyx adds them without notice.
Source: Telnyx, "Receiving webhooks".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.carrier.signature import TELNYX_HEADER, TELNYX_TIME_HEADER, TelnyxSignature
from server.edge.body import read_body

EVENTS_PATH = "/telnyx/events"
MAX_EVENT_BYTES = 65536
"""An event is 2 KiB; each SIP header makes it longer."""
MAX_FIELD_CHARS = 2048

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TelnyxEvent:
    """`kind` is dotted ("call.initiated"); `fields` is the payload, of which nothing has been checked."""

    id: str
    kind: str
    call_control_id: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field of the payload; empty when there is none, or it is no text of a sensible length."""
        return _text(self.fields, name)


class Overloaded(Exception):
    """An event cannot be taken now: Telnyx shall deliver it again."""


class TelnyxCalls(Protocol):
    """The calls behind the webhook."""

    async def on_event(self, event: TelnyxEvent) -> None:
        """Take one event. Any order, repeats, and several at a time. Raises Overloaded."""


def telnyx_routes(
    calls: TelnyxCalls, signature: TelnyxSignature, wall_s: Callable[[], float], *, answer_ms: int = 8000
) -> list[Route]:
    """The route. `wall_s` is Unix time, which signatures are as old as."""

    async def events(request: Request) -> Response:
        body = await read_body(request, MAX_EVENT_BYTES)
        signed, at = request.headers.get(TELNYX_HEADER, ""), request.headers.get(TELNYX_TIME_HEADER, "")
        if not signature.is_valid(body, signed, at, wall_s()):
            log.warning("%s: signature refused; of %s, now %d", EVENTS_PATH, at[:20] or "no time", wall_s())
            raise HTTPException(403, "signature refused")
        try:
            async with asyncio.timeout(answer_ms / 1000):
                await calls.on_event(event_of(body))
        except Overloaded as error:
            raise HTTPException(503, "no event can be taken now", {"retry-after": "1"}) from error
        return Response(status_code=200)

    return [Route(EVENTS_PATH, events, methods=["POST"])]


def event_of(body: bytes) -> TelnyxEvent:
    """The event in `body`. Raises HTTPException 400."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, "expected JSON") from error
    data = value.get("data") if isinstance(value, dict) else None
    payload = data.get("payload") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(payload, dict):
        raise HTTPException(400, 'expected an object {"data": {"event_type", "id", "payload": {…}}}')
    kind, event_id = _text(data, "event_type"), _text(data, "id")
    if not kind or not event_id:
        raise HTTPException(400, "data: expected the texts event_type and id")
    # Some senders write call_initiated.
    return TelnyxEvent(event_id, kind.replace("_", "."), _text(payload, "call_control_id"), payload)


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_FIELD_CHARS else ""
