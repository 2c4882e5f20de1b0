"""Speech to text by Azure Speech: one recogniser of the SDK for each call.

    feed_nowait ─► SDK ─ ws ─► service          service ─► SDK's threads ─► SdkBridge ─► Assembly ─► Interim, Final

The service recognises one endless stream; `assembly` cuts it into our utterances. A committed utterance gets its Final
from whichever comes first: the phrase that answers our commit, the end of the phrase by the silence that we feed, or a
timer that takes what is known by then. When the service fails, everything recognised so far is delivered before the
error is raised, and it is raised again at every further step: a stream that failed stays failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from providers.azure.assembly import Assembly, Counters, Hypothesis, Phrase
from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import build
from providers.azure.sdk_recognizer import FORMATS, Connected, RecognizerEvent, SdkRecognizer, Stopped
from providers.azure.token import USE_S, TokenSource
from providers.base import AudioFormat, Final, Interim, TranscriberConfig, TranscriptEvent, TranscriptStream
from providers.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from providers.sdk_thread import Channel, SdkBridge

MAX_UNREAD_EVENTS = 64
SILENCE = {"pcmu": b"\xff", "pcma": b"\xd5", "s16": b"\x00"}
KEEPALIVE_MS = 100
# When the service had ended its phrase before we ended the utterance: time for a last word to show itself.
WHOLE_WAIT_S = 0.15
# Beyond the segmentation silence, so that the service's own end of phrase is certain to be in it.
MARGIN_MS = 300
# Commits in a row without an answer after which the service is believed not to know them.
MAX_UNANSWERED = 3
# An utterance begins with audio that was kept: that much ahead of real time is usual.
PRE_ROLL_S = 0.5
# How much faster than real time the service recognises, at least (assumed; nothing is published).
SERVICE_SPEED = 2
# What may be fed ahead of real time: a replay of 8 s after a reconnect, and silence of ours.
MAX_AHEAD_MS = 20_000


class AzureTranscriber:
    """Transcriber "azure", or another `name`. Belongs to one event loop.

    Its streams share one way out of the SDK's threads.
    """

    __slots__ = ("_bridge", "_options", "_refreshing", "_streams", "_tokens", "audio_formats", "commits", "name")

    def __init__(self, options: AzureSpeechOptions, *, name: str = "azure") -> None:
        self.name = name
        self.audio_formats: tuple[AudioFormat, ...] = tuple(FORMATS)
        self.commits = Commits()
        self._options = options
        self._bridge: SdkBridge | None = None
        self._tokens: TokenSource | None = None
        self._streams: WeakSet[AzureTranscriptStream] = WeakSet()
        self._refreshing: asyncio.Task[None] | None = None

    def attach_nowait(self) -> None:
        """A recogniser is made for one call's settings: `open` connects it."""

    def detach_nowait(self) -> None:
        """The stream's `aclose` lets go."""

    async def open(self, config: TranscriberConfig) -> TranscriptStream:
        """Connect; audio may be fed at once afterwards.

        Raises:
            ProviderRejected: audio format or configuration, key, quota.
            ProviderTimeout: phase connect.
            ProviderUnavailable: no connection, 5xx.
        """
        if config.audio_format not in FORMATS:
            raise ProviderRejected(f"audio: cannot take {config.audio_format}", status=400, provider=self.name)
        loop = asyncio.get_running_loop()
        if self._bridge is None or self._tokens is None:
            self._bridge, self._tokens = SdkBridge(loop), TokenSource(self._options, self.name)
        stream = AzureTranscriptStream(self._options, config, self._bridge, self.commits, self.name)
        is_open = False
        try:
            async with asyncio.timeout(self._options.connect_ms / 1000):
                await stream.start(await self._tokens.get())
            is_open = True
        except TimeoutError:
            raise ProviderTimeout("connect", self._options.connect_ms, provider=self.name) from None
        finally:
            if not is_open:
                await stream.aclose()
        self._streams.add(stream)
        if self._options.use_token and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = loop.create_task(self._refresh(), name="azure tokens")
        return stream

    async def aclose(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        for stream in list(self._streams):
            await stream.aclose()

    async def _refresh(self) -> None:
        """New tokens for the streams that live longer than one; ends with the last stream."""
        assert self._tokens is not None
        while any(not stream.is_closed for stream in self._streams):
            await asyncio.sleep(USE_S)
            try:
                token = await self._tokens.get()
            except ProviderError:
                continue  # the next connection says so
            for stream in self._streams:
                stream.set_token(token)


@dataclass(slots=True)
class Commits:
    """Whether the service answers our commits, as all streams of the process found it."""

    answered: int = 0
    unanswered: int = 0  # in a row
    refused: int = 0  # by the SDK's rate limit

    def are_worth_it(self) -> bool:
        return self.unanswered < MAX_UNANSWERED


class AzureTranscriptStream:
    """One call. See the module and `TranscriptStream`."""

    __slots__ = ("__weakref__", "_assembly", "_awaiting", "_bytes_per_ms", "_channel", "_commits", "_config", "_error",
                 "_events", "_fed_until_s", "_has_stopped", "_keepalive", "_loop", "_name", "_options", "_quiet_bytes",
                 "_quiet_since_s", "_ready", "_recognizer", "_silence", "_wake", "dropped_bytes", "dropped_events",
                 "is_closed")  # fmt: skip

    def __init__(
        self,
        options: AzureSpeechOptions,
        config: TranscriberConfig,
        bridge: SdkBridge,
        commits: Commits,
        name: str,
    ) -> None:
        self.is_closed = False
        self.dropped_bytes = 0
        self.dropped_events = 0
        fmt = config.audio_format
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._config = config
        self._commits = commits
        self._name = name
        self._bytes_per_ms = fmt.rate_hz * fmt.bytes_per_sample // 1000
        self._silence = SILENCE[fmt.encoding]
        self._assembly = Assembly(self._bytes_per_ms * 1000)
        self._channel: Channel[RecognizerEvent] = bridge.channel(self._on_event, self._on_callback_error)
        self._recognizer: SdkRecognizer | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._events: deque[TranscriptEvent] = deque()
        self._error: ProviderError | None = None
        self._has_stopped = False
        self._wake = asyncio.Event()
        self._awaiting: dict[int, asyncio.TimerHandle] = {}
        self._keepalive: asyncio.TimerHandle | None = None
        self._fed_until_s = 0.0
        self._quiet_bytes = 0
        self._quiet_since_s = 0.0

    @property
    def counters(self) -> Counters:
        return self._assembly.counters

    async def start(self, token: str) -> None:
        """Build and connect. Raises ProviderError."""
        make = partial(SdkRecognizer.start, self._options, token, self._config, self._channel, self._name)
        try:
            self._recognizer = await build(make)
        except (RuntimeError, ValueError) as error:
            raise ProviderRejected(f"the SDK refused: {_first_line(error)}", status=400, provider=self._name) from error
        await self._ready
        self._keep_alive()

    # ── from the call ─────────────────────────────────────────────────────────────────────────────────────────

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        if not self._is_dead():
            self._assembly.begin(utterance_no, start_ms)

    def feed_nowait(self, audio: bytes) -> None:
        """Audio outside an utterance is dropped: the service needs none to know where a phrase ends."""
        if self._is_dead() or not self._assembly.is_open or not audio:
            return
        now_s = self._loop.time()
        if self._is_too_far_ahead(now_s, len(audio)):
            self.dropped_bytes += len(audio)
            return
        if self._write(audio):
            self._assembly.feed(len(audio))
            self._watch(now_s, len(audio))

    def commit_nowait(self, utterance_no: int) -> None:
        if self._is_dead() or self._assembly.is_committed(utterance_no):
            return
        if not self._assembly.may_commit(utterance_no):
            self._put(Final(utterance_no, ""))
            return
        token = self._commit()
        self._assembly.commit(utterance_no, token)
        wait_s = self._options.final_wait_ms / 1000 + self._slack_s()
        if not token:
            self._feed_silence()
            if self._assembly.seems_whole(utterance_no):
                wait_s = min(wait_s, WHOLE_WAIT_S)
        self._awaiting[utterance_no] = self._loop.call_later(wait_s, self._on_late, utterance_no, token, False)

    def resume_nowait(self, utterance_no: int) -> None:
        if self._is_dead() or not self._assembly.resume(utterance_no):
            return
        self._stop_awaiting(utterance_no)
        self._events = deque(
            one for one in self._events if not (isinstance(one, Final) and one.utterance_no == utterance_no)
        )

    def set_token(self, token: str) -> None:
        if self._recognizer is not None:
            self._recognizer.set_token(token)

    def __aiter__(self) -> AsyncIterator[TranscriptEvent]:
        return self

    async def __anext__(self) -> TranscriptEvent:
        while not self._events:
            if self.is_closed:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    async def aclose(self) -> None:
        """The SDK stops in the background."""
        if self.is_closed:
            return
        self.is_closed = True
        self._end()
        self._events.clear()
        self._wake.set()

    # ── to the service ────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, audio: bytes) -> bool:
        assert self._recognizer is not None
        try:
            self._recognizer.write(audio)
        except RuntimeError as error:
            self._fail(ProviderUnavailable(f"the SDK takes no audio: {_first_line(error)}", provider=self._name))
            return False
        return True

    def _commit(self) -> int:
        if not self._options.commit or not self._commits.are_worth_it():
            return 0
        assert self._recognizer is not None
        token = self._recognizer.commit()
        self._commits.refused += not token
        return token

    def _feed_silence(self) -> None:
        """Enough for the service to end its phrase by itself."""
        self._feed_own((self._config.segmentation_silence_ms + MARGIN_MS) * self._bytes_per_ms)

    def _feed_own(self, size_bytes: int) -> None:
        if self._write(self._silence * size_bytes):
            self._assembly.feed_silence(size_bytes)
            self._is_too_far_ahead(self._loop.time(), size_bytes)

    def _is_too_far_ahead(self, now_s: float, size_bytes: int) -> bool:
        """Keep account of what the SDK holds back: it sends hardly faster than real time."""
        until_s = max(self._fed_until_s, now_s) + size_bytes / self._bytes_per_ms / 1000
        if until_s - now_s > MAX_AHEAD_MS / 1000:
            return True
        self._fed_until_s = until_s
        return False

    def _slack_s(self) -> float:
        """What the service may take longer because a replay reached it faster than anybody speaks."""
        ahead_s = self._fed_until_s - self._loop.time() - PRE_ROLL_S
        return max(0.0, ahead_s / SERVICE_SPEED)

    def _keep_alive(self) -> None:
        """A socket that nothing is sent on for minutes is closed by the service."""
        if self._is_dead() or not self._options.keepalive_ms:
            return
        pause_s = self._options.keepalive_ms / 1000
        if not self._assembly.is_open and self._loop.time() - self._fed_until_s >= pause_s:
            self._feed_own(KEEPALIVE_MS * self._bytes_per_ms)
        self._keepalive = self._loop.call_later(pause_s, self._keep_alive)

    def _watch(self, now_s: float, size_bytes: int) -> None:
        """Speech goes in and nothing at all comes out: services fall silent without an error."""
        if not self._quiet_bytes:
            self._quiet_since_s = now_s
        self._quiet_bytes += size_bytes
        limit_ms = self._options.silent_ms
        if self._quiet_bytes >= limit_ms * self._bytes_per_ms and (now_s - self._quiet_since_s) * 1000 >= limit_ms:
            self._fail(self._unanswered(limit_ms))

    # ── from the service ──────────────────────────────────────────────────────────────────────────────────────

    def _on_event(self, event: RecognizerEvent) -> None:
        if self._is_dead():
            return
        self._quiet_bytes = 0
        if not isinstance(event, Connected):
            self._assembly.on_sign()
        match event:
            case Connected():
                if not self._ready.done():
                    self._ready.set_result(None)
            case Hypothesis():
                self._give(self._assembly.on_hypothesis(event))
            case Phrase():
                if event.token:
                    self._commits.answered += 1
                    self._commits.unanswered = 0
                self._give(self._assembly.on_phrase(event))
            case Stopped(error):
                # A stop without a word is a stop that we did not ask for.
                self._fail(error or ProviderUnavailable("the session was ended", provider=self._name))

    def _on_callback_error(self, error: Exception) -> None:
        self._fail(ProviderProtocolError(f"an event of the SDK: {error!r}", provider=self._name))

    def _on_late(self, utterance_no: int, token: int, is_second: bool) -> None:
        """The service did not finish the utterance in time."""
        del self._awaiting[utterance_no]
        if self._is_dead():
            return
        extra_ms = self._options.empty_wait_ms - self._options.final_wait_ms
        if not is_second:
            if token:
                # Whether or not the commit is answered: the phrase must not run on into the next utterance.
                self._commits.unanswered += 1
                self._feed_silence()
            if not self._assembly.text(utterance_no) and extra_ms > 0:
                if not token:
                    # The SDK refuses commits that come too soon after another; now it takes it.
                    token = self._commit()
                    self._assembly.expect(utterance_no, token)
                self._awaiting[utterance_no] = self._loop.call_later(
                    extra_ms / 1000, self._on_late, utterance_no, token, True
                )
                return
        # It answered commits before and says nothing now, not even that there was nothing to understand.
        is_unanswered = bool(token and self._commits.answered and self._quiet_bytes)
        if self._assembly.is_unheard(utterance_no) or (is_unanswered and not self._assembly.text(utterance_no)):
            # A silent service is no silent caller: an empty Final here would lose what was said.
            self._fail(self._unanswered(self._options.empty_wait_ms))
            return
        self._give(self._assembly.settle(utterance_no))

    def _unanswered(self, limit_ms: int) -> ProviderTimeout:
        return ProviderTimeout("idle" if self._assembly.has_signs else "first", limit_ms, provider=self._name)

    def _give(self, events: Iterable[TranscriptEvent]) -> None:
        for one in events:
            if isinstance(one, Final):
                self._stop_awaiting(one.utterance_no)
            self._put(one)

    def _stop_awaiting(self, utterance_no: int) -> None:
        timer = self._awaiting.pop(utterance_no, None)
        if timer is not None:
            timer.cancel()

    def _put(self, event: TranscriptEvent) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(event, Interim) and isinstance(last, Interim) and last.utterance_no == event.utterance_no:
            self._events.pop()
        elif len(self._events) >= MAX_UNREAD_EVENTS:
            self._events.popleft()
            self.dropped_events += 1
        self._events.append(event)
        self._wake.set()

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────

    def _is_dead(self) -> bool:
        return self.is_closed or self._error is not None

    def _fail(self, error: ProviderError) -> None:
        if self._is_dead():
            return
        self._error = error
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # seen, even if `open` was given up
        self._end()
        self._wake.set()

    def _end(self) -> None:
        """Give the SDK back; what was recognised stays to be read."""
        self._channel.close_nowait()
        if not self._ready.done():
            self._ready.cancel()
        if self._keepalive is not None:
            self._keepalive.cancel()
        for timer in self._awaiting.values():
            timer.cancel()
        self._awaiting.clear()
        if self._recognizer is not None:
            self._recognizer.release_nowait()
            self._recognizer = None


def _first_line(error: Exception) -> str:
    """The SDK puts a native call stack into its messages; its code is the part worth reading."""
    text = str(error)
    code = text.rfind("(SPXERR")
    return text[code:].strip("() \n") if code >= 0 else text.strip().splitlines()[0][:200] if text.strip() else "?"
