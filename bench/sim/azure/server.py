"""Azure's Speech service on a local port: recognition, synthesis, tokens and the list of voices, for the real SDK.

    async with AzureSim(book=book) as sim:
        config = SpeechConfig(subscription=sim.key, host=sim.host)
        sim.faults.add(Fault(kind="cut", on="stt", after_ms=800))
        sim.stt_turns[-1].segmentation_ms

Plain ws:// and http:// only. `/sim/…` is the control of another process: GET state, GET turns, POST drop, POST and
DELETE faults.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Self

import orjson
from aiohttp import WSMsgType, web

from bench.sim.azure import wire
from bench.sim.azure.fault import PLAIN, UPGRADE, Fault, FaultBox
from bench.sim.azure.outbox import Outbox
from bench.sim.azure.peer import Peer, SttPeer, TtsPeer
from bench.sim.azure.seen import Connection, SttTurn, TtsTurn
from bench.sim.azure.voices import VOICES
from bench.sim.clipbook import Clipbook
from bench.sim.profile import PROFILES, Profile

KEY = "sim-key"
TOKEN_S = 600
"""How long a token is valid (documented)."""
HOLD_S = 120
MOST_MESSAGE_BYTES = 1 << 20
STT_PATHS = (
    *(f"/speech/recognition/{mode}/cognitiveservices/v1" for mode in ("conversation", "interactive", "dictation")),
    "/stt/speech/universal/v2",
    "/speech/universal/v2",
)
TTS_PATHS = tuple(f"{root}/cognitiveservices/websocket/{version}" for root in ("", "/tts") for version in ("v1", "v2"))


class AzureSim:
    """See the module. `unusual`: words that are heard otherwise unless the client's phrase list has them."""

    def __init__(
        self, *, book: Clipbook | None = None, profile: Profile = PROFILES["instant"], seed: int = 1, port: int = 0,
        keys: frozenset[str] = frozenset({KEY}), stt_limit: int | None = None, tts_limit: int | None = None,
        unusual: dict[str, str] | None = None, keep: int = 1000,
    ) -> None:  # fmt: skip
        self.book, self.profile, self.keys = book or Clipbook(), profile, set(keys)
        self.limits = {"stt": stt_limit, "tts": tts_limit}
        self.unusual = unusual or {}
        self.faults = FaultBox(seed)
        self.counts: Counter[str] = Counter()
        self.connections: deque[Connection] = deque(maxlen=keep)
        self.stt_turns: deque[SttTurn] = deque(maxlen=keep)
        self.tts_turns: deque[TtsTurn] = deque(maxlen=keep)
        self.open: Counter[str] = Counter()
        self.port = port
        self._dice = random.Random(seed)
        self._tokens: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self._live: dict[web.WebSocketResponse, Outbox] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()

    # ── Life ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=1 << 20)
        for path in STT_PATHS:
            app.router.add_get(path, self._stt)
        for path in TTS_PATHS:
            app.router.add_get(path, self._tts)
        app.router.add_post("/sts/v1.0/issueToken", self._token)
        for root in ("", "/tts"):
            app.router.add_get(f"{root}/cognitiveservices/voices/list", self._voices)
        app.router.add_get("/sim/state", self._state)
        app.router.add_get("/sim/turns", self._turns)
        app.router.add_post("/sim/drop", self._drop)
        app.router.add_post("/sim/faults", self._add_fault)
        app.router.add_delete("/sim/faults", self._clear_faults)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        await self.listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._over.set()
        for ws in list(self._live):
            await ws.close(code=1001, message=b"going away")
        if self._runner is not None:
            await self._runner.cleanup()

    async def listen(self) -> None:
        """Take connections on the port (again)."""
        assert self._runner is not None
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def refuse_connections(self) -> None:
        """Connections are refused by the system until `listen`; those that are open stay."""
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()

    def drop_connections(self) -> None:
        """RST on every WebSocket. Thread: that of the loop (`sim.loop.call_soon_threadsafe` from another)."""
        self.counts["dropped"] += len(self._live)
        for outbox in self._live.values():
            outbox.cut()

    @property
    def host(self) -> str:
        """For SpeechConfig(host=…)."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """For SpeechConfig(endpoint=…), tokens, voices and control."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return min(self.keys)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until something holds of what was seen. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.005)

    # ── WebSockets ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _stt(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "stt", SttPeer)

    async def _tts(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "tts", TtsPeer)

    async def _serve(self, request: web.Request, service: str, kind: type[Peer]) -> web.StreamResponse:
        refused = await self._refused(request, service, UPGRADE)
        if refused is not None:
            return refused
        ws = web.WebSocketResponse(protocols=("USP",), max_msg_size=MOST_MESSAGE_BYTES, heartbeat=None, compress=False)
        await ws.prepare(request)
        self.counts[f"{service}_connections"] += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Connection(self.counts[f"{service}_connections"], service, request.path, dict(request.query), headers)
        self.connections.append(seen)
        self.open[service] += 1
        outbox = self._live[ws] = Outbox(ws, request, self.faults)
        peer = kind(self, seen, outbox, random.Random(self._dice.getrandbits(64)))
        sender = asyncio.get_running_loop().create_task(outbox.run(), name=f"{service} {seen.no}")
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    await peer.receive(wire.read_text(message.data))
                elif message.type is WSMsgType.BINARY:
                    await peer.receive(wire.read_binary(message.data))
        except (ValueError, TypeError, AttributeError) as error:
            # What the client sent has not the shape that it must have.
            self.counts["client_errors"] += 1
            await ws.close(code=1007, message=str(error).encode()[:120])
        finally:
            sender.cancel()
            peer.gone()
            seen.closed = True
            self.open[service] -= 1
            del self._live[ws]
        return ws

    async def _refused(self, request: web.Request, service: str, kinds: frozenset[str]) -> web.StreamResponse | None:
        """An answer other than the wanted one; None: go on."""
        fault = self.faults.pick(service, kinds)
        if fault is not None:
            self.faults.carried_out(fault)
            return await self._struck(request, fault)
        if not self._is_known(request):
            self.counts["unauthorized"] += 1
            return web.Response(status=401, text="Access denied due to invalid subscription key or wrong API endpoint.")
        limit = self.limits.get(service)
        if limit is not None and self.open[service] >= limit:
            self.counts[f"{service}_over_limit"] += 1
            return web.Response(status=429, text="Too many concurrent requests.")
        return None

    async def _struck(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.kind == "http":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return web.Response(status=fault.status, headers=headers, text="simulated")
        if fault.kind == "hold":
            try:
                async with asyncio.timeout(HOLD_S):
                    await self._over.wait()
            except TimeoutError:
                pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # nobody hears it

    def _is_known(self, request: web.BaseRequest) -> bool:
        if request.headers.get("Ocp-Apim-Subscription-Key") in self.keys:
            return True
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return self._tokens.get(bearer, 0.0) > time.monotonic()

    # ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _token(self, request: web.Request) -> web.StreamResponse:
        refused = await self._refused(request, "token", PLAIN)
        if refused is not None:
            return refused
        self.counts["tokens"] += 1
        token = f"sim.{secrets.token_hex(24)}.token"
        now = time.monotonic()
        self._tokens = {one: until for one, until in self._tokens.items() if until > now} | {token: now + TOKEN_S}
        return web.Response(text=token, content_type="application/jwt")

    async def _voices(self, request: web.Request) -> web.StreamResponse:
        refused = await self._refused(request, "voices", PLAIN)
        if refused is not None:
            return refused
        self.counts["voices"] += 1
        return _json([voice.as_json() for voice in VOICES.values()])

    async def _state(self, request: web.Request) -> web.StreamResponse:
        waiting = [fault.label for fault in self.faults.waiting()]
        return _json({"counts": self.counts, "injected": self.faults.injected, "waiting": waiting, "open": self.open})

    async def _turns(self, request: web.Request) -> web.StreamResponse:
        return _json(
            {
                "connections": [one.as_json() for one in self.connections],
                "stt": [one.as_json() for one in self.stt_turns],
                "tts": [one.as_json() for one in self.tts_turns],
            }
        )

    async def _drop(self, request: web.Request) -> web.StreamResponse:
        self.drop_connections()
        return web.Response(status=204)

    async def _add_fault(self, request: web.Request) -> web.StreamResponse:
        try:
            raw = orjson.loads(await request.read())
            for one in raw if isinstance(raw, list) else [raw]:
                self.faults.add(Fault.from_json(one))
        except (TypeError, ValueError) as error:
            return web.Response(status=400, text=str(error))
        return web.Response(status=204)

    async def _clear_faults(self, request: web.Request) -> web.StreamResponse:
        self.faults.clear()
        return web.Response(status=204)


def _json(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
