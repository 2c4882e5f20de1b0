"""What every provider must do while all is well, and how answers are taken; cells.py makes services misbehave.

The checks await real adapters at real sockets; the one wait is for the adapter itself. `fails`, `say`, `next_final` and
`cancels_within_a_frame` serve the tests of single adapters as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from providers.base import (
    AudioChunk,
    ChatDone,
    ChatModel,
    Final,
    Interim,
    Synthesizer,
    TextDelta,
    ToolCall,
    Transcriber,
    TranscriptStream,
    WordMark,
)
from providers.deadline import with_deadlines
from providers.errors import ProviderError, ProviderTimeout
from tests.providers.rigs import Rig

FRAME_S = 0.02
CANCELS = 5
ANSWER_S = 20.0


def check_error(
    name: str, caught: ProviderError | None, error: type[ProviderError], *, secret: str = "", **attributes: Any
) -> None:
    """Exactly this error, of this adapter, with these attributes."""
    assert type(caught) is error, repr(caught)
    assert caught.provider == name and str(caught).startswith(f"{name}: "), repr(caught)
    for what, wanted in attributes.items():
        assert getattr(caught, what) == wanted, f"{caught!r}: {what} is {getattr(caught, what)!r}, not {wanted!r}"
    assert not secret or secret not in f"{caught!r} {caught.__cause__!r}"


async def fails(
    adapter: ChatModel | Synthesizer, request: Any, error: type[ProviderError], *, secret: str = "", **attributes: Any
) -> tuple[list[Any], ProviderError]:
    """`request` ends in exactly this error of this adapter, with these attributes. What came before it, and it."""
    heard, caught = await drained(adapter.stream(request))
    check_error(adapter.name, caught, error, secret=secret, **attributes)
    assert caught is not None
    return heard, caught


# ── one answer ────────────────────────────────────────────────────────────────────────────────────────────────


async def drained(
    stream: AsyncIterator[Any], after_first: Callable[[], Awaitable[None]] | None = None
) -> tuple[list[Any], ProviderError | None]:
    """What comes, and the error at its end; after that nothing may come."""
    given: list[Any] = []
    error = None
    try:
        async for one in stream:
            given.append(one)
            if len(given) == 1 and after_first is not None:
                await after_first()
    except ProviderError as caught:
        error = caught
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    return given, error


async def hears(rig: Rig, stream: TranscriptStream) -> None:
    """The next utterance is heard, whole, and nothing before it."""
    await say(stream, 9, rig.utterances[0], rig.chunk_bytes)
    stream.commit_nowait(9)
    final = await next_final(aiter(stream))
    assert final.utterance_no == 9, "a Final of the utterance that failed"
    assert rig.whole is None or final.text == rig.whole()
    if rig.stays_failed:
        await stream.aclose()  # one is open at a time


async def say(stream: TranscriptStream, number: int, audio: bytes, chunk_bytes: int) -> None:
    """One utterance in chunks, as the uplink feeds it, with room for the loop between them."""
    stream.begin_nowait(number, 1000 * number)
    for at in range(0, len(audio), chunk_bytes):
        stream.feed_nowait(audio[at : at + chunk_bytes])
        await asyncio.sleep(0)


async def next_final(stream: AsyncIterator[Any]) -> Final:
    async with asyncio.timeout(ANSWER_S):
        while not isinstance(event := await anext(stream), Final):
            assert isinstance(event, Interim)
    return event


# ── all is well ───────────────────────────────────────────────────────────────────────────────────────────────


async def model_streams(rig: Rig) -> None:
    model = rig.make()
    events = await all_of(model.stream(rig.request))
    assert any(isinstance(one, TextDelta) and one.text for one in events)
    assert all(isinstance(one, TextDelta | ToolCall | ChatDone) for one in events)
    assert [isinstance(one, ChatDone) for one in events] == [False] * (len(events) - 1) + [True]
    assert events == await all_of(model.stream(rig.request)), "the same request, another answer"
    assert rig.whole is None or text_of(events) == rig.whole()
    await model.aclose()
    await model.aclose()


async def voice_streams(rig: Rig) -> None:
    voice = rig.make()
    seconds = 0.0
    events = await all_of(voice.stream(rig.request))
    for one in events:
        assert isinstance(one, AudioChunk | WordMark)
        if isinstance(one, AudioChunk):
            second = one.audio_format.rate_hz * one.audio_format.bytes_per_sample
            assert one.audio and len(one.audio) % one.audio_format.bytes_per_sample == 0
            assert len(one.audio) <= second, "a chunk of more than a second"
            seconds += len(one.audio) / second
    assert seconds >= 1, "expected at least a second of audio"
    assert rig.whole is None or sound_of(events) == rig.whole()
    await voice.aclose()
    await voice.aclose()


async def within_a_frame(ends: Callable[[], Awaitable[float]]) -> None:
    """The quickest of a few: a busy machine is late now and then, an adapter that waits for something each time."""
    took_s = await ends()
    for _ in range(CANCELS - 1):
        if took_s < FRAME_S:
            break
        took_s = min(took_s, await ends())
    assert took_s < FRAME_S, f"{took_s * 1000:.1f} ms"


async def cancels_within_a_frame(adapter: ChatModel | Synthesizer, request: Any) -> None:
    """`aclose` and task cancellation end a stream that has begun."""

    async def closes() -> float:
        stream = adapter.stream(request)
        await anext(stream)
        took_s = await _duration(stream.aclose())  # type: ignore[attr-defined]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return took_s

    async def is_cancelled() -> float:
        begun = asyncio.Event()

        async def consume() -> None:
            async with aclosing(adapter.stream(request)) as events:  # type: ignore[type-var]
                async for _ in events:
                    begun.set()
                    await asyncio.Event().wait()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(consume())
            await begun.wait()
            task.cancel()
            took_s = await _duration(asyncio.wait([task]))
        assert task.cancelled()
        return took_s

    await within_a_frame(closes)
    await within_a_frame(is_cancelled)


async def cancels(rig: Rig) -> None:
    adapter = rig.make()
    await cancels_within_a_frame(adapter, rig.long)
    events = await all_of(adapter.stream(rig.request))
    heard = text_of(events) if rig.kind == "model" else sound_of(events)
    assert heard and (rig.whole is None or heard == rig.whole()), "something of the one that was cancelled"
    await adapter.aclose()


async def ear_streams(rig: Rig) -> None:
    """One Final for each committed utterance, its times in order; none for audio outside; closed twice."""
    transcriber = rig.make()
    stream = await transcriber.open(rig.request)
    events = aiter(stream)
    stream.feed_nowait(rig.utterances[0][: rig.chunk_bytes])
    for number in (1, 2):
        await say(stream, number, rig.utterances[0], rig.chunk_bytes)
        stream.commit_nowait(number)
        final = await next_final(events)
        assert final.utterance_no == number and final.text and (rig.whole is None or final.text == rig.whole())
        assert final.start_ms == 1000 * number and final.end_ms is not None and final.end_ms > final.start_ms
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    await _resumes(rig, transcriber)
    await transcriber.aclose()
    await transcriber.aclose()


async def _resumes(rig: Rig, transcriber: Transcriber) -> None:
    """A resumed utterance gives one Final, that of its second commit, and loses nothing of the first part."""
    stream = await transcriber.open(rig.request)
    events = aiter(stream)
    half = len(rig.resumable) // 2 // rig.chunk_bytes * rig.chunk_bytes
    await say(stream, 7, rig.resumable[:half], rig.chunk_bytes)
    stream.commit_nowait(7)
    stream.resume_nowait(7)
    stream.feed_nowait(rig.resumable[half:])
    stream.commit_nowait(7)
    final = await next_final(events)
    await say(stream, 8, rig.resumable, rig.chunk_bytes)
    stream.commit_nowait(8)
    following = await next_final(events)
    assert (final.utterance_no, following.utterance_no) == (7, 8), "the void Final was delivered"
    if following.text.count(" ") > 4:
        assert final.text == following.text
    await stream.aclose()


async def ear_cancels(rig: Rig) -> None:
    """While it recognises, while nobody speaks, and when a deadline around it gives it up."""
    transcriber = rig.make()

    async def closes() -> float:
        stream = await transcriber.open(rig.request)
        await say(stream, 1, rig.utterances[0], rig.chunk_bytes)
        stream.commit_nowait(1)
        return await _duration(stream.aclose())

    waiting = await transcriber.open(rig.request)

    async def is_cancelled() -> float:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(anext(aiter(waiting)))
            await asyncio.sleep(0)
            task.cancel()
            return await _duration(asyncio.wait([task]))

    await within_a_frame(closes)
    await within_a_frame(is_cancelled)
    with pytest.raises(ProviderTimeout) as late:
        async for _ in with_deadlines(aiter(waiting), first_ms=10, idle_ms=10, total_ms=1000, provider="x"):
            pass
    assert late.value.phase == "first"
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(waiting))
    await hears(rig, await transcriber.open(rig.request))
    await transcriber.aclose()


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in stream]


def text_of(events: list[Any]) -> str:
    return "".join(one.text for one in events if isinstance(one, TextDelta))


def sound_of(events: list[Any]) -> bytes:
    return b"".join(one.audio for one in events if isinstance(one, AudioChunk))


async def _duration(what: Awaitable[object]) -> float:
    began = time.perf_counter()
    await what
    return time.perf_counter() - began


WELL: Mapping[tuple[str, str], Any] = {
    ("model", "stream"): model_streams, ("voice", "stream"): voice_streams, ("ear", "stream"): ear_streams,
    ("model", "cancel"): cancels, ("voice", "cancel"): cancels, ("ear", "cancel"): ear_cancels,
}  # fmt: skip
