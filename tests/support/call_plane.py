"""The plane of calls behind the real front door, in the test's loop: real tokens, spool and voice, scripted words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.agent.settings import AgentSettings
from server.call.capture import CaptureStore
from server.call.clips import Clips
from server.call.pacer import Pacer
from server.call.place import Reserved
from server.call.plane import CallPlane
from server.call.scoring import SpeechScoring
from server.call.services import CallFacts, CallServices
from server.catalogue import Catalogue
from server.clock import SystemClock
from server.config import ProviderConfig
from server.edge.app import build_app
from server.edge.front_door import FrontDoor
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import EdgeLimits
from server.edge.reception import Reception
from server.metrics import Metrics
from server.store.agents import AgentVersion
from server.store.answer import SharedAnswers
from server.store.fact import CallEnded, decode
from server.store.redis import Redis
from server.store.segment import records
from server.store.spool import Spool
from server.store.token import StreamTokens
from server.tool.http_tool import HttpTools
from server.tool.runner import ToolRunner

SCRIPTED = {"provider": "scripted"}
AGENT = {
    "stt": SCRIPTED,
    "llm": SCRIPTED,
    "opening": {"text": "Good day."},
    "limits": {"idle_timeout_ms": 60_000},
}
VERSION = AgentVersion("v1", "a1", "test", 1, AgentSettings.parse(AGENT))
KEY = b"k" * 32
F = TypeVar("F")


@dataclass
class PlaneServer:
    plane: CallPlane
    spool: Spool
    tokens: StreamTokens
    metrics: Metrics
    catalogue: Catalogue
    version: AgentVersion
    port: int
    sockets: list[ClientConnection] = field(default_factory=list)

    async def promised(self, call: str = "browser-1", carrier: Any = "browser") -> Reserved:
        reserved = await self.plane.reserve(carrier, call, "", "", self.version)
        assert reserved is not None
        return reserved

    async def connected(self, path: str) -> ClientConnection | int:
        """The open socket, or the status by which it was refused."""
        try:
            self.sockets.append(await connect(f"ws://127.0.0.1:{self.port}/media/{path}", proxy=None))
        except InvalidStatus as refused:
            return refused.response.status_code
        return self.sockets[-1]

    async def begun(self, reserved: Reserved) -> ClientConnection:
        """A page's call that has said who it is."""
        socket = await self.connected(f"browser/{reserved.stream_id}")
        assert not isinstance(socket, int), socket
        await socket.send(json.dumps({"event": "start", "secret": reserved.secret, "sampleRate": 16000}))
        return socket

    async def talking(self, reserved: Reserved) -> ClientConnection:
        """A page's call that has heard the first of its agent."""
        socket = await self.begun(reserved)
        assert isinstance(await socket.recv(), bytes)
        return socket

    async def facts(self, kind: type[F]) -> list[F]:
        """What is on record, of one kind."""
        await self.spool.flush()
        files = [path.read_bytes() for path in sorted(self.spool.folder.glob("*.seg"))]
        facts = [decode(record.payload) for data in files for record in records(data)]
        return [fact for fact in facts if isinstance(fact, kind)]

    async def ends(self) -> list[tuple[str, str]]:
        """(call id, reason) of every end in the records."""
        return [(fact.call_id, fact.reason) for fact in await self.facts(CallEnded)]

    def counted(self, carrier: str, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("calls_total", {"channel": carrier, "outcome": outcome}) or 0.0


async def until(is_so: Callable[[], bool] | Callable[[], Awaitable[bool]], within_s: float = 5.0) -> None:
    """Look again until it is so. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            found = is_so()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def closed(socket: ClientConnection) -> None:
    """Whatever it hears, until its end."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return


@asynccontextmanager
async def plane_server(
    folder: Path,
    *,
    max_calls: int = 2,
    carriers: tuple[str, ...] = ("browser",),
    redis: Redis | None = None,
    stop: asyncio.Event | None = None,
    config: ProviderConfig | None = None,
    version: AgentVersion = VERSION,
) -> AsyncIterator[PlaneServer]:
    clock, metrics = SystemClock(), Metrics()
    spool = Spool(folder / "spool")
    spool.start()
    captures = CaptureStore(folder / "capture", clock)
    captures.start()
    tokens = StreamTokens(redis, KEY, clock)

    async def hang_up(facts: CallFacts) -> None:
        """No carrier is here."""

    async def hand_over(facts: CallFacts, number: str) -> bool:
        return False

    services = CallServices(
        clock=clock,
        pacer=Pacer(clock, lambda late_s: None),
        scoring=SpeechScoring.load(clock),
        clips=Clips(),
        metrics=metrics,
        spool=spool,
        hang_up=hang_up,
        hand_over=hand_over,
        captures=captures,
        tools=ToolRunner(HttpTools({}, ()), spool, metrics, clock),  # no agent here has any
        lead_ms=200,
        chunk_ms=100,
    )
    catalogue = Catalogue(config or ProviderConfig(), metrics.providers)
    plane = CallPlane(
        services=services,
        providers_for=catalogue.for_call,
        tokens=tokens,
        versions=lambda version_id: version if version_id == version.id else None,
        max_calls=max_calls,
        carriers=carriers,
    )
    nothing: Any = None  # no webhook is asked here
    reception = Reception(plane, nothing, None, SharedAnswers(None, KEY, clock))
    limits = EdgeLimits()
    http = HttpAdapter(build_app([]), limits, metrics)
    await http.start()
    door = FrontDoor(reception, http, limits, metrics=metrics)
    stop = stop or asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(plane.run(stop))
            port = await door.serve("127.0.0.1", 0)
            server = PlaneServer(plane, spool, tokens, metrics, catalogue, version, port)
            try:
                yield server
            finally:
                stop.set()
                await asyncio.gather(*(one.close() for one in server.sockets))
    finally:
        await catalogue.aclose()
        await door.close()
        await http.stop(timeout_s=1.0)
        await until(lambda: not metrics.registry.get_sample_value("media_connections"))
        for _ in range(3):  # a transport that was closed goes with the loop's next turns
            await asyncio.sleep(0)
        captures.close()
        spool.close()
