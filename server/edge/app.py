"""The Starlette app: injected routes inside one guard that every answer passes.

Guarantees: errors are problem+json (RFC 9457) without a word of the exception; security headers on every answer,
stricter unless the route set its own; /media and WebSockets are refused here, whatever a route may say, because a
kept-alive connection must not reach them behind the front door's back. Leaves to others: the routes, CORS, auth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

# Defaults for an API; the console sets its own Content-Security-Policy.
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(
    status: int, detail: str | None = None, headers: dict[str, str] | None = None, **members: object
) -> ProblemResponse:
    """An RFC 9457 problem. `members`: extensions, JSON values only."""
    body: dict[str, object] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail is not None:
        body["detail"] = detail
    return ProblemResponse({**body, **members}, status_code=status, headers=headers)


def build_app(
    routes: Sequence[BaseRoute], lifespan: Lifespan | None = None, middleware: Sequence[Middleware] = ()
) -> Starlette:
    """Make the app that HttpAdapter serves. `middleware` runs inside the guard, in the order given."""
    return Starlette(
        routes=list(routes),
        lifespan=lifespan,
        middleware=[Middleware(Guard), *middleware],
        exception_handlers={HTTPException: _on_http_error, Exception: _on_crash},
    )


class Guard:
    """Outermost middleware but for Starlette's own error handler, which answers through `_on_crash`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_security_headers(message)
            await send(message)

        if is_media_path(scope["path"]):
            await problem(404)(scope, receive, guarded_send)
        else:
            await self._app(scope, receive, guarded_send)


def is_media_path(path: str) -> bool:
    """Whether a decoded path means /media to anybody who normalises it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "media" in parts[:1] or (".." in parts and "media" in parts)


def _add_security_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else None
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, detail, headers)


async def _on_crash(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again after this, and Hypercorn logs it.
    return problem(500, headers=dict(SECURITY_HEADERS))
