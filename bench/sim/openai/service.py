"""What a simulated language service answers to a request that reached it: chat, models, transcription, speech, faults.

It knows no sockets: server.py listens, finds the address and checks the key. Everything random comes from one seeded
dice, in the order of the requests.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

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
    read_wave,
    transcription_body,
)
from bench.sim.openai.check import check_chat
from bench.sim.openai.chunk import Style, Teller
from bench.sim.openai.fault import CONNECTION, Fault, FaultBox
from bench.sim.openai.flavour import MODELS, REFUSALS, Flavour, Model, RateMeter, Refusal, error_body, refuse
from bench.sim.openai.seen import Seen
from bench.sim.openai.stream import ChatStream, hang_up
from bench.sim.openai.transcript import TranscriptStream
from bench.sim.openai.whole import WholeAnswer
from bench.sim.profile import PROFILES, Profile

CACHE_STEP = 128  # prompt caches hit in steps of that many tokens, from 1024 on
CACHE_LEAST = 1024
KEPT_PROMPTS = 256


def _hears_nothing(s16: bytes, rate_hz: int, language: str) -> str:
    return ""


class Service:
    """The answers of one service. Its public attributes may be changed while it runs."""

    def __init__(
        self,
        flavour: Flavour,
        *,
        brain: Brain | None,
        voice: Voice | None,
        recogniser: Recogniser | None,
        profile: Profile | None,
        style: Style | None,
        models: Iterable[Model],
        meter: RateMeter | None,
        seed: int,
    ) -> None:
        self.flavour = flavour
        self.brain: Brain = brain or FixtureBrain({})
        self.voice = voice or PicoVoice()
        self.recogniser = recogniser or _hears_nothing
        self.profile = profile or PROFILES["instant"]
        self.style = style or Style()
        self.models = {one.name: one for one in (*MODELS[flavour], *models)}
        self.meter = meter or RateMeter(flavour)
        self.faults = FaultBox(seed)
        self._dice = random.Random(seed)
        self._cache: dict[str, list[Any]] = {}

    def inject(self, kind: str, **how: Any) -> None:
        """Let a fault wait for its request; see `Fault`."""
        self.faults.add(Fault(kind=kind, **how))

    async def _answer(
        self, request: web.BaseRequest, seen: Seen, headers: dict[str, str], deployment: str
    ) -> web.StreamResponse:
        """Answer a request whose address, key and body are known. Raises Refusal."""
        fault = self.faults.pick(seen.route)
        if fault is not None and (done := await self._strike(fault, request, seen, headers)) is not None:
            return done
        if seen.route == "chat":
            return await self._chat(request, seen, headers, seen.body, deployment, fault)
        if seen.route == "speech":
            return await self._speech(request, seen, headers, seen.body, deployment, fault)
        if seen.route == "transcription":
            return await self._transcription(request, seen, headers, deployment, fault)
        return self._json(self._model_list(), seen, headers)

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
        whole = WholeAnswer(request, seen, fault, self.faults)
        if await whole.before_head():
            return web.Response()  # nobody hears it
        body = teller.whole()
        if fault is None and first_s:
            out = body["usage"]["completion_tokens"]
            await asyncio.sleep(first_s + (out / tokens_per_s if tokens_per_s else 0))
        return await whole.send(orjson.dumps(body), headers)

    def _mishap(self) -> Fault | None:
        """What the profile's dice do to this answer."""
        profile = self.profile
        if profile.is_slow(self._dice):
            return self.faults.own(Fault(kind="slow_first_token", delay_ms=profile.slow_ms))
        if profile.is_hung(self._dice):
            return self.faults.own(Fault(kind="silence", after_tokens=profile.hung_after_tokens))
        return None

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
        whole = WholeAnswer(request, seen, fault, self.faults)
        if await whole.before_head():
            return web.Response()  # nobody hears it
        if fault is None:
            await asyncio.sleep(self.profile.transcription.sample_s(self._dice))
        text = await asyncio.to_thread(self.recogniser, s16, rate_hz, fields.get("language", ""))
        headers |= self.meter.headers()
        if fields.get("response_format") == "text":
            seen.status = 200
            seen.end("done")
            return web.Response(text=text + "\n", headers=headers)
        if fields.get("stream") == "true" and "whisper" not in fields["model"]:
            told = TranscriptStream(request, seen, fault, self.faults)
            return await told.run(text, headers, self.style)
        seconds = len(s16) / 2 / rate_hz
        body = transcription_body(text, seconds, fields, headers["x-request-id"], self.flavour)
        return await whole.send(orjson.dumps(body), headers)

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
        if len(self._cache) >= KEPT_PROMPTS:
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
