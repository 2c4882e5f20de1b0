"""An OpenAI-compatible service on a port of 127.0.0.1, in one of three flavours.

    request → record → route → key → fault → check → brain → stream
                          openai /v1/…   groq /openai/v1/…   azure /openai/deployments/{name}/… and /openai/v1/…

Guarantees: what it refuses it refuses as the vendor does; everything received is in `log`, all faults are counted. A
second port takes orders (control.py), so that a service that is down can be told to come up.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from bench.sim.openai.answer import Brain, FixtureBrain, count_tokens, within_limits
from bench.sim.openai.audio import (
    PicoVoice,
    Recogniser,
    SpeechStream,
    Voice,
    check_speech,
    check_transcription,
    read_form,
    read_wave,
    transcription_body,
)
from bench.sim.openai.check import check_chat
from bench.sim.openai.chunk import Style, Teller
from bench.sim.openai.fault import CONNECTION, Fault, FaultBox
from bench.sim.openai.flavour import (
    MODELS,
    REFUSALS,
    Flavour,
    Model,
    RateMeter,
    Refusal,
    error_body,
    fixed_headers,
    refuse,
)
from bench.sim.openai.seen import Log, Seen
from bench.sim.openai.stream import ChatStream, hang_up, hold
from bench.sim.profile import PROFILES, Profile

MAX_BODY_BYTES = 26 << 20  # the vendors take files of 25 MB
KEEP_REQUESTS = 1000
CACHE_STEP = 128  # prompt caches hit in steps of that many tokens, from 1024 on
CACHE_LEAST = 1024
CLOSE_S = 2.0
_CLASSIC = re.compile(r"/openai/deployments/([^/]+)(/.*)")
_ROUTES = {
    "/chat/completions": ("POST", "chat"),
    "/models": ("GET", "models"),
    "/audio/transcriptions": ("POST", "transcription"),
    "/audio/speech": ("POST", "speech"),
}


def _hears_nothing(s16: bytes, rate_hz: int) -> str:
    return ""


class OpenAiSim:
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
        self.flavour = flavour
        self.brain: Brain = brain or FixtureBrain({})
        self.voice = voice or PicoVoice()
        self.recogniser = recogniser or _hears_nothing
        self.profile = profile or PROFILES["instant"]
        self.style = style or Style()
        self.keys = set(keys)
        self.models = {one.name: one for one in (*MODELS[flavour], *models)}
        self.meter = meter or RateMeter(flavour)
        self.faults = FaultBox(seed)
        self.log = Log(keep)
        self.port = port
        self.connections = 0
        self.up = asyncio.Event()
        """Set while it listens."""
        self._dice = random.Random(seed)
        self._keep_alive_s = keep_alive_s
        self._numbers: dict[Any, int] = {}
        self._fresh: set[int] = set()
        self._cache: dict[str, list[Any]] = {}
        self._http: web.Server | None = None
        self._listening: asyncio.Server | None = None
        self._rising: asyncio.TimerHandle | None = None

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
            loop = asyncio.get_running_loop()
            self._rising = loop.call_later(for_s, lambda: loop.create_task(self.come_up()))

    def inject(self, kind: str, **how: Any) -> None:
        """Let a fault wait for its request; see `Fault`."""
        self.faults.add(Fault(kind=kind, **how))

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
        raw = await self._read(request, seen)
        fault = self.faults.pick(seen.route)
        if fault is not None and (done := await self._strike(fault, request, seen, headers)) is not None:
            return done
        if seen.route == "chat":
            return await self._chat(request, seen, headers, raw, deployment, fault)
        if seen.route == "speech":
            return await self._speech(request, seen, headers, raw, deployment, fault)
        if seen.route == "transcription":
            return await self._transcription(request, seen, headers, deployment, fault)
        return self._json(self._model_list(), seen, headers)

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

    async def _read(self, request: web.BaseRequest, seen: Seen) -> Any:
        if request.method == "GET":
            return None
        try:
            if seen.route == "transcription":
                seen.body = await read_form(request, seen)
                return seen.body
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(413, "Maximum content size limit exceeded", "server_error") from None
        try:
            seen.body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            said = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
            raise Refusal(400, said + "your HTTP library correctly.)") from None
        return seen.body

    async def _strike(
        self, fault: Fault, request: web.BaseRequest, seen: Seen, headers: dict[str, str]
    ) -> web.StreamResponse | None:
        """Carry out a fault that comes instead of an answer."""
        if fault.kind in CONNECTION:
            seen.fault = fault.kind
            seen.end("fault")
            self.faults.carried_out(fault)
            hang_up(request, reset=fault.kind == "reset")
            return web.Response()  # nobody hears it
        if fault.kind in REFUSALS:
            seen.fault = fault.kind
            self.faults.carried_out(fault)
            model = seen.body.get("model", "") if isinstance(seen.body, dict) else ""
            extra = dict(fault.headers)
            if fault.kind in ("rate_limit", "slow_down", "capacity") and not extra:
                extra["retry-after"] = "2"
            raise refuse(fault.kind, self.flavour, model=model, headers=extra)
        if fault.kind in ("json_200", "empty_200"):
            seen.fault = fault.kind
            self.faults.carried_out(fault)
            error = error_body(refuse("server_error", self.flavour), self.flavour)
            if fault.kind == "json_200":
                return self._json(error, seen, headers, how="fault")
            seen.status = 200
            seen.end("fault")
            return web.Response(body=b"", headers=headers, content_type="text/event-stream")
        return None

    # ── Chat ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _chat(
        self, request: web.BaseRequest, seen: Seen, headers: dict[str, str], raw: Any, deployment: str,
        fault: Fault | None,
    ) -> web.StreamResponse:  # fmt: skip
        model = self._model(deployment or (raw.get("model") if isinstance(raw, dict) else None), "chat")
        prompt = check_chat(raw, self.flavour, model)
        wait_s = self.meter.take(prompt + (raw.get("max_completion_tokens") or raw.get("max_tokens") or 0))
        if wait_s:
            after = {"retry-after": str(int(wait_s) + 1)}
            raise refuse("rate_limit", self.flavour, model=model.name, headers=after)
        first_s, tokens_per_s = self.profile.first_token.sample_s(self._dice), self.profile.tokens_per_s
        if fault is None:
            fault = self._mishap()
        teller = Teller(
            self.flavour, self.style, raw | {"model": model.name}, within_limits(self.brain.answer(raw), raw),
            self._dice, prompt_tokens=prompt, cached_tokens=self._cached(raw), first_token_s=first_s,
            tokens_per_s=tokens_per_s,
        )  # fmt: skip
        headers |= self.meter.headers()
        if raw.get("stream"):
            stream = ChatStream(request, seen, self.style, teller, self.flavour, fault, self.faults)
            return await stream.run(headers, first_s, tokens_per_s)
        body = teller.whole()
        if fault is not None:
            if await self._strike_whole(fault, request, seen):
                return web.Response()
        elif first_s:
            out = body["usage"]["completion_tokens"]
            await asyncio.sleep(first_s + (out / tokens_per_s if tokens_per_s else 0))
        return self._json(body, seen, headers)

    def _mishap(self) -> Fault | None:
        """What the profile's dice do to this answer."""
        profile = self.profile
        if profile.is_slow(self._dice):
            return self.faults.own(Fault(kind="slow_first_token", delay_ms=profile.slow_ms))
        if profile.is_hung(self._dice):
            return self.faults.own(Fault(kind="silence", after_tokens=profile.hung_after_tokens))
        return None

    async def _strike_whole(self, fault: Fault, request: web.BaseRequest, seen: Seen) -> bool:
        """The faults of a stream that an answer in one piece can suffer. True: nothing more is to be said."""
        if fault.kind in ("slow_first_token", "stall", "silence", "comments", "stream_reset", "stream_cut"):
            seen.fault = fault.kind
            self.faults.carried_out(fault)
        if fault.kind in ("slow_first_token", "stall"):
            await asyncio.sleep(fault.delay_ms / 1000)
        elif fault.kind in ("silence", "comments"):
            await hold()
        elif fault.kind in ("stream_reset", "stream_cut"):
            seen.end("fault")
            hang_up(request, reset=fault.kind == "stream_reset")
            return True
        return False

    # ── Audio ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _speech(
        self, request: web.BaseRequest, seen: Seen, headers: dict[str, str], raw: Any, deployment: str,
        fault: Fault | None,
    ) -> web.StreamResponse:  # fmt: skip
        self._model(deployment or (raw.get("model") if isinstance(raw, dict) else None), "speech")
        check_speech(raw, self.flavour)
        s16 = await asyncio.to_thread(self.voice, raw["input"], raw["voice"])
        profile = self.profile
        first_s = profile.first_audio.sample_s(self._dice) + (profile.cold_ms / 1000 if seen.is_first else 0)
        if fault is None and profile.stalls(self._dice):
            fault = self.faults.own(Fault(kind="stall", route="speech", after_tokens=2, delay_ms=profile.stall_ms))
        stream = SpeechStream(request, seen, fault, self.faults)
        return await stream.run(
            s16, raw.get("response_format", "pcm"), headers | self.meter.headers(), first_s, profile.audio_times
        )

    async def _transcription(
        self, request: web.BaseRequest, seen: Seen, headers: dict[str, str], deployment: str, fault: Fault | None
    ) -> web.StreamResponse:
        fields = seen.body
        self._model(deployment or fields.get("model"), "transcription")
        check_transcription(fields, self.flavour)
        s16, rate_hz = read_wave(seen.audio)
        if fault is not None:
            if await self._strike_whole(fault, request, seen):
                return web.Response()
        else:
            await asyncio.sleep(self.profile.transcription.sample_s(self._dice))
        text = await asyncio.to_thread(self.recogniser, s16, rate_hz)
        headers |= self.meter.headers()
        if fields.get("response_format") == "text":
            seen.status = 200
            seen.end("done")
            return web.Response(text=text + "\n", headers=headers)
        seconds = len(s16) / 2 / rate_hz
        body = transcription_body(text, seconds, fields, headers["x-request-id"], self.flavour)
        return self._json(body, seen, headers)

    def _model(self, name: Any, task: str) -> Model:
        if not isinstance(name, str) or not name:
            raise Refusal(400, "you must provide a model parameter", param="model")
        model = self.models.get(name)
        if model is None or model.task != task:
            raise refuse("model_not_found", self.flavour, model=name)
        return model

    def _cached(self, raw: Any) -> int:
        """Tokens of the prompt that stood at the start of the last one with the same first message."""
        messages = raw["messages"]
        key = orjson.dumps([raw.get("model", ""), messages[0]]).decode()
        before = self._cache.pop(key, [])
        if len(self._cache) >= 256:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = messages
        same = 0
        while same < min(len(before), len(messages)) and before[same] == messages[same]:
            same += 1
        cached = count_tokens(messages[:same], raw.get("tools") or ()) if same else 0
        return cached // CACHE_STEP * CACHE_STEP if cached >= CACHE_LEAST else 0

    # ── Answers in one piece ──────────────────────────────────────────────────────────────────────────────────

    def _model_list(self) -> dict[str, Any]:
        owner = {Flavour.OPENAI: "system", Flavour.GROQ: "OpenAI", Flavour.AZURE: "azure-openai"}[self.flavour]
        data = []
        for model in self.models.values():
            one: dict[str, Any] = {"id": model.name, "object": "model", "created": 1_793_700_000, "owned_by": owner}
            if self.flavour is Flavour.GROQ:
                one |= {"active": True, "context_window": model.context_tokens, "max_completion_tokens": 65_536}
            elif self.flavour is Flavour.AZURE:
                one |= {"status": "succeeded", "capabilities": {"chat_completion": model.task == "chat"}}
            data.append(one)
        return {"object": "list", "data": data}

    def _json(self, body: Any, seen: Seen, headers: dict[str, str], how: str = "done") -> web.Response:
        seen.status = 200
        seen.end(how)
        raw = orjson.dumps(body)
        seen.sent_bytes += len(raw)
        return web.Response(body=raw, headers=headers, content_type="application/json")

    def _refused(self, refusal: Refusal, seen: Seen, headers: dict[str, str]) -> web.Response:
        seen.status = refusal.status
        headers = headers | self.meter.headers() | refusal.headers
        if refusal.html:
            page = f"<html><head><title>{refusal.status}</title></head><body>{refusal.message}</body></html>"
            return web.Response(status=refusal.status, text=page, headers=headers, content_type="text/html")
        raw = orjson.dumps(error_body(refusal, self.flavour))
        return web.Response(status=refusal.status, body=raw, headers=headers, content_type="application/json")
