"""The call's ears: one recognition at a time, reopened when it breaks, with the audio that nobody has understood yet.

    ring of the uplink ──► utterance n: begin … commit ──► TranscriptStream ──► interim, final
            ▲                        │                          │ breaks
            └── replay every utterance without a final ◄────────┘ the same provider again, or the next one

Guarantees: each committed utterance gets exactly one final, from whichever stream was first with it; an utterance that
streams keep breaking on gets an empty one, so that the conversation never waits for nothing. The ring holds eight
seconds: of a longer utterance the end is replayed. The conversation is told that it is deaf only when no provider is
left to try.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from providers.base import AudioFormat, Final, Transcriber, TranscriberConfig, TranscriptStream
from providers.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from providers.health import ProviderHealth
from server.agent.settings import AgentSettings
from server.call.uplink import UplinkPath
from server.dialogue import event as ev

log = logging.getLogger(__name__)

OPEN_MS = 3000
CLOSE_S = 1.0
# Times that one utterance is replayed before it is taken for not understood.
MAX_REPLAYS = 3
# Streams in a row that were opened, or could not be, without one final between them.
MAX_FAILURES = 6
# Between two openings: at once the first time, then longer.
PAUSE_S, MAX_PAUSE_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Ear:
    """One transcriber that may serve the call."""

    provider: Transcriber
    health: ProviderHealth


class Recogniser:
    """Runs until cancelled. `ahead` is a stream of the first ear that was opened before the call had audio."""

    __slots__ = ("_config", "_dispatch", "_ears", "_failures", "_replays", "_stream", "_uplink", "final_came", "name")

    def __init__(
        self,
        ears: Sequence[Ear],
        config: TranscriberConfig,
        uplink: UplinkPath,
        dispatch: Callable[[ev.Event], None],
        ahead: TranscriptStream | None = None,
    ) -> None:
        self.name = ears[0].provider.name
        self.final_came = asyncio.Event()
        self._ears = ears
        self._config = config
        self._uplink = uplink
        self._dispatch = dispatch
        self._stream = ahead
        self._failures = 0
        self._replays: dict[int, int] = {}

    async def run(self) -> None:
        at = 0
        error: ProviderError | None = None
        while self._failures < MAX_FAILURES:
            ear = self._choose(at)
            if ear is None:
                error = error or ProviderUnavailable("every recogniser is known to be down", provider=self.name)
                break
            try:
                await self._listen(ear)
            except ProviderError as failed:
                error = failed
                ear.health.on_failure(failed)
                log.warning("recogniser failed: %s", failed, extra={"event": "provider_failed"})
            await self._close()
            self._failures += 1
            self._give_up_hopeless()
            at = self._next(at, ear, error)
            await asyncio.sleep(min(MAX_PAUSE_S, PAUSE_S * 2 ** (self._failures - 2)) if self._failures > 1 else 0)
        self._dispatch(ev.TranscriberFailed(str(error)))
        self.final_came.set()

    async def aclose(self) -> None:
        await self._close()

    # ── which ear ─────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self, at: int) -> Ear | None:
        """The ear at `at`, or the next one whose breaker lets us; None when there is none."""
        for ahead in range(len(self._ears)):
            ear = self._ears[(at + ahead) % len(self._ears)]
            if self._stream is not None or ear.health.allows():
                return ear
        return None

    def _next(self, at: int, ear: Ear, error: ProviderError | None) -> int:
        """The same one again when its failure may pass and it has the budget; else the next."""
        here = self._ears.index(ear)
        if error is not None and ear.health.polite_wait_ms(error) is not None:
            return here
        after = (here + 1) % len(self._ears)
        if after != here:
            ear.health.observer.on_fallback("stt", ear.provider.name, self._ears[after].provider.name)
        return after

    # ── one stream ────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self, ear: Ear) -> None:
        """Open, replay, and pass on what is understood until the stream ends. A stream that just ends has failed."""
        ear.health.on_attempt()
        if self._stream is None:
            try:
                async with asyncio.timeout(OPEN_MS / 1000):
                    self._stream = await ear.provider.open(self._config)
            except TimeoutError:
                raise ProviderTimeout("connect", OPEN_MS, provider=ear.provider.name) from None
        stream = self._stream
        for number in self._uplink.attach(stream):
            self._replays[number] = self._replays.get(number, 0) + 1
        async for one in stream:
            if isinstance(one, Final):
                span_ms = self._uplink.settle(one.utterance_no)
                if span_ms is None:
                    continue  # settled already, or open again
                self._failures = 0
                self._replays.pop(one.utterance_no, None)
                ear.health.on_success()
                ear.health.observer.on_usage("stt", ear.provider.name, "audio_ms", span_ms)
                self._dispatch(ev.TranscriptFinal(one.utterance_no, one.text, one.confidence))
                self.final_came.set()
            else:
                self._dispatch(ev.TranscriptInterim(one.utterance_no, one.text))
        raise ProviderUnavailable("the recogniser ended its stream", provider=ear.provider.name)

    async def _close(self) -> None:
        self._uplink.detach()
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await stream.aclose()
            except (TimeoutError, ProviderError) as error:
                log.warning("recogniser did not close: %s", error)

    def _give_up_hopeless(self) -> None:
        """Utterances that streams keep breaking on are taken for not understood."""
        for number in [one for one, count in self._replays.items() if count >= MAX_REPLAYS]:
            del self._replays[number]
            if self._uplink.settle(number) is not None:
                self._dispatch(ev.TranscriptFinal(number, ""))
                self.final_came.set()


def common_format(ears: Sequence[Ear], wire: AudioFormat) -> AudioFormat:
    """What all ears can be fed: the carrier's own codes where each of them takes those, else what the first likes.

    Raises ProviderUnavailable when there is no format that all of them take.
    """
    for one in (wire, *ears[0].provider.audio_formats):
        if all(one in ear.provider.audio_formats for ear in ears):
            return one
    names = ", ".join(ear.provider.name for ear in ears)
    raise ProviderUnavailable(f"no audio format that each of {names} takes")


def transcriber_config(
    settings: AgentSettings, audio_format: AudioFormat, caller: str = "", phrases: tuple[str, ...] = ()
) -> TranscriberConfig:
    """How this agent listens; `phrases` are expected after the agent's own."""
    stt = settings.stt
    return TranscriberConfig(
        audio_format=audio_format,
        language=stt.language or settings.language,
        phrases=(*stt.phrases, *phrases),
        model=stt.model,
        profanity=stt.profanity,
        stable_words=stt.stable_words,
        segmentation_silence_ms=stt.segmentation_silence_ms,
        initial_silence_ms=stt.initial_silence_ms,
        caller=caller,
    )
