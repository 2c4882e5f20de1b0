"""What the process does for its providers beside the calls: warm them up, and ask those again that nobody can use.

    start ─► models loaded, fixed texts rendered, every service reached once ─► ready
    then, every ROUND_S ─► an agent that has come since is warmed up
                        ─► a provider that cannot work, or failed half a minute ago, gets one small request
                        ─► fixed texts that another voice had to speak are rendered again, when their own is back

Without the second a process that a load balancer has taken out would never learn that its providers are back: no call
would ask them. The breaker's pause (2 s, doubled up to 30 s) is the back-off. All is counted as calls are. Texts are
rendered again one after the other, after RENEW_S, then at ever longer intervals up to MAX_RENEW_S while some are left.
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
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.health import Attempt, ProviderHealth
from server.agent.settings import AgentSettings
from server.call.clips import Clips, speech_request
from server.call.recogniser import CLOSE_S, Ear, open_stream, transcriber_config
from server.catalogue import Catalogue
from server.readiness import variants
from server.store.agents import AgentVersion

log = logging.getLogger(__name__)

ROUND_S = 2.0
RENEW_S, MAX_RENEW_S = 10.0, 300.0
"""Between two rounds of rendering stand-ins again: doubled while some are left, the first when a voice comes back."""
ASK_S = 5.0
"""For the first sign of an answer; a call waits no longer."""
ASKED_TEXT = "1"
"""What is asked and spoken: any language has it, and it costs next to nothing."""
MAX_TOKENS = 16
TONE_MS = 500
TONE_HZ = 500


class Upkeep:
    """One task of the process runs `run`.

    Args:
        now_s: the clock of the rounds of `renew_clips`; the loop's when None.
        on_warm: called once, when everything that calls need is there, before the process says that it is ready.
    Attributes:
        is_warm: every agent has been prepared once, whatever failed of it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        clips: Clips,
        agents: Callable[[], Sequence[AgentVersion]],
        now_s: Callable[[], float] | None = None,
        on_warm: Callable[[], object] = lambda: None,
    ) -> None:
        self.is_warm = False
        self._on_warm = on_warm
        self._catalogue = catalogue
        self._clips = clips
        self._agents = agents
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        self._warmed: frozenset[str] = frozenset()  # ids of versions
        self._reached: set[int] = set()  # ids of the healths of providers that were asked at the start
        self._voices_well: frozenset[str] = frozenset()
        self._renew_pause_s = RENEW_S
        self._renewed_at_s = 0.0

    async def run(self) -> None:
        """Warm up, then look after what fails, until cancelled."""
        await self.warm_up()
        self._on_warm()
        self.is_warm = True
        log.info("ready", extra={"event": "ready", "agents": len(self._agents())})
        self._renewed_at_s = self._now_s()
        while True:
            await asyncio.sleep(ROUND_S)
            await self.warm_up()
            await self.ask_again()
            await self.renew_clips()

    async def warm_up(self) -> None:
        """For agents that are new: load models, render fixed texts, reach every service.

        Their first call shall be as quick as the second.
        """
        agents = self._agents()
        for agent in agents:
            if agent.id not in self._warmed:
                for settings in variants(agent.settings):
                    await self._warm_up(agent.slug, settings)
        self._warmed = frozenset(one.id for one in agents)

    async def _warm_up(self, slug: str, settings: AgentSettings) -> None:
        providers = self._catalogue.for_call(settings)
        for failed in await self._clips.prepare(providers.synthesizer, settings, self._catalogue.understudy):
            log.error("not in its own voice: %s", failed, extra={"event": "clip_failed", "agent": slug})
        for ear in providers.ears:
            # Every agent has phrases of its own, which opening makes ready.
            if ear.health.claim():
                await _hear(slug, ear, settings, providers.phrases, only_open=id(ear.health) in self._reached)
                self._reached.add(id(ear.health))
        for one in self._catalogue.candidates(settings).models:
            if isinstance(one.provider, Checked) and id(one.health) not in self._reached and one.health.claim():
                await _settle(slug, "think", one.health.begin(), one.health, _reach(one.provider, one.model))
                self._reached.add(id(one.health))

    async def ask_again(self) -> None:
        """One request to each provider that needs it and whose breaker lets us, as an agent would make it."""
        if not any(one.needs_asking for one in self._catalogue.healths()):
            return
        asked: set[int] = set()

        def is_due(health: ProviderHealth) -> bool:
            if not health.needs_asking or id(health) in asked or not health.claim():
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

    async def renew_clips(self) -> None:
        """Render stand-ins again that are due, each by its own voice and by no other."""
        now_s = self._now_s()
        healths = [one for one in self._catalogue.healths() if one.service == "tts"]
        well = frozenset(one.provider for one in healths if one.can_work and not one.last_error)
        is_back, self._voices_well = bool(well - self._voices_well), well
        if is_back or not self._clips.stand_ins:
            self._renew_pause_s = RENEW_S
        if not self._clips.stand_ins or now_s < self._renewed_at_s + self._renew_pause_s:
            return
        self._renewed_at_s = now_s
        self._renew_pause_s = min(2 * self._renew_pause_s, MAX_RENEW_S)
        failed: set[str] = set()
        for slug, settings in self._each():
            voice = self._catalogue.candidates(settings).voices[0]
            name = voice.provider.name
            if name in failed or not voice.health.can_work or not self._clips.has_stand_in(voice.provider, settings):
                continue
            try:
                renewed = await self._clips.renew(FallbackSynthesizer([voice]), settings)
                log.info("%d texts are in their own voice", renewed, extra={"event": "clips_renewed", "agent": slug})
            except ProviderError as error:
                failed.add(name)
                log.warning("not in its own voice yet: %s", error, extra={"event": "clip_failed", "agent": slug})

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


async def _reach(provider: Checked, model: str) -> None:
    check = await provider.check(model)
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

    await _settle(slug, "hear", opened.attempt, ear.health, recognise())
    try:
        async with asyncio.timeout(CLOSE_S):
            await opened.stream.aclose()
    except (TimeoutError, ProviderError) as error:
        log.warning("recogniser did not close: %s", error, extra={"event": "provider_failed", "agent": slug})


async def _think(one: ModelCandidate, settings: AgentSettings) -> None:
    request = ChatRequest(
        messages=(Message("user", ASKED_TEXT),),
        model=one.model,
        max_tokens=MAX_TOKENS,
        language=settings.language,
        script=settings.script,
    )
    async with aclosing(one.provider.stream(request)) as events:  # type: ignore[type-var]
        async for _ in events:
            return
    raise ProviderUnavailable("empty answer", provider=one.provider.name)


async def _speak(one: SpeechCandidate, settings: AgentSettings) -> None:
    request = dataclasses.replace(speech_request(settings, ASKED_TEXT), voice=one.voice, style=one.style)
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
