"""A few worker threads that decode for all calls: finals first, interims only when somebody is idle.

    commit ──→ finals (bounded, in order) ──┐
    every 500 ms ──→ interim, if idle ──────┴→ workers ──→ deliver(text) on the loop

All bookkeeping happens on the event loop, so there is no lock; a job is handed to a thread only when one is free.
Guarantees: a waiting final stops the interims that run, at their next token; a stale job ends at its next token and
delivers nothing; `deliver` runs on the loop, once, unless the job is stale.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from providers.errors import ProviderUnavailable
from providers.offline.bias import Bias
from providers.offline.moonshine_model import Recogniser

MAX_WAITING_FINALS = 32  # at 2 % of real time and 30 s each: 10 s of work for two workers, far beyond any patience
CLOSE_LIMIT_S = 2.0


class Part:
    """Up to 30 s of one utterance. `text` is written once, by the worker that decodes it."""

    __slots__ = ("audio", "text")

    def __init__(self, audio: bytes) -> None:
        self.audio = audio
        self.text: str | None = None


class Job:
    """Parts to decode in order, by several hypotheses with a `bias`. `stale` may be set at any time, from the loop."""

    __slots__ = ("bias", "deliver", "is_final", "parts", "stale")

    def __init__(
        self,
        parts: list[Part],
        *,
        is_final: bool,
        deliver: Callable[[str | ProviderUnavailable | None], None],
        bias: Bias | None = None,
    ) -> None:
        self.parts = parts
        self.bias = bias
        self.is_final = is_final
        self.deliver = deliver
        self.stale = False

    def run(self, recogniser: Recogniser, tokens_per_s: float) -> str | None:
        """Thread: a worker. The joined text, None when the job became stale."""
        for part in self.parts:
            if part.text is None:
                text = recogniser.text(part.audio, lambda: not self.stale, tokens_per_s=tokens_per_s, bias=self.bias)
                if text is None:
                    return None
                part.text = text
        return " ".join(part.text for part in self.parts if part.text)


class DecodePool:
    """Thread: everything but the decoding belongs to the loop that made the pool.

    Args:
        recogniser: shared by the workers.
        workers: threads; one of them is kept for finals where there are several.
    """

    __slots__ = (
        "_executor",
        "_finals",
        "_idle",
        "_interims_max",
        "_loop",
        "_running",
        "_tokens_per_s",
        "_workers",
        "closed",
        "preempted",
        "recogniser",
        "refused",
    )  # fmt: skip

    def __init__(self, recogniser: Recogniser, *, executor: ThreadPoolExecutor, workers: int, tokens_per_s: float):
        self.recogniser = recogniser
        self._executor = executor
        self._workers = workers
        self._tokens_per_s = tokens_per_s
        self._interims_max = max(1, workers - 1)
        self._loop = asyncio.get_running_loop()
        self._finals: deque[Job] = deque()
        self._running: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.closed = False
        self.preempted = 0
        self.refused = 0

    def submit(self, job: Job) -> None:
        """Queue a final. Raises ProviderUnavailable when the queue is full or the pool closed."""
        waiting = sum(not waiting.stale for waiting in self._finals)
        if self.closed or waiting >= MAX_WAITING_FINALS:
            self.refused += 1
            raise ProviderUnavailable(f"{waiting} utterances wait for recognition", provider="moonshine")
        self._finals.append(job)
        self._start_waiting()
        if self._finals:
            for running in self._running:
                if not running.is_final and not running.stale:
                    running.stale = True
                    self.preempted += 1

    def try_interim(self, job: Job) -> bool:
        """Start `job` if a worker has nothing better to do; False otherwise."""
        interims = sum(not running.is_final for running in self._running)
        if self.closed or self._finals or len(self._running) >= self._workers or interims >= self._interims_max:
            return False
        self._start(job)
        return True

    async def aclose(self) -> None:
        """Stop at the next token of each worker. May be called twice."""
        self.closed = True
        self._finals.clear()
        for job in self._running:
            job.stale = True
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._idle.wait()
        except TimeoutError:
            pass  # a worker inside one long encoder run: it ends by itself and delivers nothing
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start_waiting(self) -> None:
        while self._finals and len(self._running) < self._workers:
            job = self._finals.popleft()
            if not job.stale:
                self._start(job)

    def _start(self, job: Job) -> None:
        self._running.add(job)
        self._idle.clear()
        future = self._executor.submit(job.run, self.recogniser, self._tokens_per_s)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._finished, job, done))

    def _finished(self, job: Job, done: Future[str | None]) -> None:
        self._running.discard(job)
        if not self._running:
            self._idle.set()
        if not self.closed:
            self._start_waiting()
        if done.cancelled():
            return
        error = done.exception()
        if error is not None and not isinstance(error, ProviderUnavailable):
            job.deliver(ProviderUnavailable(f"decoder: {error}", provider="moonshine"))
            raise error  # our bug: the call hears of it, and the loop's exception handler reports it
        if not job.stale:
            job.deliver(error if error is not None else done.result())
        elif not job.is_final:
            job.deliver(None)
