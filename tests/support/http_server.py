"""Routes behind the real front door, for tests of what a carrier or a page gets over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from starlette.routing import BaseRoute

from server.edge.app import build_app
from server.edge.front_door import FrontDoor
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import EdgeLimits
from server.metrics import Metrics
from tests.support.edge_server import EchoRouter


@asynccontextmanager
async def http_server(routes: Sequence[BaseRoute], *, body_ms: int = 10_000) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that has `routes`; connections are not kept, as in production."""
    metrics = Metrics()
    limits = EdgeLimits(connections_per_s=10_000.0, body_ms=body_ms)
    adapter = HttpAdapter(build_app(routes), limits, metrics)
    await adapter.start()
    door = FrontDoor(EchoRouter(), adapter, limits, metrics=metrics)
    port = await door.serve("127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
            yield client
    finally:
        await door.close()
        await adapter.stop()
