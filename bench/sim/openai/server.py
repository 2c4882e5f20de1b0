"""An OpenAI-compatible service on a port of 127.0.0.1, in one of three flavours.

    request → record → route → key → fault → check → brain → stream
                          openai /v1/…   groq /openai/v1/…   azure /openai/deployments/{name}/… and /openai/v1/…

Guarantees: what it refuses it refuses as the vendor does; everything received is in `log`, all faults are counted. A
second port takes orders (control.py), so that a service that is down can be told to come up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from bench.sim.openai.answer import Brain
from bench.sim.openai.audio import Recogniser, Voice, read_form
from bench.sim.openai.chunk import Style
from bench.sim.openai.flavour import Flavour, Model, RateMeter, Refusal, error_body, fixed_headers, refuse
from bench.sim.openai.seen import Log, Seen
from bench.sim.openai.service import Service
from bench.sim.profile import Profile

MAX_BODY_BYTES = 26 << 20  # the vendors take files of 25 MB
KEEP_REQUESTS = 1000
CLOSE_S = 2.0
_CLASSIC = re.compile(r"/openai/deployments/([^/]+)(/.*)")
_ROUTES = {
    "/chat/completions": ("POST", "chat"),
    "/models": ("GET", "models"),
    "/audio/transcriptions": ("POST", "transcription"),
    "/audio/speech": ("POST", "speech"),
}


class OpenAiSim(Service):
    """One service. Use as `async with OpenAiSim(Flavour.GROQ) as sim: … sim.url …`.

    Args:
        flavour: whose service it is.
        brain: what it says. voice: how it sounds, Pico by default. recogniser: what it hears, nothing by default.
        profile: how fast, instant by default. style: how it is told; may be changed while it runs.
        keys: accepted keys; may be changed while it runs. models: besides those of the flavour.
        meter: its rate limits; None: a large plan.
        port: 0 chooses one. keep_alive_s: idle connections are closed after that.
        seed: of everything random.
    """

    def __init__(
        self,
        flavour: Flavour,
        *,
        brain: Brain | None = None,
        voice: Voice | None = None,
        recogniser: Recogniser | None = None,
        profile: Profile | None = None,
        style: Style | None = None,
        keys: Iterable[str] = ("sim-key",),
        models: Iterable[Model] = (),
        meter: RateMeter | None = None,
        port: int = 0,
        keep_alive_s: float = 60.0,
        keep: int = KEEP_REQUESTS,
        seed: int = 1,
    ) -> None:
        super().__init__(
            flavour, brain=brain, voice=voice, recogniser=recogniser, profile=profile, style=style, models=models,
            meter=meter, seed=seed,
        )  # fmt: skip
        self.keys = set(keys)
        self.log = Log(keep)
        self.port = port
        self.connections = 0
        self.up = asyncio.Event()
        """Set while it listens."""
        self._keep_alive_s = keep_alive_s
        self._numbers: dict[Any, int] = {}
        self._fresh: set[int] = set()
        self._http: web.Server | None = None
        self._listening: asyncio.Server | None = None
        self._rising: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port, no path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What the vendor's own client is given: with /v1 for OpenAI, the bare host for Groq and Azure."""
        return f"{self.url}/v1" if self.flavour is Flavour.OPENAI else self.url

    async def __aenter__(self) -> OpenAiSim:
        self._http = web.Server(
            self._handle,
            request_factory=self._make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self._keep_alive_s,
        )
        await self.come_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_down()
        assert self._http is not None
        await self._http.shutdown(CLOSE_S)

    # ── Up and down ───────────────────────────────────────────────────────────────────────────────────────────

    async def come_up(self) -> None:
        """Listen again, at the same port."""
        if self._rising is not None:
            self._rising.cancel()
            self._rising = None
        if self._listening is None:
            loop = asyncio.get_running_loop()
            self._listening = await loop.create_server(self._accept, "127.0.0.1", self.port, backlog=512)
            self.port = self._listening.sockets[0].getsockname()[1]
            self.up.set()

    def go_down(self, for_s: float | None = None) -> None:
        """Refuse connections and drop those that are open; come up by itself after `for_s`."""
        if self._rising is not None:
            self._rising.cancel()
            self._rising = None
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            self.up.clear()
        if self._http is not None:
            for one in self._http.connections:
                if one.transport is not None:
                    one.transport.abort()
        if for_s is not None:
            self._rising = asyncio.get_running_loop().create_task(self._rise(for_s))

    async def _rise(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._rising = None  # not to be cancelled by what follows
        await self.come_up()

    # ── One request ───────────────────────────────────────────────────────────────────────────────────────────

    def _accept(self) -> asyncio.Protocol:
        assert self._http is not None
        self.connections += 1
        protocol = self._http()
        self._numbers[protocol] = self.connections
        self._fresh.add(self.connections)
        if len(self._numbers) > 2 * len(self._http.connections) + 64:
            live = set(self._http.connections) | {protocol}
            self._numbers = {one: number for one, number in self._numbers.items() if one in live}
            self._fresh &= set(self._numbers.values())
        return protocol

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Seen(
            self.log.count + 1,
            self._numbers.get(request.protocol, 0),
            request.method,
            request.path,
            dict(parse_qsl(request.query_string)),
            {name.lower(): value for name, value in request.headers.items()},
        )
        seen.is_first = seen.connection in self._fresh
        self._fresh.discard(seen.connection)
        self.log.add(seen)
        headers = fixed_headers(self.flavour, seen.no, self._dice)
        try:
            return await self._serve(request, seen, headers)
        except Refusal as refusal:
            seen.end("refused")
            return self._refused(refusal, seen, headers)
        except (ConnectionError, asyncio.CancelledError):
            seen.end("client")
            raise

    async def _serve(self, request: web.BaseRequest, seen: Seen, headers: dict[str, str]) -> web.StreamResponse:
        suffix, deployment = self._suffix(request, seen)
        if suffix not in _ROUTES or _ROUTES[suffix][0] != request.method:
            raise self._unknown_address(request)
        seen.route = _ROUTES[suffix][1]
        if not self._is_known(request):
            raise refuse("unauthorized", self.flavour)
        await self._read(request, seen)
        return await self._answer(request, seen, headers, deployment)

    def _suffix(self, request: web.BaseRequest, seen: Seen) -> tuple[str, str]:
        """The address without what the flavour puts before it, and Azure's deployment."""
        path = request.path
        if self.flavour is Flavour.OPENAI:
            return (path.removeprefix("/v1"), "") if path.startswith("/v1/") else ("", "")
        if path.startswith("/openai/v1/"):
            return path.removeprefix("/openai/v1"), ""
        if self.flavour is Flavour.AZURE:
            if not seen.query.get("api-version"):
                return "", ""
            if (classic := _CLASSIC.fullmatch(path)) is not None:
                return classic[2], classic[1]
            if path == "/openai/models":
                return "/models", ""
        return "", ""

    def _unknown_address(self, request: web.BaseRequest) -> Refusal:
        if self.flavour is Flavour.AZURE:
            return Refusal(404, "Resource not found", "gateway", "404")
        if self.flavour is Flavour.GROQ:
            said = f"Unknown request URL: {request.method} {request.path}. Please check the URL for typos."
            return Refusal(404, said, code="unknown_url")
        return Refusal(404, f"Invalid URL ({request.method} {request.path})")

    def _is_known(self, request: web.BaseRequest) -> bool:
        bearer = request.headers.get("authorization", "")
        if bearer.startswith("Bearer ") and bearer.removeprefix("Bearer ") in self.keys:
            return True
        return self.flavour is Flavour.AZURE and request.headers.get("api-key") in self.keys

    async def _read(self, request: web.BaseRequest, seen: Seen) -> None:
        """Put the body into `seen`."""
        if request.method == "GET":
            return
        try:
            if seen.route == "transcription":
                seen.body = await read_form(request, seen)
            else:
                seen.body = orjson.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(413, "Maximum content size limit exceeded", "server_error") from None
        except orjson.JSONDecodeError:
            said = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
            raise Refusal(400, said + "your HTTP library correctly.)") from None

    def _refused(self, refusal: Refusal, seen: Seen, headers: dict[str, str]) -> web.Response:
        seen.status = refusal.status
        headers = headers | self.meter.headers() | refusal.headers
        if refusal.html:
            page = f"<html><head><title>{refusal.status}</title></head><body>{refusal.message}</body></html>"
            return web.Response(status=refusal.status, text=page, headers=headers, content_type="text/html")
        raw = orjson.dumps(error_body(refusal, self.flavour))
        return web.Response(status=refusal.status, body=raw, headers=headers, content_type="application/json")
