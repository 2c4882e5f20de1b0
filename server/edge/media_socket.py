"""One media WebSocket: picows underneath, bounds and a small interface above. The only file that knows picows.

    FrontDoor ── MediaUpgrade.take_over(transport) ──> MediaProtocol (picows) ──> MediaSocket ──> MediaHandler (a call)

Guarantees, for any peer: a message is at most `message_bytes`, whole or in fragments; the receive buffer at most
about 200 KiB; frames of any kind at most `frames_per_s`; what waits to be sent at most `buffered_bytes`, pongs
included; no extension is ever negotiated. Who breaks a bound gets a close code (1002, 1008, 1009), is not read from
again, and is cut off after `close_linger_ms`. Leaves to others: what a message means (server/wire, UTF-8 too), idle
detection and the size of the send queue (the session).

picows 2.3.1 is pinned because of internals: the constructor of `WSProtocol`, that `get_buffer` can be overridden,
and that it reports protocol errors to `logger.error` before it closes (tests/edge/test_media_socket.py holds it).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from picows import WSAutoPingStrategy, WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]

_LOG = logging.getLogger("talkspurt.media")

# A read takes at most this much, so that picows' buffer, which doubles whenever a read fills it, stays small.
READ_BYTES = 16_384
# picows' buffer at the start: ten Twilio messages; a burst of 2 s makes it grow once to about 30 KiB.
_READ_BUFFER_BYTES = 4_096

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_PING, _PONG, _CLOSE = WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE

# RFC 6455, 7.4.1: never sent, only reported.
CLOSED_WITHOUT_CODE = 1005
CLOSED_ABNORMALLY = 1006


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    message_bytes: int = 65_536
    """A Twilio media message is 300 B; 64 KiB is beyond any honest one."""
    frames_per_s: int = 1_000
    """20 times the rate of a carrier. A burst after a 10 s stall is 500."""
    buffered_bytes: int = 262_144
    """Last resort behind the session's own queue bound (400 ms of audio): beyond it the peer is lost."""
    writable_bytes: int = 16_384
    """`on_writable(False)` above this: 400 ms of the browser's PCM, more than a second of PCMU."""
    send_buffer_bytes: int = 32_768
    """SO_SNDBUF. The kernel's default takes megabytes: minutes of audio that `clear` could not reach."""
    user_timeout_ms: int = 5_000
    """TCP_USER_TIMEOUT: a peer that acknowledges nothing for this long is gone."""
    close_linger_ms: int = 250
    """Time for the close code to arrive before the connection is reset."""
    close_ms: int = 1_000
    """Longest wait for the answer to our close."""


OnMessage = Callable[[bytes, bool], None]
"""One whole message, and whether it is text. See `MediaHandler.on_message`."""


class MediaHandler(Protocol):
    """What a call gives to its socket. All are called on the event loop; none may block."""

    def on_message(self, data: bytes, is_text: bool) -> None:
        """One whole message, never longer than the limit. An exception closes this socket with 1011, no other."""

    def on_closed(self, code: int) -> None:
        """Exactly once, last. `code`: the closing side's, 1005 when it gave none, 1006 when the line just broke."""

    def on_writable(self, writable: bool) -> None:
        """False: the socket's buffer is over the mark; True: it has drained."""


