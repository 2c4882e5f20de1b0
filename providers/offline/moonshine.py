"""Speech to text without an account: Moonshine in a pool of worker threads.

    feed_nowait ─→ utterance (≤ 30 s a part) ─┬─ commit ───────→ Final
                                              └─ every 500 ms ─→ Interim, when a worker is idle

A Final is decoded with several hypotheses and the config's phrases (beam.py, bias.py), an Interim with one. The
recogniser does not stream: an interim decodes the whole open part again, and is skipped when the machine has
finals to decode. Guarantees: one Final for each committed utterance unless it is resumed before, and no Interim of it
afterwards (Finals of two utterances may come in either order); nothing on the event loop costs more than a copy of the
part (1 MB, about 0.1 ms). What does not fit is cut, kept or counted, see the constants. English only; Spanish needs
weights that the operator opts in to (docs/offline.md).
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from providers.base import AudioFormat, Final, Interim, TranscriberConfig, TranscriptEvent, TranscriptStream
from providers.errors import ProviderError, ProviderRejected, ProviderUnavailable
from providers.offline.bias import Bias
from providers.offline.decode_pool import DecodePool, Job, Part
from providers.offline.moonshine_model import RATE_HZ, SHA256, TOKENS_PER_S, Recogniser, package_folder

BYTES_PER_MS = 2 * RATE_HZ // 1000
PART_BYTES = 30_000 * BYTES_PER_MS  # the model was trained on shorter clips
MAX_PARTS = 4  # two minutes without a pause: the oldest part is dropped and counted
INTERIM_BYTES = 500 * BYTES_PER_MS  # 10 % of real time; every 250 ms costs 23 % and guesses badly
TAIL_BYTES = 2_000 * BYTES_PER_MS  # after a commit, in case the caller goes on
CUT_WINDOW_BYTES = 5_000 * BYTES_PER_MS  # a part is cut at the quietest 100 ms of its last five seconds
CUT_STEP_SAMPLES = RATE_HZ // 10
MAX_UNREAD_EVENTS = 16
MAX_PHRASE_LISTS = 32  # prepared lists kept, one an agent; about 1 MB each at the most
SPANISH_TOKENS_PER_S = 13.0  # an English vocabulary spells Spanish in shorter pieces
SPANISH_VARIABLE = "TALKSPURT_SPANISH_STT"


class MoonshineTranscriber:
    """Transcriber "moonshine" (English, weights in a package) or "moonshine-es" (Spanish, from a folder).

    Loads 45 MB of weights in a thread on the first `open`, about 0.5 s. Belongs to one event loop.

    Args:
        workers: decoding threads; None means one for each core, at most two.
    """

    __slots__ = ("_biases", "_executor", "_folder", "_language", "_loading", "_pool", "_tokens_per_s", "_workers",
                 "audio_formats", "name")  # fmt: skip

    def __init__(self, *, workers: int | None = None) -> None:
        self.name = "moonshine"
        self.audio_formats: tuple[AudioFormat, ...] = (AudioFormat("s16", RATE_HZ),)
        self._language = "en"
        self._folder: Path | None = None
        self._tokens_per_s = TOKENS_PER_S
        self._workers = workers or min(2, os.cpu_count() or 1)
        self._executor: ThreadPoolExecutor | None = None
        self._loading: asyncio.Future[Recogniser] | None = None
        self._pool: DecodePool | None = None
        self._biases: OrderedDict[tuple[str, ...], Bias] = OrderedDict()

    @classmethod
    def spanish(cls, folder: Path | None, *, workers: int | None = None) -> MoonshineTranscriber:
        """Transcriber "moonshine-es". `folder` has encoder_model and decoder_model_merged; None refuses every call."""
        made = cls(workers=workers)
        made.name = "moonshine-es"
        made._language = "es"
        made._folder = folder
        made._tokens_per_s = SPANISH_TOKENS_PER_S
        return made

    def attach_nowait(self) -> None:
        """Nothing is connected; `open` loads what is missing."""

    def detach_nowait(self) -> None:
        """Nothing is connected."""

    async def open(self, config: TranscriberConfig) -> TranscriptStream:
        """One call's stream.

        Raises:
            ProviderRejected: another language than this one's, or Spanish without its weights.
            ProviderUnavailable: the weights are missing or damaged; the message names the command that installs them.
        """
        if reason := self.refusal(config.language):
            raise ProviderRejected(reason, status=400, provider=self.name)
        pool = await self._ready()
        return MoonshineStream(pool, await self._expecting(pool, tuple(config.phrases)))

    def refusal(self, language: str) -> str:
        """Why every call in this language will be refused; empty when none is."""
        if language.split("-")[0].lower() != self._language:
            hint = " (Spanish: provider moonshine-es)" if language.lower().startswith("es") else ""
            return f"recognises {self._language} only, not {language}{hint}"
        if self._language == "es" and self._folder is None:
            return f"Spanish recognition is opt-in: set {SPANISH_VARIABLE} to the folder of the base-es weights"
        return ""

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        elif self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _expecting(self, pool: DecodePool, phrases: tuple[str, ...]) -> Bias:
        """The phrases made ready, once for all calls of an agent."""
        if phrases not in self._biases:
            # In another thread than the workers': preparing takes some 30 ms, and a caller may wait for a final.
            self._biases[phrases] = await asyncio.to_thread(pool.recogniser.bias, phrases)
            while len(self._biases) > MAX_PHRASE_LISTS:
                self._biases.popitem(last=False)
        self._biases.move_to_end(phrases)
        return self._biases[phrases]

    async def _ready(self) -> DecodePool:
        if self._pool is not None:
            return self._pool
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._executor = self._executor or ThreadPoolExecutor(self._workers, thread_name_prefix=self.name)
            self._loading = asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        # Shielded: the caller who hangs up while we load must not take the weights from the others.
        recogniser = await asyncio.shield(self._loading)
        if self._pool is None:
            assert self._executor is not None
            self._pool = DecodePool(
                recogniser, executor=self._executor, workers=self._workers, tokens_per_s=self._tokens_per_s
            )
        return self._pool

    def _load(self) -> Recogniser:
        """Thread: a worker."""
        if self._folder is None:
            recogniser = Recogniser(package_folder(), sha256=SHA256)
        elif (self._folder / "tokenizer.bin").is_file():
            recogniser = Recogniser(self._folder)
        else:
            # The Spanish weights come without a table; the family shares the English one.
            recogniser = Recogniser(self._folder, tokenizer=package_folder() / "tokenizer.bin")
        recogniser.text(bytes(RATE_HZ))  # the first run allocates; no caller should wait for that
        return recogniser


class _Utterance:
    __slots__ = ("closed_parts", "fed_bytes", "interim_bytes", "is_open", "number", "open_part", "start_ms", "tail")

    def __init__(self, number: int, start_ms: int) -> None:
        self.number = number
        self.start_ms = start_ms
        self.closed_parts: list[Part] = []
        self.open_part = bytearray()
        self.tail = bytearray()
        self.fed_bytes = 0
        self.interim_bytes = 0
        self.is_open = True


class MoonshineStream:
    """One call's recognition, see `providers.base.TranscriptStream`.

    Iterating raises ProviderUnavailable in the place of a Final that could not be made (queue full, decoder failed);
    the stream goes on afterwards. `dropped_bytes` and `dropped_events` count what the bounds cost.
    """

    __slots__ = ("_bias", "_closed", "_current", "_events", "_final_job", "_interim_job", "_pool", "_wake",
                 "dropped_bytes", "dropped_events")  # fmt: skip

    def __init__(self, pool: DecodePool, bias: Bias) -> None:
        self._pool = pool
        self._bias = bias
        self._current: _Utterance | None = None
        self._events: deque[TranscriptEvent | ProviderError] = deque()
        self._final_job: Job | None = None
        self._interim_job: Job | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self.dropped_bytes = 0
        self.dropped_events = 0

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        self._drop_interim()
        # A committed utterance keeps its job: its Final comes. An open one was never committed, nobody waits for it.
        self._final_job = None
        self._current = _Utterance(utterance_no, start_ms)

    def feed_nowait(self, audio: bytes) -> None:
        now = self._current
        if now is None or self._closed:
            return
        if not now.is_open:
            now.tail += audio
            del now.tail[: max(0, len(now.tail) - TAIL_BYTES)]
            return
        now.open_part += audio
        now.fed_bytes += len(audio)
        if len(now.open_part) >= PART_BYTES:
            self._close_part(now)
        if now.fed_bytes - now.interim_bytes >= INTERIM_BYTES and self._interim_job is None:
            self._try_interim(now)

    def commit_nowait(self, utterance_no: int) -> None:
        now = self._current
        if self._closed or (now is not None and now.number == utterance_no and not now.is_open):
            return
        if now is None or now.number != utterance_no:
            self._put(Final(utterance_no, ""))
            return
        self._drop_interim()
        now.is_open = False
        end_ms = now.start_ms + now.fed_bytes // BYTES_PER_MS

        def deliver(result: str | ProviderUnavailable | None) -> None:
            if isinstance(result, ProviderUnavailable):
                self._put(result)
            elif result is not None:
                self._put(Final(utterance_no, result, now.start_ms, end_ms))

        parts = [*now.closed_parts, Part(_whole(now.open_part))]
        job = Job(parts, is_final=True, deliver=deliver, bias=self._bias)
        self._final_job = job
        try:
            self._pool.submit(job)
        except ProviderUnavailable as error:
            self._put(error)

    def resume_nowait(self, utterance_no: int) -> None:
        now = self._current
        if now is None or now.number != utterance_no or now.is_open:
            return
        if self._final_job is not None:
            self._final_job.stale = True
            self._final_job = None
        self._events = deque(
            one for one in self._events if not (isinstance(one, Final) and one.utterance_no == utterance_no)
        )
        now.is_open = True
        tail, now.tail = bytes(now.tail), bytearray()
        if tail:
            self.feed_nowait(tail)

    def __aiter__(self) -> AsyncIterator[TranscriptEvent]:
        return self

    async def __anext__(self) -> TranscriptEvent:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        event = self._events.popleft()
        if isinstance(event, ProviderError):
            raise event
        return event

    async def aclose(self) -> None:
        self._closed = True
        self._drop_interim()
        if self._final_job is not None:
            self._final_job.stale = True
        self._current = None
        self._events.clear()
        self._wake.set()

    def _try_interim(self, now: _Utterance) -> None:
        before = [part for part in now.closed_parts if part.text is not None]

        def deliver(result: str | ProviderUnavailable | None) -> None:
            self._interim_job = None
            if isinstance(result, str) and result:
                self._put(Interim(now.number, result))

        job = Job([*before, Part(_whole(now.open_part))], is_final=False, deliver=deliver)
        if self._pool.try_interim(job):
            self._interim_job = job
            now.interim_bytes = now.fed_bytes

    def _drop_interim(self) -> None:
        if self._interim_job is not None:
            self._interim_job.stale = True

    def _close_part(self, now: _Utterance) -> None:
        """Cut at the quietest place, and decode the first piece while the caller goes on."""
        cut = _quiet_cut(now.open_part)
        part = Part(bytes(now.open_part[:cut]))
        del now.open_part[:cut]
        now.closed_parts.append(part)
        if len(now.closed_parts) > MAX_PARTS:
            self.dropped_bytes += len(now.closed_parts.pop(0).audio)
        self._drop_interim()
        try:
            self._pool.submit(Job([part], is_final=True, deliver=lambda result: None, bias=self._bias))
        except ProviderUnavailable:
            pass  # the commit decodes it, or says that it could not

    def _put(self, event: TranscriptEvent | ProviderError) -> None:
        if self._closed:
            return
        last = self._events[-1] if self._events else None
        if isinstance(event, Interim) and isinstance(last, Interim):
            self._events.pop()
        elif len(self._events) >= MAX_UNREAD_EVENTS:
            self._events.popleft()
            self.dropped_events += 1
        self._events.append(event)
        self._wake.set()


def _whole(audio: bytearray) -> bytes:
    return bytes(audio[: len(audio) & ~1])


def _quiet_cut(audio: bytearray) -> int:
    """Byte offset of the middle of the quietest 100 ms in the last five seconds of `audio`."""
    first = max(0, len(audio) - CUT_WINDOW_BYTES) & ~1
    samples = np.frombuffer(bytes(audio[first : len(audio) & ~1]), dtype=np.int16).astype(np.float32)
    steps = len(samples) // CUT_STEP_SAMPLES
    energy = np.square(samples[: steps * CUT_STEP_SAMPLES]).reshape(steps, CUT_STEP_SAMPLES).sum(axis=1)
    return first + 2 * (int(energy.argmin()) * CUT_STEP_SAMPLES + CUT_STEP_SAMPLES // 2)
