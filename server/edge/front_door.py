"""The one port: reads the head of a connection's first request and hands the transport to who serves it.

                              ┌─ GET /media/… → admitted? → MediaUpgrade (picows)
    accept → limits → head ───┤
                              └─ the rest ────────────────→ HttpAdapter (Hypercorn → Starlette)

Guarantees: at most `head_bytes` are kept and `head_ms` waited for a head; a peer has a bounded number and rate of
connections that are not media; nothing of a media connection is served, or read on, before its stream is admitted;
whatever is refused is told why in one plain answer, and closed. Works on uvloop and asyncio, with TLS or without.
It routes by the first request only, which is why HttpAdapter closes after each answer and app.py refuses /media.
Leaves to others: who may have a media stream (`MediaRouter`), everything after the hand-over.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol, cast

from server.edge import listener
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import EdgeLimits, PeerLimits
from server.edge.media_socket import MediaHandler, MediaLimits, MediaSocket, MediaUpgrade
from server.edge.request_head import HeadRefused, RequestHead, parse_head, websocket_key
from server.edge.tls import ReloadingTls
from server.metrics import Metrics

_LOG = logging.getLogger("talkspurt.edge")

OpenHandler = Callable[[MediaSocket], MediaHandler]
"""Called once, when the WebSocket is open; what it returns gets the messages."""

# A refused peer may go on sending this much while it reads the answer; then it is reset.
_DISCARD_BYTES = 65_536
_TLS_CHECK_S = 2.0


class MediaRouter(Protocol):
    async def admit(self, path: str, headers: Mapping[str, str]) -> OpenHandler | int:
        """Decide on a media stream before its upgrade.

        Args:
            path: the request target, "/media/{carrier}/{stream id}", as it came.
            headers: names in lower case.
        Returns:
            What opens the call's handler, or an HTTP status (403: unknown stream id).
        """


class FrontDoor:
    """Listens, and owns each connection until it is handed over."""

    def __init__(
        self,
        media: MediaRouter,
        http: HttpAdapter,
        limits: EdgeLimits | None = None,
        media_limits: MediaLimits | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.limits = limits or EdgeLimits()
        self._media = media
        self._http = http
        self._metrics = metrics
        self._peers = PeerLimits(self.limits)
        on_count = metrics.media_open.inc if metrics is not None else None
        self._upgrade = MediaUpgrade(media_limits or MediaLimits(), on_count)
        self._servers: list[asyncio.Server] = []
        self._waiting: set[_Connection] = set()
        self._admissions: set[asyncio.Task[None]] = set()
        self._tls: ReloadingTls | None = None
        self._tls_timer: asyncio.TimerHandle | None = None

    async def serve(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        reuse_port: bool = False,
        tls: ReloadingTls | None = None,
    ) -> int:
        """Listen on `host:port` or on a bound socket. Returns the port. May be called again for another listener.

        `reuse_port`: several processes share the port (SO_REUSEPORT), each with a loop of its own.
        """
        loop = asyncio.get_running_loop()
        handshake_s = None if tls is None else self.limits.tls_handshake_ms / 1e3
        context = None if tls is None else tls.context
        if sock is None:
            sock = listener.bind(host or "127.0.0.1", port or 0, reuse_port=reuse_port)
        server = await loop.create_server(
            lambda: _Connection(self),
            sock=sock,
            backlog=listener.BACKLOG,
            ssl=context,
            ssl_handshake_timeout=handshake_s,
        )
        self._servers.append(server)
        if tls is not None:
            self._tls = tls
            self._watch_certificate()
        return int(server.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        """Refuse new connections from now on; open ones, media above all, go on (drain)."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._tls_timer is not None:
            self._tls_timer.cancel()

    async def close(self) -> None:
        """Stop listening and drop the connections that were not handed over. Media ends by its calls, HTTP by
        `HttpAdapter.stop`."""
        self.stop_listening()
        for connection in tuple(self._waiting):
            connection.drop()
        for task in tuple(self._admissions):
            task.cancel()
        if self._admissions:
            await asyncio.wait(self._admissions, timeout=1.0)

    @property
    def waiting_connections(self) -> int:
        """Connections that have not sent their head yet, or are being admitted or refused."""
        return len(self._waiting)

    def _refused(self, reason: str) -> None:
        if self._metrics is not None:
            self._metrics.observe_refused(reason)

    def _watch_certificate(self) -> None:
        if self._tls is not None:
            self._tls.reload_if_changed()
            if self._metrics is not None:
                self._metrics.tls_cert_expiry.set(self._tls.expires_at_s)
            self._tls_timer = asyncio.get_running_loop().call_later(_TLS_CHECK_S, self._watch_certificate)


