"""A page asks for a call: POST /api/v1/browser-calls gives it a media stream of its own.

    page ── POST {"agent":"anna"} ──> 201 {"stream_id":"...","secret":"...","url":"wss://host/media/browser/..."}
    page ── WebSocket on that url ──> {"event":"start","secret":"...","sampleRate":16000}
                                      then S16 little-endian, mono, 16000 Hz, in binary messages, both ways

The rest of the media protocol (mark, clear, dtmf, stop, transcript, turn) is in server/wire/browser.py.

Guarantees: a page of a foreign origin gets nothing (403), because a visitor's browser would call on its behalf; with a
key configured, nobody without it does (401). Own origin means PUBLIC_URL and the listed ones, never the Host header,
which a rebound DNS name controls. A request without Origin is no page: a program, which the key must stop if it should
be stopped; on an open address there is no route without one unless the operator says so (server/config).
The body has at most 4 KiB.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.edge.app import problem
from server.edge.body import read_body
from server.edge.twilio_routes import Accepted, Refused, media_url

PATH = "/api/v1/browser-calls"
MAX_BODY_BYTES = 4096
MAX_AGENT_CHARS = 80
"""As the name in server.agent.settings."""
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class BrowserCalls(Protocol):
    """The calls behind the route."""

    async def open(self, agent: str) -> Accepted | Refused:
        """Reserve a stream for a call to `agent`; Refused("unknown_number") when there is no such agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserRouteSettings:
    """`api_key` empty: none is asked for. `allowed_origins` come on top of those of `public_url`."""

    public_url: str
    allowed_origins: tuple[str, ...] = ()
    api_key: str = field(default="", repr=False)
    answer_ms: int = 8000


def own_origins(public_url: str) -> tuple[str, ...]:
    """The origin of `public_url`; for a loopback address all its names, because people type any of them."""
    parts = urlsplit(public_url)
    port = f":{parts.port}" if parts.port is not None else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
    hosts: Sequence[str] = _LOOPBACK if host in _LOOPBACK else (host,)
    if (parts.scheme, parts.port) in (("http", 80), ("https", 443)):
        port = ""  # a browser leaves the default out
    return tuple(f"{parts.scheme}://{one}{port}" for one in hosts)


def browser_routes(calls: BrowserCalls, settings: BrowserRouteSettings) -> list[Route]:
    """The route and its CORS preflight."""
    door = _Door(calls, settings)
    return [Route(PATH, door.open, methods=["POST"]), Route(PATH, door.preflight, methods=["OPTIONS"])]


class _Door:
    def __init__(self, calls: BrowserCalls, settings: BrowserRouteSettings) -> None:
        self._calls = calls
        self._settings = settings
        self._origins = frozenset({*own_origins(settings.public_url), *settings.allowed_origins})

    async def open(self, request: Request) -> Response:
        headers = self._check_origin(request)
        self._check_key(request, headers)
        agent = _agent_of(request, await read_body(request, MAX_BODY_BYTES))
        async with asyncio.timeout(self._settings.answer_ms / 1000):
            answer = await self._calls.open(agent)
        if isinstance(answer, Refused):
            if answer.reason == "unknown_number":
                return problem(404, "there is no such agent", headers)
            return problem(503, "no call can be taken now", {**headers, "retry-after": "5"})
        url = media_url(self._settings.public_url, "browser", answer.stream_id)
        body = {"stream_id": answer.stream_id, "secret": answer.secret, "url": url}
        headers |= {"content-type": "application/json", "cache-control": "no-store"}
        return Response(orjson.dumps(body), status_code=201, headers=headers)

    async def preflight(self, request: Request) -> Response:
        allowed = {
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "authorization, content-type",
            "access-control-max-age": "600",
        }
        return Response(status_code=204, headers={**self._check_origin(request), **allowed})

    def _check_origin(self, request: Request) -> dict[str, str]:
        """Headers that let an allowed page read the answer. Raises HTTPException 403."""
        origin = request.headers.get("origin")
        if origin is None:
            # Every browser sends Origin with a POST; one that says cross-site and hides it is not ours.
            if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                raise HTTPException(403, "origin refused")
            return {"vary": "origin"}
        if origin not in self._origins:
            raise HTTPException(403, "origin refused", {"vary": "origin"})
        # The app's default policy would hide the answer from a page of another, allowed origin.
        return {
            "vary": "origin",
            "access-control-allow-origin": origin,
            "cross-origin-resource-policy": "cross-origin",
        }

    def _check_key(self, request: Request, headers: dict[str, str]) -> None:
        if not self._settings.api_key:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), self._settings.api_key.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise HTTPException(401, "expected Authorization: Bearer", {**headers, "www-authenticate": "Bearer"})


def _agent_of(request: Request, body: bytes) -> str:
    """The agent that is asked for. Raises HTTPException 400, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also makes a foreign page ask before it sends: a form or text would go out without a preflight.
        raise HTTPException(415, "expected application/json")
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, "expected JSON") from error
    if not isinstance(value, dict) or set(value) != {"agent"}:
        raise HTTPException(400, 'expected an object {"agent": name}')
    agent = value["agent"]
    if not isinstance(agent, str) or not 0 < len(agent) <= MAX_AGENT_CHARS:
        raise HTTPException(400, f"agent: expected a text of 1 to {MAX_AGENT_CHARS} characters")
    return agent
