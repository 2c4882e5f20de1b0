"""What the simulated carriers share: calls and their streams, the tick, webhooks on their way, sockets to the server.

One tick serves the streams of all calls on absolute deadlines. Addresses are the public https and wss ones, while the
bytes go to the local port, as they would behind a TLS proxy.
"""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from picows import ws_connect

from bench.sim.arrival import Arrivals, Weather
from bench.sim.fault import FaultPlan
from bench.sim.party import Party
from bench.sim.playout import CHUNK_MS, LEAD_MS
from bench.sim.rest import JsonServer
from bench.sim.sound import FRAME_NS
from bench.sim.tasks import Tasks
from bench.sim.ticker import Ticker
from bench.sim.twilio_stream import MediaStream

WEBHOOK_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Complaint:
    """An entry of the carrier's debugger; `code` is the carrier's own number."""

    code: int
    call_sid: str
    text: str


@dataclass(slots=True)
class PhoneCall:
    """One phone call. `ended_by`: caller, rest, twiml, rejected or failed."""

    sid: str
    from_: str
    to: str
    status: str = "queued"
    ended_by: str = ""
    streams: list[MediaStream] = field(default_factory=list)
    started_ns: int = 0
    answered_ns: int = 0
    ended_ns: int = 0

    @property
    def is_over(self) -> bool:
        return self.status in ("completed", "busy", "failed", "no-answer", "canceled")


C = TypeVar("C", bound=PhoneCall)
Order = TypeVar("Order")


class Switchboard(ABC, Generic[C]):
    """A carrier's account with a number that points at our server.

    Args:
        public_url: what the carrier has configured (`https://…`, no path).
        local_url: where the bytes go (`http://127.0.0.1:port`).
        rest: the carrier's API, served while the switchboard is open, at `rest_url`.
        slots: the tick is spread over so many phases of the 20 ms, so that callers do not all speak at one instant.
        weather: how late messages reach the server; None: at once.
    """

    def __init__(
        self,
        *,
        public_url: str,
        local_url: str,
        rest: JsonServer,
        lead_ms: int = LEAD_MS,
        chunk_ms: int = CHUNK_MS,
        slots: int = 10,
        weather: Weather | None = None,
    ) -> None:
        self.public_url = public_url.rstrip("/")
        self.local_url = local_url.rstrip("/")
        self.debugger: list[Complaint] = []
        self.calls: dict[str, C] = {}
        self.rest_url = ""
        self.callbacks_failed = 0
        self.arrivals = Arrivals(weather) if weather else None
        self.ticker = Ticker(FRAME_NS, slots, self.arrivals.deliver_due if self.arrivals else None)
        self._server = rest
        self._delivering: set[asyncio.Task[None]] = set()
        self._pacing = (lead_ms, chunk_ms)
        self._http: httpx.AsyncClient
        self._tasks: Tasks

    @property
    @abstractmethod
    def server_env(self) -> Mapping[str, str]:
        """The variables that let our server serve this carrier."""

    @abstractmethod
    async def call(
        self, party: Party, *, from_: str, to: str, faults: FaultPlan | None = None, record: bool = False
    ) -> C:
        """Place one inbound call and stay with it until it is over. Never raises for what the server does."""

    @abstractmethod
    def end_call(self, sid: str) -> None:
        """Cut a call off, as the server may by REST."""

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(WEBHOOK_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )
        self._tasks = Tasks()
        await self._tasks.__aenter__()
        self.rest_url = await self._server.start()
        self.ticker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ticker.stop()
        for call in self.calls.values():
            for stream in call.streams:
                stream.abort()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._server.close()
            await self._http.aclose()

    async def _connect(self, stream: MediaStream, url: str, headers: Mapping[str, str]) -> None:
        """Open a wss address at the local port. Raises TimeoutError, OSError, WSError."""
        await ws_connect(
            lambda: stream,
            "ws" + url.removeprefix("wss"),
            extra_headers={**headers, "x-forwarded-proto": "https", "accept-encoding": "gzip"},
            websocket_handshake_timeout=CONNECT_TIMEOUT_S,
            max_redirects=0,
            socket_factory=lambda _url: self._socket(),
            use_aiofastnet=False,
        )

    async def _socket(self) -> socket.socket:
        parts = urlsplit(self.local_url)
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            address = (parts.hostname or "127.0.0.1", parts.port or 80)
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(one, address), CONNECT_TIMEOUT_S)
        except BaseException:
            one.close()
            raise
        return one

    async def _live(self, stream: MediaStream, commands: asyncio.Queue[Order]) -> Order | None:
        """Carry an open stream until somebody ends it. Returns the command that did, None: the caller or the server."""
        self.ticker.add(stream, stream.facts.opened_ns)
        command = asyncio.ensure_future(commands.get())
        try:
            ends: set[asyncio.Future[Any]] = {command, stream.closed, stream.hung_up}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if command.done() or stream.hung_up.done():
                stream.stop()
                await self._wait_closed(stream)
        finally:
            self.ticker.remove(stream)
            stream.abort()
            if not command.done():
                command.cancel()
        return command.result() if command.done() and not command.cancelled() else None

    async def _wait_closed(self, stream: MediaStream) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await stream.closed
        except TimeoutError:
            stream.abort()

    async def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """POST to a public URL, delivered to the local port."""
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        given = {**headers, "Host": parts.netloc, "X-Forwarded-Proto": "https"}
        return await self._http.post(f"{self.local_url}{parts.path}{query}", content=content, headers=given)

    def _deliver_soon(self, delivery: Coroutine[Any, Any, httpx.Response]) -> None:
        task = self._tasks.create_task(self._deliver(delivery))
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)

    async def wait_delivered(self, seconds: float) -> bool:
        """Wait until no callback is on its way: before the server stops. False when the time is over before."""
        if self._delivering:
            await asyncio.wait(set(self._delivering), timeout=seconds)
        return not self._delivering

    async def _deliver(self, delivery: Coroutine[Any, Any, httpx.Response]) -> None:
        try:
            response = await delivery
        except httpx.HTTPError:
            self.callbacks_failed += 1
            return
        if response.status_code >= 300:
            self.callbacks_failed += 1

    def _warn(self, call: C, code: int, text: str) -> None:
        self.debugger.append(Complaint(code, call.sid, text))

    def _answer(self, call: C) -> None:
        if call.answered_ns == 0:
            call.answered_ns = time.monotonic_ns()
            call.status = "in-progress"