class MediaSocket(WSListener):
    """The call's end of a media WebSocket. Thread: the event loop's only."""

    __slots__ = (
        "_budget",
        "_budget_from_s",
        "_close_code",
        "_handler",
        "_limits",
        "_loop",
        "_on_message",
        "_open",
        "_open_handler",
        "_partial",
        "_partial_is_text",
        "_peer_done",
        "_raw",
        "_timer",
        "_ws",
        "path",
    )

    def __init__(self, path: str, open_handler: Callable[[MediaSocket], MediaHandler], limits: MediaLimits) -> None:
        super().__init__()
        self.path = path
        self._open_handler = open_handler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._handler: MediaHandler | None = None
        self._on_message: OnMessage | None = None
        self._ws: WSTransport | None = None
        self._raw: Any = None
        self._open = False
        self._peer_done = False
        self._close_code = CLOSED_ABNORMALLY
        self._timer: asyncio.TimerHandle | None = None
        self._partial: bytearray | None = None
        self._partial_is_text = False
        self._budget = limits.frames_per_s
        self._budget_from_s = self._loop.time()

    # -- for the call

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def buffered_bytes(self) -> int:
        """Bytes handed over that the kernel has not taken; 0 when closed."""
        return self._raw.get_write_buffer_size() if self._open else 0

    def send_text(self, data: bytes) -> bool:
        """Send one text message (UTF-8). False: the socket is closed or was just found lost; nothing is kept."""
        return self._send(_TEXT, data)

    def send_binary(self, data: bytes) -> bool:
        return self._send(_BINARY, data)

    def deliver_to(self, on_message: OnMessage) -> None:
        """Messages go there from now on, past the handler's own `on_message`."""
        if self._handler is not None:
            self._on_message = on_message

    def close(self, code: int = 1000) -> None:
        """Say goodbye, and cut the line when the peer has not answered within `close_ms`."""
        if self._open:
            self._open = False
            self._close_code = code
            self._say_close(code)
            self._abort_after(self._limits.close_ms)

    def abort(self) -> None:
        """Reset the connection now; what was buffered is dropped. `on_closed` follows."""
        self._open = False
        if self._raw is not None:
            self._raw.abort()

    # -- for picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._ws, self._raw = transport, transport.underlying_transport
        self._raw.set_write_buffer_limits(high=self._limits.writable_bytes)
        self._open = True
        self._handler = self._open_handler(self)
        self._on_message = self._handler.on_message

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if not self._open:
            if kind is _CLOSE:
                self._on_close(frame)
            return
        self._budget -= 1
        if self._budget < 0 and not self._refill():
            return self.fail(1008)
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            # Nothing was negotiated that could set them: a compressed frame ends here, unopened.
            return self.fail(1002)
        if kind is _TEXT or kind is _BINARY:
            if self._partial is not None:
                return self.fail(1002)
            if frame.fin:
                # Called from here and not from a function of its own: each shows in what a call costs.
                if self._on_message is not None:
                    self._on_message(frame.get_payload_as_bytes(), kind is _TEXT)
                return None
            self._partial = bytearray(frame.get_payload_as_memoryview())
            self._partial_is_text = kind is _TEXT
        elif kind is _CONTINUATION:
            self._on_continuation(frame)
        elif kind is _PING:
            self._on_ping(frame)
        elif kind is _CLOSE:
            self._on_close(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        handler, self._handler = self._handler, None
        # The chain socket -> transport -> protocol -> socket would wait for the garbage collector.
        self._ws = self._raw = self._timer = self._partial = self._on_message = None
        if handler is not None:
            handler.on_closed(self._close_code)

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.on_writable(False)

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.on_writable(True)

    def fail(self, code: int) -> None:
        """The peer (or our handler) broke the rules: tell it, stop reading, cut the line soon."""
        if self._peer_done or self._raw is None:
            return
        self._open, self._peer_done, self._partial = False, True, None
        self._close_code = code
        self._say_close(code)
        if not self._raw.is_closing():
            self._raw.pause_reading()
        self._abort_after(self._limits.close_linger_ms)

    # -- inside

    def _send(self, kind: WSMsgType, data: bytes) -> bool:
        # Also a matter of safety: between abort() and the loss of the connection picows would still write to the
        # file descriptor, which may by then belong to another socket.
        if not self._open or self._ws is None:
            return False
        self._ws.send(kind, data)
        if self._raw.get_write_buffer_size() > self._limits.buffered_bytes:
            self.abort()
            return False
        return True

    def _on_continuation(self, frame: WSFrame) -> None:
        partial = self._partial
        if partial is None:
            return self.fail(1002)
        if len(partial) + frame.payload_size > self._limits.message_bytes:
            return self.fail(1009)
        partial += frame.get_payload_as_memoryview()
        if frame.fin:
            self._partial = None
            if self._on_message is not None:
                self._on_message(bytes(partial), self._partial_is_text)

    def _on_ping(self, frame: WSFrame) -> None:
        # RFC 6455, 5.5.3 lets us answer the most recent ping only: a peer that does not read gets no queue of pongs.
        if self._ws is not None and self.buffered_bytes <= self._limits.writable_bytes:
            self._ws.send_pong(frame.get_payload_as_bytes())

    def _on_close(self, frame: WSFrame) -> None:
        if self._peer_done or self._ws is None:
            return
        self._peer_done = True
        if self._open:
            self._open = False
            payload = frame.get_payload_as_bytes()
            self._close_code = int.from_bytes(payload[:2]) if len(payload) >= 2 else CLOSED_WITHOUT_CODE
            self._say_close(1000 if self._close_code == CLOSED_WITHOUT_CODE else self._close_code)
        self._ws.disconnect()
        self._abort_after(self._limits.close_ms)

    def _refill(self) -> bool:
        now_s = self._loop.time()
        if now_s - self._budget_from_s < 1.0:
            return False
        self._budget = self._limits.frames_per_s - 1
        self._budget_from_s = now_s
        return True

    def _say_close(self, code: int) -> None:
        if self._ws is not None:
            self._ws.send_close(code, None)  # type: ignore[arg-type]

    def _abort_after(self, delay_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_ms / 1e3, self.abort)


class MediaUpgrade:
    """Turns an accepted connection into a `MediaSocket`."""

    __slots__ = ("_limits", "_on_count")

    def __init__(self, limits: MediaLimits, on_count: Callable[[int], None] | None = None) -> None:
        """`on_count` gets +1 for each media connection that opens and -1 when it is gone."""
        self._limits = limits
        self._on_count = on_count

    def take_over(
        self,
        transport: asyncio.Transport,
        path: str,
        websocket_key: str,
        open_handler: Callable[[MediaSocket], MediaHandler],
        early_bytes: bytes,
    ) -> None:
        """Answer 101 and hand the transport to picows; it must be paused, and is resumed.

        Args:
            path: request target, for the handler.
            websocket_key: a valid Sec-WebSocket-Key (base64 of 16 bytes).
            early_bytes: what came after the request head.
        """
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.send_buffer_bytes)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._limits.user_timeout_ms)
        listener = MediaSocket(path, open_handler, self._limits)
        protocol = MediaProtocol(listener, self._limits, self._on_count)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        # The head as picows likes it: it refuses "Connection: keep-alive, Upgrade", which Firefox sends.
        head = (
            "GET /media HTTP/1.1\r\nHost: media\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {websocket_key}\r\n\r\n"
        )
        protocol.feed(head.encode("ascii") + early_bytes)
        transport.resume_reading()


