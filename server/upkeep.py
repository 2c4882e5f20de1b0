"""What the process does for its providers beside the calls: warm them up, and ask those again that nobody can use.

    start ─► models loaded, fixed texts rendered, every service reached once ─► ready
    then, every ROUND_S ─► a provider that cannot work gets one small request, as a call would make it

Without the second part a process that a load balancer has taken out would never learn that its providers are back: no
call would ask them. The breaker's pause (2 s, doubled up to 30 s) is the back-off. All is counted as calls are.
"""

from __future__ import annotations

import array
import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing

from providers.base import AudioChunk, AudioFormat, ChatRequest, Message
from providers.check import Checked
from providers.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from providers.fallback_model import ModelCandidate
from providers.fallback_synthesizer import SpeechCandidate
from providers.health import Attempt, ProviderHealth
from server.agent.settings import AgentSettings
from server.call.clips import Clips, speech_request
from server.call.recogniser import Ear, open_stream, transcriber_config
from server.catalogue import Catalogue
from server.readiness import variants
from server.store.agents import AgentVersion

log = logging.getLogger(__name__)

ROUND_S = 2.0
ASK_S = 5.0
"""For the first sign of an answer; a call waits no longer."""
ASKED_TEXT = "1"
"""What is asked and spoken: any language has it, and it costs next to nothing."""
MAX_TOKENS = 16
TONE_MS = 500
TONE_HZ = 500


class Upkeep:
    """One task of the process runs `run`.

    Attributes:
        is_warm: every agent has been prepared once, whatever failed of it.
    """

    def __init__(self, catalogue: Catalogue, clips: Clips, agents: Callable[[], Sequence[AgentVersion]]) -> None:
        self.is_warm = False
        self._catalogue = catalogue
        self._clips = clips
        self._agents = agents

    async def run(self) -> None:
        """Warm up, then look after what fails, until cancelled."""
        await self.warm_up()
        while True:
            await asyncio.sleep(ROUND_S)
            if not all(one.can_work for one in self._catalogue.healths()):
                await self.ask_again()

    async def warm_up(self) -> None:
        """Load models, render fixed texts, reach every service: the first call shall be as quick as the second."""
        reached: set[int] = set()
        for slug, settings in self._each():
            providers = self._catalogue.for_call(settings)
            for failed in await self._clips.prepare(providers.synthesizer, settings, self._catalogue.understudy):
                log.error("not rendered: %s", failed, extra={"event": "clip_failed", "agent": slug})
            for ear in providers.ears:
                # Every agent has phrases of its own, which opening makes ready.
                if ear.health.claim():
                    await _hear(slug, ear, settings, providers.phrases, only_open=id(ear.health) in reached)
                    reached.add(id(ear.health))
            for one in self._catalogue.candidates(settings).models:
                if isinstance(one.provider, Checked) and id(one.health) not in reached and one.health.claim():
                    await _settle(slug, "think", one.health.begin(), one.health, _reach(one.provider))
                    reached.add(id(one.health))
        self.is_warm = True
        log.info("ready", extra={"event": "ready", "agents": len(self._agents())})

    async def ask_again(self) -> None:
        """One request to each provider that cannot work and whose breaker lets us, as an agent would make it."""
        asked: set[int] = set()

        def is_due(health: ProviderHealth) -> bool:
            if health.can_work or id(health) in asked or not health.claim():
                return False
            asked.add(id(health))
            return True

        for slug, settings in self._each():
            found = self._catalogue.candidates(settings)
            for ear in found.ears:
                if is_due(ear.health):
                    await _hear(slug, ear, settings, (), only_open=False)
            for model in found.models:
                if is_due(model.health):
                    await _settle(slug, "think", model.health.begin(), model.health, _think(model, settings))
            for voice in found.voices:
                if is_due(voice.health):
                    await _settle(slug, "speak", voice.health.begin(), voice.health, _speak(voice, settings))

    def _each(self) -> Iterator[tuple[str, AgentSettings]]:
        for agent in self._agents():
            for settings in variants(agent.settings):
                yield agent.slug, settings


# ── one request ───────────────────────────────────────────────────────────────────────────────────────────────


async def _settle(slug: str, verb: str, attempt: Attempt, health: ProviderHealth, asking: Awaitable[None]) -> None:
    """Wait for `asking` and tell the health; a failure is logged and goes no further."""
    try:
        async with asyncio.timeout(ASK_S):
            await asking
        attempt.succeeded()
    except TimeoutError:
        _tell(slug, verb, attempt, ProviderTimeout("first", round(ASK_S * 1000), provider=health.provider))
    except ProviderError as error:
        _tell(slug, verb, attempt, error)
    finally:
        attempt.dropped()


def _tell(slug: str, verb: str, attempt: Attempt, error: ProviderError) -> None:
    attempt.failed(error)
    text = "agent %s cannot %s by %s"
    log.error(text, slug, verb, error, extra={"event": "provider_failed", "agent": slug})


async def _reach(provider: Checked) -> None:
    check = await provider.check()
    if check.failure is not None:
        raise check.failure
    if check.problem:
        log.error("%s: %s", check.provider, check.problem, extra={"event": "provider_failed"})


async def _hear(slug: str, ear: Ear, settings: AgentSettings, phrases: tuple[str, ...], *, only_open: bool) -> None:
    """Connect, and have a tone recognised: services that take whole utterances connect for those only."""
    audio_format = ear.provider.audio_formats[0]
    config = transcriber_config(settings, audio_format, "", phrases)
    try:
        opened = await open_stream(ear, config)
    except ProviderError as error:
        log.error("agent %s cannot hear by %s", slug, error, extra={"event": "provider_failed", "agent": slug})
        return

    async def recognise() -> None:
        if only_open:
            return
        opened.stream.begin_nowait(1, 0)
        opened.stream.feed_nowait(_tone(audio_format))
        opened.stream.commit_nowait(1)
        async for _ in opened.stream:
            return
        raise ProviderUnavailable("ended its stream", provider=ear.provider.name)

    try:
        await _settle(slug, "hear", opened.attempt, ear.health, recognise())
    finally:
        await opened.stream.aclose()


async def _think(one: ModelCandidate, settings: AgentSettings) -> None:
    request = ChatRequest(
        messages=(Message("user", ASKED_TEXT),),
        model=one.model or settings.llm.model,
        max_tokens=MAX_TOKENS,
        language=settings.language,
        script=settings.script,
    )
    async with aclosing(one.provider.stream(request)) as events:  # type: ignore[type-var]
        async for _ in events:
            return
    raise ProviderUnavailable("empty answer", provider=one.provider.name)


async def _speak(one: SpeechCandidate, settings: AgentSettings) -> None:
    request = speech_request(settings, ASKED_TEXT)
    if one.voice:
        request = dataclasses.replace(request, voice=one.voice)
    async with aclosing(one.provider.stream(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, AudioChunk):
                return
    raise ProviderUnavailable("no audio", provider=one.provider.name)


def _tone(audio_format: AudioFormat) -> bytes:
    """TONE_MS of a square wave that no level gate takes for silence."""
    half_samples = audio_format.rate_hz // (2 * TONE_HZ)
    if audio_format.encoding == "s16":
        period = array.array("h", [3000] * half_samples + [-3000] * half_samples).tobytes()
    else:
        # The sign bit of either law's codes.
        period = b"\xa0" * half_samples + b"\x20" * half_samples
    return period * (TONE_MS * TONE_HZ // 1000)
