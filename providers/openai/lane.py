"""Connections that are ready before they are needed, under the HTTP clients of the vendors' SDKs.

    SDK → http client → LaneTransport ─┬─ lane: one HTTP/1.1 connection, in use
                                       ├─ lane: idle and warm
                                       └─ lane: being warmed in the background by a GET

An answer that is cancelled costs its connection (HTTP/1.1 has no other way), and a handshake with TLS takes two or
three round trips; so the next request takes a warm lane while a new one is made. Each lane is a pool of one connection
of the client's own library, so one can be warmed without touching the others. `http` is httpx (Groq's SDK) or httpx2
(OpenAI's): the two have the same names.

Guarantees: spares, requests at a time and the bytes of an answer are bounded; a request that fails on a connection
which had idled, before any answer, is sent once more on a fresh one; idle connections are closed when their time is
over; no task is left after `aclose`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from functools import cache
from typing import Any

import httpx
import httpx2

from providers.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from providers.openai.options import LinkOptions

log = logging.getLogger(__name__)

TICK_S = 5.0
STALE_AFTER_S = 0.2  # a younger idle connection that fails was not forgotten by anybody: the service is in trouble
FIRST_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0

_warming: ContextVar[_Lane | None] = ContextVar("warming", default=None)


@cache
def tls_context() -> ssl.SSLContext:
    """One for all: it takes 20 ms and a megabyte to read the authorities."""
    return httpx.create_ssl_context()


class _Lane:
    """`idle_since_s` is None while its connection is in use, missing or not trusted."""

    __slots__ = ("idle_since_s", "network", "transport")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.idle_since_s: float | None = None
        self.network: Any = None

    def is_alive(self) -> bool:
        """Nothing is to be read from an idle connection but its end."""
        return self.network is not None and not self.network.get_extra_info("is_readable")


class LaneTransport:
    """An `AsyncBaseTransport` for httpx and httpx2.

    Args:
        http: the module whose client uses it.
        max_bytes: of one answer, as they come over the wire.
        warm: sends one small request by the client that uses this transport; it may raise ProviderError.
    """

    def __init__(
        self, http: Any, options: LinkOptions, *, tls: bool, max_bytes: int, warm: Callable[[], Awaitable[None]]
    ) -> None:
        self._http = http
        self._options = options
        self._tls = tls
        self._max_bytes = max_bytes
        self._warm = warm
        self._idle: list[_Lane] = []  # the most recently used last
        self._busy: set[_Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._attached = 0
        self._backoff_s = 0.0
        self._not_before_s = 0.0
        self._closed = False
        self.opened = 0
        """Handshakes paid, by requests or in the background."""
        self.stale = 0
        """Requests repeated because their idle connection had died."""

    # ── the client's side ─────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> LaneTransport:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def handle_async_request(self, request: Any) -> Any:
        lane = _warming.get()
        is_warming = lane is not None
        if lane is None:
            lane = self._take()
        now_s = asyncio.get_running_loop().time()
        idle_s = now_s - lane.idle_since_s if lane.idle_since_s is not None else None
        try:
            return await self._send(lane, request)
        except (self._http.NetworkError, self._http.RemoteProtocolError):
            if is_warming or idle_s is None or idle_s < STALE_AFTER_S or self._closed:
                raise
        self.stale += 1
        return await self._send(self._take(fresh=True), request)

    async def aclose(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for lane in (*self._idle, *self._busy):
            await lane.transport.aclose()
        self._idle.clear()
        self._busy.clear()

    # ── the adapter's side ────────────────────────────────────────────────────────────────────────────────────

    def attach_nowait(self) -> None:
        self._attached += 1
        self._tend()

    def detach_nowait(self) -> None:
        self._attached = max(0, self._attached - 1)
        self._tend()

    @property
    def warm(self) -> int:
        """Connections that are open and idle."""
        return sum(lane.idle_since_s is not None and lane.is_alive() for lane in self._idle)

    # ── lanes ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _send(self, lane: _Lane, request: Any) -> Any:
        if lane.idle_since_s is None:
            self.opened += 1
        lane.idle_since_s = None
        response = None
        try:
            response = await lane.transport.handle_async_request(request)
        finally:
            if response is None:
                self._give_back(lane, reusable=False)
        lane.network = response.extensions.get("network_stream")
        reusable = response.headers.get("connection", "").lower() != "close"
        body = _Body(response.stream, self._max_bytes, lambda whole: self._give_back(lane, reusable=whole and reusable))
        response.stream = body
        if response.headers.get("content-encoding", "identity") != "identity":
            await body.aclose()
            raise ProviderProtocolError("expected an answer that is not compressed")
        return response

    def _take(self, *, fresh: bool = False) -> _Lane:
        """The warmest idle lane, else one without a connection."""
        if len(self._busy) >= self._options.max_requests or self._closed:
            raise ProviderUnavailable(f"{len(self._busy)} requests at once" if not self._closed else "closed")
        at = len(self._idle) - 1
        while at >= 0:
            lane = self._idle[at]
            if not fresh and lane.idle_since_s is not None and lane.is_alive():
                break
            at -= 1
        if at < 0:
            at = next((at for at, lane in enumerate(self._idle) if lane.idle_since_s is None), -1)
        lane = self._idle.pop(at) if at >= 0 else self._make()
        self._busy.add(lane)
        return lane

    def _make(self) -> _Lane:
        options = self._options
        limits = self._http.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=options.keep_alive_ms / 1000
        )
        return _Lane(
            self._http.AsyncHTTPTransport(
                verify=tls_context() if self._tls else False,
                limits=limits,
                trust_env=False,
                proxy=options.proxy or None,
            )
        )

    def _give_back(self, lane: _Lane, *, reusable: bool) -> None:
        self._busy.discard(lane)
        if self._closed:
            return
        if reusable:
            lane.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(lane)
        else:
            lane.idle_since_s = lane.network = None
            self._idle.insert(0, lane)
        self._tend()

    def _tend(self) -> None:
        """Close what is too old or too much, warm what is missing. Runs when something changed, and by the clock."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        oldest_s = now_s - self._options.keep_alive_ms / 1000
        cold = 0
        for lane in list(self._idle):
            if lane.idle_since_s is None:
                cold += 1
                if cold > self._options.spares:
                    self._idle.remove(lane)
            elif lane.idle_since_s < oldest_s or not lane.is_alive():
                self._idle.remove(lane)
                self._run(lane.transport.aclose())
        wanted = min(self._attached, self._options.spares)
        fresh_s = now_s - self._options.refresh_ms / 1000
        ready = sum(lane.idle_since_s is not None and lane.idle_since_s > fresh_s for lane in self._idle)
        if now_s >= self._not_before_s:
            for _ in range(wanted - ready - sum(task.get_name() == "warm" for task in self._tasks)):
                self._run(self._warm_one(), name="warm")
        if self._timer is None and (self._attached or self._idle):
            self._timer = loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._tend()

    def _run(self, work: Any, *, name: str = "close") -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.get_name() == "warm":
            self._tend()  # what was missing while it ran

    async def _warm_one(self) -> None:
        """Use a lane once: the one that has been idle for longest, else one without a connection."""
        fresh_s = asyncio.get_running_loop().time() - self._options.refresh_ms / 1000
        old = [lane for lane in self._idle if lane.idle_since_s is None or lane.idle_since_s <= fresh_s]
        lane = max(old, key=lambda one: one.idle_since_s or 0.0, default=None)
        if lane is None:
            lane = self._make()
        else:
            self._idle.remove(lane)
        self._busy.add(lane)
        _warming.set(lane)
        loop = asyncio.get_running_loop()
        try:
            await self._warm()
        except ProviderError as error:
            log.debug("no spare connection: %s", error)
        if lane.network is not None and lane in self._idle:
            self._backoff_s = self._not_before_s = 0.0
        else:
            self._backoff_s = min(max(FIRST_BACKOFF_S, 2 * self._backoff_s), MAX_BACKOFF_S)
            self._not_before_s = loop.time() + self._backoff_s


class _Body(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """An answer's bytes, counted. `done` hears once whether all of them were read."""

    def __init__(self, inner: Any, max_bytes: int, done: Callable[[bool], None]) -> None:
        self._inner = inner
        self._parts: AsyncIterator[bytes] | None = None
        self._left = max_bytes
        self._done: Callable[[bool], None] | None = done
        self._is_whole = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._parts is None:
            self._parts = aiter(self._inner)
        is_alive = False
        try:
            part = await anext(self._parts)
            is_alive = True
        except StopAsyncIteration:
            is_alive = self._is_whole = True
            raise
        finally:
            if not is_alive:
                # The connection is closed already; whoever reads an error's body does not close what fails.
                self._finish()
        self._left -= len(part)
        if self._left < 0:
            await self.aclose()
            raise ProviderProtocolError("the answer is longer than anybody asked for")
        return part

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._finish()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._is_whole)