class MediaProtocol(WSProtocol):  # type: ignore[misc]
    """picows' protocol with a bound on each read, and with its error reports turned into an immediate stop."""

    def __init__(self, listener: MediaSocket, limits: MediaLimits, on_count: Callable[[int], None] | None) -> None:
        super().__init__(
            None,
            None,
            False,
            lambda request: listener,
            _ErrorTap(listener),
            True,  # disconnect on an exception of the handler
            None,  # the front door has its own deadline for the handshake
            False,
            1,
            1,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pongs are ours to bound
            limits.message_bytes,
            None,
            _READ_BUFFER_BYTES,
        )
        self._on_count = on_count

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if self._on_count is not None:
            self._on_count(1)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._on_count is not None:
            self._on_count(-1)

    def get_buffer(self, size_hint: int) -> memoryview:
        # Costs 0.2 us of a read's 9; without it a flood of small frames makes the buffer grow to whatever one recv
        # can return, several MiB for each socket.
        buffer: memoryview = WSProtocol.get_buffer(self, size_hint)
        return buffer if len(buffer) <= READ_BYTES else buffer[:READ_BYTES]

    def feed(self, data: bytes) -> None:
        """Process bytes that were read before this protocol had the transport."""
        view = memoryview(data)
        while view:
            buffer = self.get_buffer(len(view))
            taken = min(len(buffer), len(view))
            buffer[:taken] = view[:taken]
            self.buffer_updated(taken)
            view = view[taken:]


class _ErrorTap:
    """Stands in for picows' logger. Errors come here before picows closes (10 ms later, reading on meanwhile)."""

    __slots__ = ("_listener",)

    def __init__(self, listener: MediaSocket) -> None:
        self._listener = listener

    def isEnabledFor(self, level: int) -> bool:
        return False

    def debug(self, message: str, *args: object) -> None: ...

    info = log = debug

    def warning(self, message: str, *args: object) -> None:
        _LOG.warning(message, *args)

    def error(self, message: str, *args: object) -> None:
        """Parser errors carry `(code, reason)`; the others are exceptions of the handler."""
        if args and isinstance(args[0], tuple):
            _LOG.info("media socket refused: %s", args[0])
            self._listener.fail(_code(args[0][0]))
        else:
            self.exception(message, *args)

    def exception(self, message: str, *args: object) -> None:
        _LOG.error("media socket: " + message, *args, exc_info=True)
        self._listener.fail(_code(WSCloseCode.INTERNAL_ERROR))


def _code(code: Any) -> int:
    """picows' enum, or the bare number it gives for codes that the enum lacks."""
    return int(getattr(code, "value", code))
