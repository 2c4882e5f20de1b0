"""The call's ears: one recognition at a time, reopened when it breaks, with the audio that nobody has understood yet.

    ring of the uplink ──► utterance n: begin … commit ──► TranscriptStream ──► interim, final
            ▲                        │                          │ breaks
            └── replay every utterance without a final ◄────────┘ the same provider again, or the next one

Guarantees: each committed utterance gets exactly one final, from whichever stream was first with it; an utterance that
streams keep breaking on gets an empty one, so that the conversation never waits for nothing. The ring holds eight
seconds: of a longer utterance the end is replayed. The conversation is told that it is deaf only when no provider could
be opened for as long as the ring lasts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from providers.base import AudioFormat, Final, Interim, Transcriber, TranscriberConfig, TranscriptStream
from providers.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from providers.health import Attempt, ProviderHealth
from server.agent.settings import AgentSettings
from server.call.uplink import UplinkPath
from server.dialogue import event as ev

log = logging.getLogger(__name__)

OPEN_MS = 3000
CLOSE_S = 1.0
# Times that one utterance is replayed before it is taken for not understood.
MAX_REPLAYS = 3
# A stream that lived so long, or understood something, worked: its end says nothing about the next one.
ESTABLISHED_S = 2.0
# Streams in a row that broke or could not be opened, without one final between them, before the call is deaf: so many
# at least, and for a failure that may pass so long at least; the ring keeps what is said meanwhile.
MIN_FAILURES = 6
PATIENCE_S = 8.0
# Between two openings: at once the first time, then longer, spread so that calls cut together do not return together.
PAUSE_S, MAX_PAUSE_S = 0.05, 1.0
SPREAD = 0.5

@dataclass(frozen=True, slots=True)
class Ear:
    """One transcriber that may serve the call. `model` is its own name of a model; empty is its default."""

    provider: Transcriber
    health: ProviderHealth
    model: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A recognition that was connected; the attempt is settled by what becomes of it."""

    stream: TranscriptStream
    attempt: Attempt


OpenedBefore = Callable[[], Awaitable[Opened | None]]


