"""One call's utterances for a recogniser that takes each as a whole: collected, sent at commit, answered in order.

    begin, feed → audio (bounded) → commit → task → slot 1 · slot 2 · slot 3 → Finals in the order of the commits

Guarantees: one Final or one error for each committed utterance unless it is resumed before; a resumed utterance keeps
its audio and what was said after the commit, and its request is dropped; nothing here waits but the iterator.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from providers.base import Final, Interim, TranscriptEvent
from providers.errors import ProviderError, ProviderUnavailable
from providers.openai.heard import Heard
from providers.openai.options import TranscriptionOptions

RATE_HZ = 16_000
BYTES_PER_MS = 2 * RATE_HZ // 1000
TAIL_BYTES = 2_000 * BYTES_PER_MS  # after a commit, in case the caller goes on
MAX_UNREAD = 16
CLOSE_LIMIT_S = 0.01

Recognise = Callable[[bytes, Callable[[str], None]], Awaitable[Heard]]
"""(s16 mono at RATE_HZ, what to call with each interim text) → what was heard; raises ProviderError."""


class _Utterance:
    __slots__ = ("audio", "fed_bytes", "is_open", "number", "start_ms", "tail")

    def __init__(self, number: int, start_ms: int) -> None:
        self.number = number
        self.start_ms = start_ms
        self.audio = bytearray()
        self.tail = bytearray()
        self.fed_bytes = 0
        self.is_open = True


class _Slot:
    """The place of one Final. `outcome` is set once; `interim` is what to show until then."""

    __slots__ = ("interim", "number", "outcome", "task")

    def __init__(self, number: int) -> None:
        self.number = number
        self.interim = ""
        self.outcome: Final | ProviderError | None = None
        self.task: asyncio.Task[None] | None = None


class UtteranceStream:
    """One call's recognition, see `providers.base.TranscriptStream`.

    Iterating raises a ProviderError in the place of a Final that could not be made; the stream goes on afterwards.
    `dropped_bytes` and `dropped_events` count what the bounds cost.
    """

    __slots__ = ("_closed", "_current", "_name", "_options", "_recognise", "_slots", "_wake", "dropped_bytes",
                 "dropped_events")  # fmt: skip

    def __init__(self, name: str, recognise: Recognise, options: TranscriptionOptions) -> None:
        self._name = name
        self._recognise = recognise
        self._options = options
        self._current: _Utterance | None = None
        self._slots: deque[_Slot] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self.dropped_bytes = 0
        self.dropped_events = 0

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        self._current = _Utterance(utterance_no, start_ms)

    def feed_nowait(self, audio: bytes) -> None:
        now = self._current
        if now is None or self._closed:
            return
        if not now.is_open:
            now.tail += audio
            del now.tail[: max(0, len(now.tail) - TAIL_BYTES)]
            return
        now.audio += audio
        now.fed_bytes += len(audio)
        excess = len(now.audio) - self._options.max_utterance_ms * BYTES_PER_MS
        if excess > 0:
            excess += excess & 1
            del now.audio[:excess]
            self.dropped_bytes += excess

    def commit_nowait(self, utterance_no: int) -> None:
        now = self._current
        if self._closed or (now is not None and now.number == utterance_no and not now.is_open):
            return
        slot = _Slot(utterance_no)
        self._slots.append(slot)
        if len(self._slots) > MAX_UNREAD:
            self._drop(self._slots.popleft())
            self.dropped_events += 1
        if now is None or now.number != utterance_no:
            self._settle(slot, Final(utterance_no, ""))
            return
        now.is_open = False
        running = sum(one.task is not None and not one.task.done() for one in self._slots)
        if running >= self._options.at_once:
            self._settle(slot, ProviderUnavailable(f"{running} utterances wait for recognition", provider=self._name))
            return
        audio = bytes(now.audio[: len(now.audio) & ~1])
        end_ms = now.start_ms + now.fed_bytes // BYTES_PER_MS
        slot.task = asyncio.get_running_loop().create_task(
            self._run(slot, audio, now.start_ms, end_ms), name=f"{self._name} utterance {utterance_no}"
        )

    def resume_nowait(self, utterance_no: int) -> None:
        now = self._current
        if now is None or now.number != utterance_no or now.is_open:
            return
        for slot in [one for one in self._slots if one.number == utterance_no]:
            self._slots.remove(slot)
            self._drop(slot)
        now.is_open = True
        tail, now.tail = bytes(now.tail), bytearray()
        if tail:
            self.feed_nowait(tail)

    def __aiter__(self) -> AsyncIterator[TranscriptEvent]:
        return self

    async def __anext__(self) -> TranscriptEvent:
        while not self._closed:
            if self._slots:
                slot = self._slots[0]
                if slot.outcome is not None:
                    self._slots.popleft()
                    if isinstance(slot.outcome, ProviderError):
                        raise slot.outcome
                    return slot.outcome
                if slot.interim:
                    text, slot.interim = slot.interim, ""
                    return Interim(slot.number, text)
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._closed = True
        self._current = None
        self._wake.set()
        running = {slot.task for slot in self._slots if slot.task is not None and not slot.task.done()}
        for slot in self._slots:
            self._drop(slot)
        self._slots.clear()
        if running:
            await asyncio.wait(running, timeout=CLOSE_LIMIT_S)

    async def _run(self, slot: _Slot, audio: bytes, start_ms: int, end_ms: int) -> None:
        def show(text: str) -> None:
            slot.interim = text
            self._wake.set()

        try:
            heard = await self._recognise(audio, show)
        except ProviderError as error:
            self._settle(slot, error)
        else:
            self._settle(slot, Final(slot.number, heard.text, start_ms, end_ms, heard.confidence))

    def _settle(self, slot: _Slot, outcome: Final | ProviderError) -> None:
        slot.outcome = outcome
        self._wake.set()

    def _drop(self, slot: _Slot) -> None:
        if slot.task is not None:
            slot.task.cancel()
