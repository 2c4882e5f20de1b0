"""Serves an ASGI app on a connection that somebody else accepted. The only file that knows Hypercorn.

    FrontDoor ── HttpAdapter.take_over(transport, bytes read) ──> StreamReader/-Writer ──> _Server (TCPServer) ──> app

Guarantees: HTTP/1 only, no WebSocket and no h2c upgrade (Hypercorn's WebSocket has no memory bound);
a body of at most `body_bytes` within `body_ms`; a peer that does not read is cut off after `write_ms`; answers close
the connection unless `keep_alive_requests` says otherwise; Content-Length together with Transfer-Encoding is refused
(smuggling). Leaves to others: the first request's head (front_door.py), what is answered (app.py).

hypercorn 0.18.0 is pinned: TCPServer, H11Protocol, WorkerContext and Lifespan are internals
(tests/edge/test_http_adapter.py holds what we use).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

import h11
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.edge.limits import EdgeLimits
from server.metrics import Metrics

_LOG = logging.getLogger("talkspurt.http")

# The stream reader pauses the transport at twice this; Hypercorn takes at most as much at once.
_READ_BYTES = 65_536
# Requests' chunks that wait for the app: with 64 KiB each, 512 KiB a connection at most.
_APP_QUEUE_CHUNKS = 8


class HttpAdapter:
    """Owns Hypercorn's state for one process: configuration, lifespan, and a task for each HTTP connection."""

    def __init__(self, app: ASGIApp, limits: EdgeLimits, metrics: Metrics | None = None) -> None:
        self._limits = limits
        self._config = _config(limits)
        self._app = ASGIWrapper(BoundedBody(app, limits, metrics))  # type: ignore[arg-type]
        self._state: dict[str, Any] = {}
        self._context: WorkerContext | None = None
        self._lifespan: Lifespan | None = None
        self._lifespan_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def start(self) -> None:
        """Run the app's startup. Raises what it raised: a half-started server must not listen."""
        loop = asyncio.get_running_loop()
        self._context = WorkerContext(None)
        self._lifespan = Lifespan(self._app, self._config, loop, self._state)
        # Documented place of a task outside a call's group: one per process, ended by stop().
        self._lifespan_task = loop.create_task(self._lifespan.handle_lifespan(), name="http-lifespan")
        await self._lifespan.wait_for_startup()
        if self._lifespan_task.done():
            self._lifespan_task.result()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Let running answers finish for `timeout_s`, cut the rest, run the app's shutdown."""
        if self._context is None or self._lifespan is None or self._lifespan_task is None:
            return
        await self._context.terminated.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        await self._lifespan.wait_for_shutdown()
        self._lifespan_task.cancel()
        await asyncio.wait([self._lifespan_task], timeout=1.0)
        if self._lifespan_task.done() and not self._lifespan_task.cancelled():
            self._lifespan_task.result()

    def take_over(self, transport: asyncio.Transport, data: bytes, on_lost: Callable[[], None]) -> None:
        """Serve the connection from its first byte on.

        Args:
            transport: paused; it is resumed.
            data: what was read from it so far, the whole head of the first request at least.
            on_lost: called once when the connection is gone.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ_BYTES, loop=loop)
        protocol = _Stream(reader, loop, on_lost)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        # Resumed first: the reader itself pauses when the first bytes are already too many.
        transport.resume_reading()
        protocol.data_received(data)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        # Documented place: one task per HTTP connection, kept in the set and ended by stop().
        task = loop.create_task(self._serve(reader, writer), name="http-connection")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._context is not None, "start() first"
        loop = asyncio.get_running_loop()
        server = _Server(
            self._app, loop, self._config, self._context, self._state, reader, writer, self._limits.write_ms / 1e3
        )
        try:
            await server.run()
        finally:
            # Nothing may stay behind: after a close() this only ends a flush that nobody reads.
            writer.transport.abort()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("http connection ended by %r", error, exc_info=error)


class BoundedBody:
    """ASGI middleware, outermost: bounds a request's body in bytes and time, answers 413 and 408 itself."""

    def __init__(self, app: ASGIApp, limits: EdgeLimits, metrics: Metrics | None = None) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(receive, send, self._limits)
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        try:
            # h11 has checked that it is a number.
            if int(declared) > self._limits.body_bytes:
                raise _BodyRefused(413)
            await self._app(scope, request.receive, request.send)
        except _BodyRefused as refused:
            await request.refuse(refused.status)
        if self._metrics is not None and request.status:
            self._metrics.observe_request(scope["method"], request.status)


