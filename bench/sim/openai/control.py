"""Orders to a running simulator over HTTP, at a port of its own: the service may be down while it is told to come up.

| request | does |
|---|---|
| GET /state | what is up, connections, counts of faults |
| GET /seen?route=chat | what was received, oldest first |
| DELETE /seen | forget it |
| POST /faults | one fault as JSON, the fields of `Fault` |
| DELETE /faults | no fault waits any more; the counts stay |
| POST /down | `{"for_s": 60}` or `{}` for until told otherwise |
| POST /up | listen again |
| POST /keys | `{"keys": […]}`, the accepted ones |
| POST /style | the fields of `Style` |
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

from bench.sim.openai.chunk import Style
from bench.sim.openai.fault import Fault
from bench.sim.openai.server import OpenAiSim


class Control:
    """The port of orders of one simulator. Use as `async with Control(sim) as control: … control.url …`."""

    __slots__ = ("_http", "_listening", "_sim", "port")

    def __init__(self, sim: OpenAiSim, port: int = 0) -> None:
        self._sim, self.port = sim, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Control:
        self._http = web.Server(self._handle, access_log=None)
        self._listening = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        await self._http.shutdown(1.0)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        try:
            raw = await request.read()
            body: Any = orjson.loads(raw) if raw else {}
            answer = await self._obey(f"{request.method} {request.path}", body, request.query.get("route", ""))
        except (ValueError, TypeError) as error:
            return web.Response(status=400, text=f"{error}\n")
        if answer is None:
            return web.Response(status=404, text=f"no order {request.method} {request.path}\n")
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _obey(self, order: str, body: Any, route: str) -> Any:
        """What to answer; None: no such order. Raises ValueError or TypeError where the body is wrong."""
        sim = self._sim
        match order:
            case "GET /state":
                pass
            case "GET /seen":
                return [seen.as_json() for seen in sim.log.of(route)]
            case "DELETE /seen":
                sim.log.clear()
            case "POST /faults":
                sim.faults.add(Fault.from_json(body))
            case "DELETE /faults":
                sim.faults.clear()
            case "POST /down":
                sim.go_down(**body)
            case "POST /up":
                await sim.come_up()
            case "POST /keys":
                sim.keys = set(body["keys"])
            case "POST /style":
                sim.style = Style(**body)
            case _:
                return None
        return self._state()

    def _state(self) -> dict[str, Any]:
        sim = self._sim
        return {
            "flavour": sim.flavour,
            "url": sim.url,
            "up": sim.up.is_set(),
            "connections": sim.connections,
            "requests": sim.log.count,
            "waiting": [fault.kind for fault in sim.faults.waiting()],
            "picked": dict(sim.faults.picked),
            "injected": dict(sim.faults.injected),
        }
