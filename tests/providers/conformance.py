"""What every provider must do, for any adapter: a new one only has to describe itself and call these.

Each check takes a subject: how to make the adapter, one request that it answers, and where it can fail how to make it.
The checks await real adapters; the one wait is for the adapter itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from providers.base import (
    AudioChunk,
    ChatDone,
    ChatModel,
    ChatRequest,
    Final,
    Interim,
    SpeechRequest,
    Synthesizer,
    TextDelta,
    ToolCall,
    Transcriber,
    TranscriberConfig,
    TranscriptStream,
    WordMark,
)
from providers.deadline import with_deadlines
from providers.errors import ProviderError, ProviderTimeout

FRAME_S = 0.02
ANSWER_S = 20.0


@dataclass(frozen=True, kw_only=True)
class ModelSubject:
    """`slow` makes an adapter that waits before each word; `bad` is a request that it must refuse."""

    make: Callable[[], ChatModel]
    request: ChatRequest
    slow: Callable[[], ChatModel] | None = None
    bad: ChatRequest | None = None


@dataclass(frozen=True, kw_only=True)
class SynthesizerSubject:
    """`request` speaks for at least a second; `break_it` makes a stream that has begun fail."""

    make: Callable[[], Synthesizer]
    request: SpeechRequest
    slow: Callable[[], Synthesizer] | None = None
    bad: SpeechRequest | None = None
    long: SpeechRequest | None = None
    break_it: Callable[[Synthesizer], Awaitable[None]] | None = None


@dataclass(frozen=True, kw_only=True)
class TranscriberSubject:
    """`utterance` is audio in the config's format; `break_it` makes an open stream fail at its next commit."""

    make: Callable[[], Transcriber]
    config: TranscriberConfig
    utterance: bytes
    bad: TranscriberConfig | None = None
    break_it: Callable[[Transcriber], Awaitable[None]] | None = None


# ── streams of models and synthesizers ────────────────────────────────────────────────────────────────────────


async def model_streams(subject: ModelSubject) -> None:
    model = subject.make()
    events = [one async for one in model.stream(subject.request)]
    assert any(isinstance(one, TextDelta) and one.text for one in events)
    assert all(isinstance(one, TextDelta | ToolCall | ChatDone) for one in events)
    assert [isinstance(one, ChatDone) for one in events] == [False] * (len(events) - 1) + [True]
    assert events == [one async for one in model.stream(subject.request)], "the same request, another answer"
    await model.aclose()
    await model.aclose()


async def synthesizer_streams(subject: SynthesizerSubject) -> None:
    voice = subject.make()
    seconds = 0.0
    async for one in voice.stream(subject.request):
        assert isinstance(one, AudioChunk | WordMark)
        if isinstance(one, AudioChunk):
            second = one.audio_format.rate_hz * one.audio_format.bytes_per_sample
            assert one.audio and len(one.audio) % one.audio_format.bytes_per_sample == 0
            assert len(one.audio) <= second, "a chunk of more than a second"
            seconds += len(one.audio) / second
    assert seconds >= 1, "expected at least a second of audio"
    await voice.aclose()
    await voice.aclose()


async def cancels_within_a_frame(adapter: ChatModel | Synthesizer, request: Any) -> None:
    """`aclose` and task cancellation end a stream that has begun; the next request is answered."""
    stream = adapter.stream(request)
    await anext(stream)
    assert await _duration(stream.aclose()) < FRAME_S  # type: ignore[attr-defined]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]

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
        assert await _duration(asyncio.wait([task])) < FRAME_S
    assert task.cancelled()
    assert [one async for one in adapter.stream(request)]
    await adapter.aclose()


async def misses_deadlines(adapter: ChatModel | Synthesizer, request: Any) -> None:
    """`adapter` is slow: the first useful item, or the next, does not come in time, and the stream is closed."""
    inner = adapter.stream(request)
    with pytest.raises(ProviderTimeout) as late:
        async for _ in with_deadlines(inner, first_ms=10, idle_ms=10, total_ms=10_000, provider=adapter.name):
            pass
    assert late.value.phase in ("first", "idle") and late.value.provider == adapter.name
    with pytest.raises(StopAsyncIteration):
        await anext(inner)
    await adapter.aclose()


async def refuses(adapter: ChatModel | Synthesizer, request: Any, good: Any) -> None:
    with pytest.raises(ProviderError):
        async for _ in adapter.stream(request):
            pass
    assert [one async for one in adapter.stream(good)], "an error must not outlive its request"
    await adapter.aclose()