class Recogniser:
    """Runs until cancelled. `ahead` waits for the first ear's stream that was begun before the call had audio.

    `note` is told of finals that settle nothing: of utterances that were settled, or go on.
    """

    __slots__ = (
        "_ahead",
        "_config",
        "_dispatch",
        "_ears",
        "_failing_since_s",
        "_failures",
        "_may_pass",
        "_note",
        "_opened",
        "_replays",
        "_uplink",
        "final_came",
        "name",
    )

    def __init__(
        self,
        ears: Sequence[Ear],
        config: TranscriberConfig,
        uplink: UplinkPath,
        dispatch: Callable[[ev.Event], None],
        ahead: OpenedBefore | None = None,
        note: Callable[[Final], None] = lambda final: None,
    ) -> None:
        self.name = ears[0].provider.name
        self.final_came = asyncio.Event()
        self._ears = ears
        self._config = config
        self._uplink = uplink
        self._dispatch = dispatch
        self._ahead = ahead
        self._note = note
        self._opened: Opened | None = None
        self._failures = 0
        self._failing_since_s = 0.0
        self._may_pass = False
        self._replays: dict[int, int] = {}

    async def run(self) -> None:
        at = 0
        error: ProviderError | None = None
        if self._ahead is not None:
            self._opened = await self._ahead()
        while not self._is_hopeless():
            ear = self._ears[0] if self._opened is not None else self._choose(at)
            began_s = _now_s()
            try:
                await self._listen(ear)
            except ProviderError as failed:
                error = failed
                log.warning("recogniser failed: %s", failed, extra={"event": "provider_failed"})
                self._count(failed, _now_s() - began_s)
            await self._close()
            self._give_up_hopeless()
            at = self._next(at, ear, error)
            await asyncio.sleep(self._pause_s())
        self._dispatch(ev.TranscriberFailed(str(error)))
        self.final_came.set()

    async def aclose(self) -> None:
        await self._close()

    # ── which ear ─────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self, at: int) -> Ear:
        """The ear at `at`, or the next one whose breaker lets us; when none does, the first: a call needs ears."""
        ears = (*self._ears[at:], *self._ears[:at])
        return next((ear for ear in ears if ear.health.claim()), ears[0])

    def _count(self, error: ProviderError, lived_s: float) -> None:
        if not self._failures or lived_s >= PATIENCE_S:  # a silent caller's stream may end without any final
            self._failures, self._may_pass, self._failing_since_s = 0, False, _now_s()
        self._failures += 1
        self._may_pass |= error.retryable

    def _is_hopeless(self) -> bool:
        if self._failures < MIN_FAILURES:
            return False
        return not self._may_pass or _now_s() - self._failing_since_s >= PATIENCE_S

    def _pause_s(self) -> float:
        if self._failures <= 1:
            return 0.0
        longest_s = min(MAX_PAUSE_S, PAUSE_S * 2.0 ** min(self._failures - 2, 10))
        return longest_s * (1 - SPREAD * random.random())

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
        if self._opened is None:
            self._opened = await open_stream(ear, self._config)
        stream, attempt = self._opened.stream, self._opened.attempt
        # Nobody may say anything for a long time: that the stream lives is the news that a breaker waits for.
        lives = asyncio.get_running_loop().call_later(ESTABLISHED_S, attempt.succeeded)
        try:
            for number in self._uplink.attach(stream):
                self._replays[number] = self._replays.get(number, 0) + 1
            async for one in stream:
                attempt.succeeded()
                if isinstance(one, Interim):
                    self._dispatch(ev.TranscriptInterim(one.utterance_no, one.text))
                    continue
                span_ms = self._uplink.settle(one.utterance_no, has_words=bool(one.text))
                if span_ms is None:
                    self._note(one)
                    continue  # settled already, or open again
                self._failures = 0
                self._replays.pop(one.utterance_no, None)
                ear.health.observer.on_usage("stt", ear.provider.name, "audio_ms", span_ms)
                self._dispatch(ev.TranscriptFinal(one.utterance_no, one.text, one.confidence))
                self.final_came.set()
            raise ProviderUnavailable("the recogniser ended its stream", provider=ear.provider.name)
        except ProviderError as error:
            if attempt.is_settled:
                ear.health.on_cut(error)
            else:
                attempt.failed(error)
            raise
        finally:
            lives.cancel()
            attempt.dropped()

    async def _close(self) -> None:
        self._uplink.detach()
        opened, self._opened = self._opened, None
        if opened is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await opened.stream.aclose()
            except (TimeoutError, ProviderError) as error:
                log.warning("recogniser did not close: %s", error)

    def _give_up_hopeless(self) -> None:
        """Utterances that streams keep breaking on are taken for not understood."""
        for number in [one for one, count in self._replays.items() if count >= MAX_REPLAYS]:
            del self._replays[number]
            if self._uplink.settle(number) is not None:
                self._dispatch(ev.TranscriptFinal(number, ""))
                self.final_came.set()


async def open_stream(ear: Ear, config: TranscriberConfig) -> Opened:
    """One attempt to open a recognition by the ear's own model, within OPEN_MS; a failure is told to its health.

    Success is not yet: a service may accept a connection and refuse to work on it. Raises ProviderError.
    """
    attempt = ear.health.begin()
    try:
        async with asyncio.timeout(OPEN_MS / 1000):
            return Opened(await ear.provider.open(dataclasses.replace(config, model=ear.model)), attempt)
    except TimeoutError:
        error = ProviderTimeout("connect", OPEN_MS, provider=ear.provider.name)
        attempt.failed(error)
        raise error from None
    except ProviderError as failed:
        attempt.failed(failed)
        raise
    except asyncio.CancelledError:
        attempt.dropped()
        raise


def _now_s() -> float:
    return asyncio.get_running_loop().time()


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
    """How this agent listens, by whichever ear and its model; `phrases` are expected after the agent's own."""
    stt = settings.stt
    return TranscriberConfig(
        audio_format=audio_format,
        language=stt.language or settings.language,
        phrases=(*stt.phrases, *phrases),
        phrase_weight=stt.phrase_weight,
        profanity=stt.profanity,
        stable_words=stt.stable_words,
        segmentation_silence_ms=stt.segmentation_silence_ms,
        initial_silence_ms=stt.initial_silence_ms,
        caller=caller,
    )
