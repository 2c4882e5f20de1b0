"""What every provider must do, for any adapter: a new one only needs a column in table.py and a rig in rigs.py.

`try_cell` runs one cell of the table. The checks await real adapters at real sockets; the one wait is for the adapter
itself. `fails`, `say` and `next_final` serve the tests of single adapters as well.
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
from providers.breaker import Budget
from providers.deadline import with_deadlines
from providers.errors import ProviderError, ProviderTimeout
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.health import ProviderHealth
from tests.providers.rigs import Rig, places
from tests.providers.table import Case

Answer = tuple[list[Any], ProviderError | None, Callable[[Any], Awaitable[None]]]
"""What came, the error, and the proof, by an adapter, that the next request is another story."""
FRAME_S = 0.02
CANCELS = 5
TRIES = 4
ANSWER_S = 20.0
SECRET = "sim-key"


async def try_cell(rig: Rig, row: str, cases: tuple[Case, ...]) -> None:
    """All cases of one cell, each drawn place of theirs."""
    if row in ("stream", "cancel"):
        await _WELL[rig.kind, row](rig)
        return
    for at, case in enumerate(cases):
        adapter = rig.make(**case.options)
        try:
            for how in places(case, seed=at):
                for left in reversed(range(TRIES)):
                    if await _try(rig, adapter, case, how, is_last=not left):
                        break
        except BaseException as error:
            error.add_note(f"{row}: {case.fault or case.request} {how}")
            raise
        finally:
            await adapter.aclose()
            rig.clear()


async def _try(rig: Rig, adapter: Any, case: Case, how: Mapping[str, Any], *, is_last: bool) -> bool:
    """False: a busy machine; our deadline passed before the simulator had come to its fault."""
    has_fault = rig.strike is not None and bool(case.fault)
    struck, asked = rig.struck(case) if has_fault else 0, rig.asked()
    if rig.strike is not None and has_fault:
        rig.strike(case, how)
    given, error, goes_on = await _ANSWERS[rig.kind](rig, adapter, case)
    if has_fault and isinstance(error, ProviderTimeout) and rig.struck(case) - struck < case.times and not is_last:
        rig.clear()
        return False
    if case.error is None:
        assert error is None, repr(error)
    else:
        check_error(adapter.name, error, case.error, secret=SECRET, **case.attributes)
    if has_fault:
        assert rig.struck(case) - struck == case.times, "the fault did not come to pass, or once too often"
        if error is not None:
            assert rig.asked() - asked == case.times * bool(asked or rig.asked()), "another number of attempts"
    if case.heard == "nothing":
        assert not given, given
    elif case.tries == 1:
        assert given
    # Limits that are as short as a case needs them are no limits for an answer.
    again = adapter if not case.options and case.fault != "closed" else rig.make()
    await goes_on(again)
    if again is not adapter:
        await again.aclose()
    return True


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
    heard, caught = await _drained(adapter.stream(request))
    check_error(adapter.name, caught, error, secret=secret, **attributes)
    assert caught is not None
    return heard, caught


# ── one request that suffers ──────────────────────────────────────────────────────────────────────────────────


async def _drained(
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


def _shielded(rig: Rig, adapter: Any, case: Case) -> AsyncIterator[Any]:
    request = rig.changed(case.request) if case.fault != "closed" else rig.long
    if case.shield == "check":
        # Nobody else to ask, and no second time.
        health = ProviderHealth("tts", adapter.name, retries=Budget(0.0, start=0.0))
        candidates = [SpeechCandidate(adapter, health, voice=request.voice)]
        return FallbackSynthesizer(candidates).stream(request)
    stream: AsyncIterator[Any] = adapter.stream(request)
    if case.shield == "deadlines":
        limits = {"first_ms": case.first_ms, "idle_ms": case.idle_ms, "total_ms": 10_000}
        return with_deadlines(stream, **limits, provider=adapter.name)
    return stream


def _must_be(heard: Any, whole: Any, case: Case, ms: float) -> None:
    """All of the right answer, or its beginning; where there is no end to it, no more than the limit."""
    if case.most:
        assert 0.9 * case.most < ms <= case.most, ms
    elif case.error is None:
        assert heard == whole
    else:
        assert whole[: len(heard)] == heard and len(heard) < len(whole), "not the beginning of the answer"


async def _model_answers(rig: Rig, adapter: Any, case: Case) -> Answer:
    given, error = await _drained(_shielded(rig, adapter, case))
    whole = rig.whole() if rig.whole is not None else _text(await _all(rig.make().stream(rig.request)))
    _must_be(text := _text(given), whole, case, len(text))
    # A call or an end that is told of an answer that failed would be acted upon.
    assert isinstance(given[-1], ChatDone) if error is None else all(isinstance(one, TextDelta) for one in given)

    async def goes_on(again: Any) -> None:
        assert _text(await _all(again.stream(rig.request))) == whole, "a failure outlived its request"

    return given, error, goes_on


async def _voice_answers(rig: Rig, adapter: Any, case: Case) -> Answer:
    closing = adapter.aclose if case.fault == "closed" else None
    given, error = await _drained(_shielded(rig, adapter, case), closing)
    given = [one for one in given if isinstance(one, AudioChunk)]
    sound = _sound(given)
    if case.fault != "closed" and (sound or error is None):
        whole = rig.whole() if rig.whole is not None else _sound(await _all(rig.make().stream(rig.request)))
        _must_be(sound, whole, case, len(sound) / 2 / 24)

    async def goes_on(again: Any) -> None:
        sound = _sound(await _all(again.stream(rig.request)))
        assert sound and (rig.whole is None or sound == rig.whole()), "something of the failed clause"

    return given, error, goes_on


async def _ear_answers(rig: Rig, adapter: Any, case: Case) -> Answer:
    """Utterances until one fails. What is given on are Finals: those of the utterances before, each once."""
    try:
        stream = await adapter.open(rig.changed(case.request))
    except ProviderError as caught:

        async def opens(again: Any) -> None:
            await _hears(rig, await again.open(rig.request))

        return [], caught, opens
    given, error = await _heard(rig, adapter, stream, case)

    async def goes_on(again: Any) -> None:
        if error is not None and rig.stays_failed:
            await _stays_failed(stream, error, rig)
        if error is None or rig.stays_failed or case.request or again is not adapter:
            await stream.aclose()
            await _hears(rig, await again.open(rig.request))
        else:
            await _hears(rig, stream)
            await stream.aclose()

    return given, error, goes_on


async def _heard(
    rig: Rig, adapter: Any, stream: TranscriptStream, case: Case
) -> tuple[list[Final], ProviderError | None]:
    given: list[Final] = []
    events = aiter(stream)
    for number, audio in enumerate(rig.utterances, 1):
        await say(stream, number, audio, rig.chunk_bytes)
        if case.fault == "closed":
            await adapter.aclose()
        stream.commit_nowait(number)
        try:
            final = await next_final(events)
        except ProviderError as error:
            return given, error
        assert final.utterance_no == number
        assert number > 1 or rig.whole is None or final.text == rig.whole()
        given.append(final)
    return given, None


async def _stays_failed(stream: TranscriptStream, caught: ProviderError, rig: Rig) -> None:
    """Nothing is heard of a stream that failed, whatever it is told; it does not complain either."""
    await say(stream, 8, rig.utterances[0], rig.chunk_bytes)
    stream.commit_nowait(8)
    with pytest.raises(type(caught)):
        await anext(aiter(stream))
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(stream))


async def _hears(rig: Rig, stream: TranscriptStream) -> None:
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


async def _model_streams(rig: Rig) -> None:
    model = rig.make()
    events = await _all(model.stream(rig.request))
    assert any(isinstance(one, TextDelta) and one.text for one in events)
    assert all(isinstance(one, TextDelta | ToolCall | ChatDone) for one in events)
    assert [isinstance(one, ChatDone) for one in events] == [False] * (len(events) - 1) + [True]
    assert events == await _all(model.stream(rig.request)), "the same request, another answer"
    assert rig.whole is None or _text(events) == rig.whole()
    await model.aclose()
    await model.aclose()


async def _voice_streams(rig: Rig) -> None:
    voice = rig.make()
    seconds = 0.0
    events = await _all(voice.stream(rig.request))
    for one in events:
        assert isinstance(one, AudioChunk | WordMark)
        if isinstance(one, AudioChunk):
            second = one.audio_format.rate_hz * one.audio_format.bytes_per_sample
            assert one.audio and len(one.audio) % one.audio_format.bytes_per_sample == 0
            assert len(one.audio) <= second, "a chunk of more than a second"
            seconds += len(one.audio) / second
    assert seconds >= 1, "expected at least a second of audio"
    assert rig.whole is None or _sound(events) == rig.whole()
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


async def _cancels(rig: Rig) -> None:
    adapter = rig.make()
    await cancels_within_a_frame(adapter, rig.long)
    events = await _all(adapter.stream(rig.request))
    heard = _text(events) if rig.kind == "model" else _sound(events)
    assert heard and (rig.whole is None or heard == rig.whole()), "something of the one that was cancelled"
    await adapter.aclose()


async def _ear_streams(rig: Rig) -> None:
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


async def _ear_cancels(rig: Rig) -> None:
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
    await _hears(rig, await transcriber.open(rig.request))
    await transcriber.aclose()


_ANSWERS: Mapping[str, Any] = {"model": _model_answers, "voice": _voice_answers, "ear": _ear_answers}
_WELL: Mapping[tuple[str, str], Any] = {
    ("model", "stream"): _model_streams, ("voice", "stream"): _voice_streams, ("ear", "stream"): _ear_streams,
    ("model", "cancel"): _cancels, ("voice", "cancel"): _cancels, ("ear", "cancel"): _ear_cancels,
}  # fmt: skip


async def _all(stream: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in stream]


def _text(events: list[Any]) -> str:
    return "".join(one.text for one in events if isinstance(one, TextDelta))


def _sound(events: list[Any]) -> bytes:
    return b"".join(one.audio for one in events if isinstance(one, AudioChunk))


async def _duration(what: Awaitable[object]) -> float:
    began = time.perf_counter()
    await what
    return time.perf_counter() - began
