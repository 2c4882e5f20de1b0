"""From an open media socket to a running call: nothing is done for a stranger.

The stream's first messages are parsed until `start`; its single-use secret is redeemed; the call that the secret
stands for must be the one that `start` names. Only then are providers touched. What arrives meanwhile waits in a
bounded backlog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from server.call.services import CallFacts
from server.call.session import CallSession
from server.errors import RemoteWireError
from server.logs import bind_call
from server.wire.event import Ignored, StreamConnected, StreamStarted, Wire

log = logging.getLogger(__name__)

# The carrier sends `start` right after the upgrade; a stranger has no reason to hurry.
START_MS = 5000
# What a carrier sends up to `start`; of more, the first are remembered.
MAX_OPENING = 8
# Two seconds of audio while the secret is redeemed.
MAX_BACKLOG = 100

CLOSE_POLICY = 1008
CLOSE_INTERNAL = 1011


class Socket(Protocol):
    """The media socket as the call sees it."""

    @property
    def buffered_bytes(self) -> int: ...

    def send_text(self, data: bytes) -> bool: ...

    def send_binary(self, data: bytes) -> bool: ...

    def deliver_to(self, on_message: Callable[[bytes, bool], None]) -> None:
        """Messages go there from now on, not to `StreamEntry.on_message`."""

    def close(self, code: int = 1000) -> None: ...

    def abort(self) -> None: ...


class Sink:
    """Sends what the downlink makes: text for carriers; for the browser audio is binary, the rest text."""

    __slots__ = ("_binary_audio", "_socket")

    def __init__(self, socket: Socket, *, binary_audio: bool) -> None:
        self._socket = socket
        self._binary_audio = binary_audio

    @property
    def buffered_bytes(self) -> int:
        return self._socket.buffered_bytes

    def send_media(self, message: bytes) -> None:
        if self._binary_audio:
            self._socket.send_binary(message)
        else:
            self._socket.send_text(message)

    def send_control(self, message: bytes) -> None:
        self._socket.send_text(message)


Redeem = Callable[[str], Awaitable[Mapping[str, Any] | None]]
MakeSession = Callable[[CallFacts, StreamStarted, Wire, Sink, Callable[[int], None]], CallSession]


class StreamEntry:
    """Handler of one media socket, from its first message to its last."""

    __slots__ = (
        "_backlog",
        "_closed_code",
        "_make_session",
        "_opening",
        "_redeem",
        "_secret",
        "_session",
        "_socket",
        "_started",
        "_wire",
        "end_reason",
        "facts",
        "id",
    )

    def __init__(
        self,
        stream_id: str,
        wire: Wire,
        socket: Socket,
        *,
        redeem: Redeem,
        make_session: MakeSession,
        secret: str = "",
    ) -> None:
        """`secret`: from the path of a carrier whose `start` cannot carry it."""
        self.id = stream_id
        self.facts: CallFacts | None = None
        """Whose stream it is, as soon as its secret was taken."""
        self.end_reason = ""
        """Why no call came of it."""
        self._wire = wire
        self._socket = socket
        self._redeem = redeem
        self._secret = secret
        self._make_session = make_session
        self._session: CallSession | None = None
        self._opening: list[bytes] = []
        self._backlog: list[tuple[bytes, bool]] = []
        self._started: asyncio.Future[StreamStarted] = asyncio.get_running_loop().create_future()
        self._closed_code = 0

    @property
    def session(self) -> CallSession | None:
        return self._session

    def close(self, code: int) -> None:
        """Close the socket; nothing happens when it is closed already."""
        self._socket.close(code)

    async def run(self) -> CallSession | None:
        """Let the stream in and run its call. Returns the session when there was one."""
        try:
            async with asyncio.timeout(START_MS / 1000):
                started = await self._started
        except TimeoutError:
            log.warning("stream %s sent no start within %d ms", self.id, START_MS, extra={"event": "refused_stream"})
            self.end_reason = "no_media"
            self._socket.close(CLOSE_POLICY)
            return None
        except RemoteWireError as error:
            log.warning("stream %s refused: %s", self.id, error, extra={"event": "refused_stream"})
            self.end_reason = "no_media" if self._closed_code else "refused"
            self._socket.close(error.close_code)
            return None
        claim = await self._redeem(self._secret or started.parameters.get("secret", ""))
        if claim is None or self._closed_code:
            log.warning("stream %s: secret refused", self.id, extra={"event": "refused_stream"})
            self.end_reason = "no_media" if self._closed_code else "refused"
            self._socket.close(CLOSE_POLICY)
            return None
        self.facts = facts = CallFacts(**{name: str(claim[name]) for name in CallFacts.__slots__})
        if facts.carrier != "browser" and facts.carrier_call_id != started.call_id:
            log.warning("stream %s: secret of another call", self.id, extra={"event": "refused_stream"})
            self.end_reason = "refused"
            self._socket.close(CLOSE_POLICY)
            return None
        with bind_call(facts.call_id):
            sink = Sink(self._socket, binary_audio=facts.carrier == "browser")
            session = self._make_session(facts, started, self._wire, sink, self._socket.close)
            backlog, self._backlog = self._backlog, []
            self._session = session
            self._socket.deliver_to(session.on_message)
            await session.run(backlog, self._opening)
            self._socket.close(1000)
            return session

    # ── from the socket ───────────────────────────────────────────────────────────────────────────────────────

    def on_message(self, data: bytes, is_text: bool) -> None:
        if self._session is not None:
            self._session.on_message(data, is_text)
        elif not self._started.done():
            self._before_start(data, is_text)
        elif len(self._backlog) < MAX_BACKLOG:
            self._backlog.append((data, is_text))

    def on_closed(self, code: int) -> None:
        self._closed_code = code
        if self._session is not None:
            self._session.end("media_lost")
        elif not self._started.done():
            self._started.set_exception(RemoteWireError(f"closed with {code} before start"))

    def on_writable(self, writable: bool) -> None:
        """The downlink looks at `buffered_bytes` before each chunk; there is nothing to do at the edge."""

    def _before_start(self, data: bytes, is_text: bool) -> None:
        try:
            if not is_text:
                raise RemoteWireError("audio before start", 1003)
            event = self._wire.receive(data)
        except RemoteWireError as error:
            self._started.set_exception(error)
            return
        if len(self._opening) < MAX_OPENING:
            self._opening.append(data)
        if isinstance(event, StreamStarted):
            self._started.set_result(event)
        elif not isinstance(event, StreamConnected | Ignored):
            self._started.set_exception(RemoteWireError(f"{type(event).__name__} before start"))
