"""A whole edge (front door, media echo, small HTTP app) for tests: in the test's loop, or as a process of its own.

python -m tests.support.edge_server --loop uvloop --head-ms 2000     prints the port, serves until stdin closes
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from server.edge.app import build_app
from server.edge.front_door import FrontDoor, OpenHandler
from server.edge.health import health_routes
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import EdgeLimits
from server.edge.media_socket import MediaHandler, MediaLimits, MediaSocket
from server.edge.tls import ReloadingTls
from server.metrics import Metrics


@dataclass
class EchoHandler:
    """Sends each message back in its own kind; some texts are commands."""

    socket: MediaSocket
    messages: list[tuple[bytes, bool]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    writable: list[bool] = field(default_factory=list)
    sent_after_abort: bool | None = None
    closed_event: asyncio.Event = field(default_factory=asyncio.Event)

    def on_message(self, data: bytes, is_text: bool) -> None:
        self.messages.append((data[:200], is_text))
        del self.messages[:-100]
        if data == b"raise":
            raise ValueError("the handler is broken")
        if data == b"close":
            self.socket.close(4001)
        elif data == b"abort":
            self.socket.abort()
            # The connection is not lost yet, its descriptor may already belong to another.
            self.sent_after_abort = self.socket.send_text(b"must not be sent")
        elif data.startswith(b"flood "):
            size, until_buffered = map(int, data.split()[1:])
            while self.socket.send_binary(bytes(size)) and self.socket.buffered_bytes < until_buffered:
                pass
        elif is_text:
            self.socket.send_text(data)
        else:
            self.socket.send_binary(data)

    def on_closed(self, code: int) -> None:
        self.closed.append(code)
        self.closed_event.set()

    def on_writable(self, writable: bool) -> None:
        self.writable.append(writable)


class EchoRouter:
    """Admits /media/echo/*; 403 for all else but a few that try the front door's patience."""

    def __init__(self) -> None:
        self.handlers: list[EchoHandler] = []
        self.admitted: list[tuple[str, dict[str, str]]] = []
        self.release = asyncio.Event()

    async def admit(self, path: str, headers: Mapping[str, str]) -> OpenHandler | int:
        self.admitted.append((path, dict(headers)))
        if path == "/media/slow":
            await self.release.wait()
        elif path == "/media/broken":
            raise RuntimeError("the store is broken")
        elif not path.startswith("/media/echo/"):
            return 403
        return self.open

    def open(self, socket: MediaSocket) -> MediaHandler:
        self.handlers.append(EchoHandler(socket))
        return self.handlers[-1]


async def _echo_body(request: Request) -> Response:
    body = await request.body()
    return PlainTextResponse(f"{len(body)}\n")


async def _ignore_body(request: Request) -> Response:
    return PlainTextResponse("ignored\n")


async def _crash(request: Request) -> Response:
    raise RuntimeError("secret detail")


async def _endless(request: Request) -> Response:
    async def blocks() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)

    return StreamingResponse(blocks())


async def _headers(request: Request) -> Response:
    return PlainTextResponse("\n".join(f"{k}: {v}" for k, v in request.headers.items()))


ROUTES = [
    Route("/body", _echo_body, methods=["POST"]),
    Route("/ignore", _ignore_body, methods=["POST"]),
    Route("/crash", _crash),
    Route("/endless", _endless),
    Route("/headers", _headers),
    # A route that must never be reached, whatever leads to it.
    Route("/media/{rest:path}", _headers),
]


@dataclass
class EdgeServer:
    port: int
    door: FrontDoor
    http: HttpAdapter
    router: EchoRouter
    metrics: Metrics

    def refused(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("connections_refused_total", {"reason": reason}) or 0.0


@asynccontextmanager
async def edge_server(
    limits: EdgeLimits | None = None, media_limits: MediaLimits | None = None, tls: ReloadingTls | None = None
) -> AsyncIterator[EdgeServer]:
    metrics, router = Metrics(), EchoRouter()
    routes = [*health_routes({}, lambda: False, metrics), *ROUTES]
    limits = limits or EdgeLimits()
    http = HttpAdapter(build_app(routes), limits, metrics)
    await http.start()
    door = FrontDoor(router, http, limits, media_limits, metrics)
    port = await door.serve("127.0.0.1", 0, tls=tls)
    try:
        yield EdgeServer(port, door, http, router, metrics)
    finally:
        await door.close()
        for handler in router.handlers:
            handler.socket.abort()
        await http.stop(timeout_s=1.0)


async def _main(limits: EdgeLimits) -> None:
    loop = asyncio.get_running_loop()
    stdin_closed = asyncio.Event()

    def on_stdin() -> None:
        if not sys.stdin.buffer.read1(1024):
            loop.remove_reader(sys.stdin)
            stdin_closed.set()

    async with edge_server(limits) as edge:
        loop.add_reader(sys.stdin, on_stdin)
        sys.stdout.write(f"{edge.port}\n")
        sys.stdout.flush()
        await stdin_closed.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    parser.add_argument("--head-ms", type=int, default=5_000)
    arguments = parser.parse_args()
    run: Any = uvloop.run if arguments.loop == "uvloop" else asyncio.run
    run(_main(EdgeLimits(head_ms=arguments.head_ms)))