class _BodyRefused(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class _Request:
    """One request's view of `receive` and `send`."""

    __slots__ = ("_body_bytes", "_complete", "_deadline_s", "_limits", "_receive", "_refused", "_send", "status")

    def __init__(self, receive: Receive, send: Send, limits: EdgeLimits) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._deadline_s = asyncio.get_running_loop().time() + limits.body_ms / 1e3
        self._body_bytes = 0
        self._complete = False
        self._refused = False
        self.status = 0

    async def receive(self) -> Message:
        if self._complete:
            # The rest is http.disconnect: an event stream waits for it as long as it lives.
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            self._refused = True
            raise _BodyRefused(408) from None
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        if self._body_bytes > self._limits.body_bytes:
            self._refused = True
            raise _BodyRefused(413)
        return message

    async def send(self, message: Message) -> None:
        # After a refusal the app unwinds, and what its error handlers say is not what happened.
        if not self._refused:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await self._send(message)

    async def refuse(self, status: int) -> None:
        """Answer, unless the app had begun to: then the connection just ends."""
        if self.status:
            return
        self.status = status
        title = "Request body too large" if status == 413 else "Request body too slow"
        body = b'{"type":"about:blank","title":"%s","status":%d}' % (title.encode(), status)
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
        headers += [(b"connection", b"close"), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class _Stream(asyncio.StreamReaderProtocol):
    def __init__(
        self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]
    ) -> None:
        super().__init__(reader, loop=loop)
        # asyncio keeps the reader weakly when there is no callback.
        self._reader_kept = reader
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()


class _Server(TCPServer):
    """Hypercorn's connection with our HTTP/1 in place of its choice of protocols, and deadlines on writing."""

    def __init__(
        self,
        app: ASGIWrapper,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        context: WorkerContext,
        state: MutableMapping[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        write_s: float,
    ) -> None:
        super().__init__(app, loop, config, context, state, reader, writer)  # type: ignore[arg-type]
        self._write_s = write_s

    async def run(self) -> None:
        sock = self.writer.get_extra_info("socket")
        try:
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
            is_tls = self.writer.get_extra_info("ssl_object") is not None
            async with TaskGroup(self.loop) as task_group:
                self._task_group = task_group
                self.protocol = _Http1(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState(self.state.copy()),
                    is_tls,
                    client,
                    server,
                    self.protocol_send,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
                # Hypercorn would keep the dead connection until the keep-alive time is over.
                await self.idle_task.stop()
        except OSError:
            # The peer is gone; the app has been told by http.disconnect.
            pass
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if self.writer.transport.is_closing():
            # Writing to a lost connection never waits: an app that streams without end would keep the loop for itself,
            # and never get to hear of the disconnect.
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(self._write_s):
                await super().protocol_send(event)
        except TimeoutError:
            self.writer.transport.abort()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(self._write_s):
                await super()._close()
        except TimeoutError:
            self.writer.transport.abort()


class _Http1(H11Protocol):
    """Hypercorn's HTTP/1 without its upgrades."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn changes to HTTP/2 here, by h2c upgrade or by prior knowledge; we never do."""

    async def _create_stream(self, request: h11.Request) -> None:
        names = {name for name, _ in request.headers}
        if b"transfer-encoding" in names and b"content-length" in names:
            await self._send_error_response(400)
            await self.send(Closed())
            return
        if b"upgrade" in names:
            # RFC 9110, 7.8: a server may ignore it, and then must not see it either.
            kept = [(name, value) for name, value in request.headers if name != b"upgrade"]
            request = h11.Request(
                method=request.method, target=request.target, headers=kept, http_version=request.http_version
            )
        await super()._create_stream(request)


def _config(limits: EdgeLimits) -> Config:
    config = Config()
    config.errorlog = _LOG
    config.accesslog = None
    config.include_server_header = False
    config.alpn_protocols = ["http/1.1"]
    config.h11_max_incomplete_size = limits.head_bytes
    config.keep_alive_timeout = limits.keep_alive_ms / 1e3
    config.keep_alive_max_requests = limits.keep_alive_requests
    config.max_app_queue_size = _APP_QUEUE_CHUNKS
    config.startup_timeout = 60.0
    config.shutdown_timeout = 10.0
    return config