async def fails(
    adapter: ChatModel | Synthesizer, request: Any, error: type[ProviderError], *, secret: str = "", **attributes: Any
) -> tuple[list[Any], ProviderError]:
    """`request` ends in exactly this error of this adapter, with these attributes. What came before it, and it."""
    heard: list[Any] = []
    with pytest.raises(ProviderError) as raised:
        async for one in adapter.stream(request):
            heard.append(one)
    caught = raised.value
    assert type(caught) is error, repr(caught)
    assert caught.provider == adapter.name and str(caught).startswith(f"{adapter.name}: "), repr(caught)
    for name, wanted in attributes.items():
        assert getattr(caught, name) == wanted, f"{caught!r}: {name} is {getattr(caught, name)!r}, expected {wanted!r}"
    assert not secret or secret not in f"{caught!r} {caught.__cause__!r}"
    return heard, caught


async def fails_in_the_middle(
    adapter: Synthesizer, request: SpeechRequest, break_it: Callable[[Synthesizer], Awaitable[None]]
) -> None:
    stream = adapter.stream(request)
    await anext(stream)
    await break_it(adapter)
    with pytest.raises(ProviderError):
        async for _ in stream:
            pass
    await stream.aclose()  # type: ignore[attr-defined]


# ── transcribers ──────────────────────────────────────────────────────────────────────────────────────────────


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


async def transcriber_streams(subject: TranscriberSubject) -> None:
    """One Final for each committed utterance, its times in order; none for audio outside; closed twice."""
    transcriber = subject.make()
    chunk = subject.config.audio_format.rate_hz // 10 * subject.config.audio_format.bytes_per_sample
    stream = await transcriber.open(subject.config)
    events = aiter(stream)
    stream.feed_nowait(subject.utterance[:chunk])
    for number in (1, 2):
        await say(stream, number, subject.utterance, chunk)
        stream.commit_nowait(number)
        final = await next_final(events)
        assert final.utterance_no == number and final.text
        assert final.start_ms == 1000 * number and final.end_ms is not None and final.end_ms > final.start_ms
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    await transcriber.aclose()
    await transcriber.aclose()


async def transcriber_resumes(subject: TranscriberSubject) -> None:
    """A resumed utterance gives one Final, that of its second commit, and loses nothing of the first part."""
    transcriber = subject.make()
    chunk = subject.config.audio_format.rate_hz // 10 * subject.config.audio_format.bytes_per_sample
    stream = await transcriber.open(subject.config)
    events = aiter(stream)
    half = len(subject.utterance) // 2 // chunk * chunk
    await say(stream, 7, subject.utterance[:half], chunk)
    stream.commit_nowait(7)
    stream.resume_nowait(7)
    stream.feed_nowait(subject.utterance[half:])
    stream.commit_nowait(7)
    final = await next_final(events)
    await say(stream, 8, subject.utterance, chunk)
    stream.commit_nowait(8)
    following = await next_final(events)
    assert (final.utterance_no, following.utterance_no) == (7, 8), "the void Final was delivered"
    if following.text.count(" ") > 4:
        assert final.text == following.text
    await stream.aclose()
    await transcriber.aclose()


async def transcriber_cancels(subject: TranscriberSubject) -> None:
    transcriber = subject.make()
    chunk = subject.config.audio_format.rate_hz // 10 * subject.config.audio_format.bytes_per_sample
    stream = await transcriber.open(subject.config)
    await say(stream, 1, subject.utterance, chunk)
    stream.commit_nowait(1)
    assert await _duration(stream.aclose()) < FRAME_S
    waiting = await transcriber.open(subject.config)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(anext(aiter(waiting)))
        await asyncio.sleep(0)
        task.cancel()
        assert await _duration(asyncio.wait([task])) < FRAME_S
    await waiting.aclose()
    await transcriber.aclose()


async def transcriber_misses_deadline(subject: TranscriberSubject) -> None:
    """A stream to which nobody speaks gives nothing: the deadline says so and closes it."""
    transcriber = subject.make()
    stream = await transcriber.open(subject.config)
    with pytest.raises(ProviderTimeout) as late:
        async for _ in with_deadlines(aiter(stream), first_ms=10, idle_ms=10, total_ms=1000, provider="x"):
            pass
    assert late.value.phase == "first"
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(stream))
    await transcriber.aclose()


async def transcriber_refuses(subject: TranscriberSubject, config: TranscriberConfig) -> None:
    transcriber = subject.make()
    with pytest.raises(ProviderError):
        await transcriber.open(config)
    await transcriber.aclose()


async def transcriber_fails(subject: TranscriberSubject, break_it: Callable[[Transcriber], Awaitable[None]]) -> None:
    transcriber = subject.make()
    stream = await transcriber.open(subject.config)
    await say(stream, 1, subject.utterance, 3200)
    await break_it(transcriber)
    stream.commit_nowait(1)
    with pytest.raises(ProviderError):
        await next_final(aiter(stream))
    await stream.aclose()
    await transcriber.aclose()


async def _duration(what: Awaitable[object]) -> float:
    began = time.perf_counter()
    await what
    return time.perf_counter() - began