class _Connection(asyncio.Protocol):
    """A connection nobody owns yet. `_timer` bounds each of its states: reading, being admitted, being refused."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer_key: str | None = None
        self._has_place = False
        self._data: bytearray | None = bytearray()
        self._discard_bytes = _DISCARD_BYTES
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        door = self._door
        peer = transport.get_extra_info("peername")
        self._peer_key = door._peers.key(peer[0]) if isinstance(peer, tuple) else None
        reason = door._peers.enter(self._peer_key, self._loop.time())
        if reason is not None:
            # No answer: whoever floods us would make us write as often as it connects.
            door._refused(reason)
            transport.abort()
            return
        self._has_place = True
        door._waiting.add(self)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect(door.limits.head_ms, self._head_late)

    def data_received(self, data: bytes) -> None:
        if not self._has_place:
            return
        if self._data is None:
            # Refused or being admitted: a paused transport may still deliver what it had read.
            self._discard_bytes -= len(data)
            if self._discard_bytes < 0:
                self.drop()
            return
        self._data += data
        try:
            head = parse_head(self._data, self._door.limits.head_bytes)
            if head is not None:
                self._route(head)
        except HeadRefused as refused:
            self._answer(refused.status, refused.reason)

    def eof_received(self) -> bool:
        # Before the head is complete nobody can be answered; HTTP's half-close is HttpAdapter's.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._door._waiting.discard(self)
        self._data = None
        self._leave()
        self._transport = None

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- inside

    def _route(self, head: RequestHead) -> None:
        assert self._transport is not None and self._data is not None
        self._transport.pause_reading()
        if not head.is_media:
            transport, data = self._hand_over()
            self._door._http.take_over(transport, data, self._leave)
            return
        key = websocket_key(head)
        early_bytes = bytes(self._data[head.size_bytes :])
        self._data = None
        self._stop_timer()
        # Documented place: one task per admission, kept in the set, bounded by admit_ms.
        task = self._loop.create_task(self._admit(head, key, early_bytes), name="media-admission")
        self._door._admissions.add(task)
        task.add_done_callback(self._admission_done)

    async def _admit(self, head: RequestHead, key: str, early_bytes: bytes) -> None:
        try:
            async with asyncio.timeout(self._door.limits.admit_ms / 1e3):
                verdict = await self._door._media.admit(head.target, head.headers)
        except TimeoutError:
            self._answer(503, "admit_late")
            return
        if isinstance(verdict, int):
            self._answer(verdict, "not_admitted")
        elif self._transport is not None and not self._transport.is_closing():
            transport, _ = self._hand_over()
            self._leave()
            self._door._upgrade.take_over(transport, head.target, key, verdict, early_bytes)

    def _admission_done(self, task: asyncio.Task[None]) -> None:
        self._door._admissions.discard(task)
        if task.cancelled():
            self.drop()
        elif (error := task.exception()) is not None:
            _LOG.error("media admission failed: %r", error, exc_info=error)
            self._answer(503, "admit_failed")

    def _answer(self, status: int, reason: str) -> None:
        """Send a plain answer, then let the peer read it for a while: closing on unread bytes would reset it away."""
        self._door._refused(reason)
        self._data = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        phrase = HTTPStatus(status).phrase
        body = f'{{"type":"about:blank","title":"{phrase}","status":{status}}}'
        version = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n" if status == 426 else ""
        transport.write(
            f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n{version}Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode("ascii")
        )
        if not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
            transport.resume_reading()
        self._expect(self._door.limits.answer_linger_ms, self.drop)

    def _hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """Stop being responsible. The place among the un-upgraded is still taken."""
        assert self._transport is not None
        self._stop_timer()
        self._door._waiting.discard(self)
        transport, data = self._transport, bytes(self._data or b"")
        self._transport = self._data = None
        return transport, data

    def _leave(self) -> None:
        if self._has_place:
            self._has_place = False
            self._door._peers.leave(self._peer_key)

    def _head_late(self) -> None:
        if self._data:
            self._answer(408, "head_late")
        else:
            # Nothing was ever said: nothing to answer.
            self._door._refused("head_late")
            self.drop()

    def _expect(self, delay_ms: int, late: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(delay_ms / 1e3, late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
