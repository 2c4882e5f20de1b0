"""One cell of the table: the adapter meets each case of it, ends as the case says, and answers the next request.

A new adapter only needs a column in table.py and a rig in rigs.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from providers.base import AudioChunk, ChatDone, Final, TextDelta, TranscriptStream
from providers.breaker import Budget
from providers.deadline import with_deadlines
from providers.errors import ProviderError, ProviderTimeout
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.health import ProviderHealth
from tests.providers.conformance import (
    WELL,
    all_of,
    check_error,
    drained,
    hears,
    next_final,
    say,
    sound_of,
    text_of,
)
from tests.providers.rigs import Rig, places
from tests.providers.table import Case

Answer = tuple[list[Any], ProviderError | None, Callable[[Any], Awaitable[None]]]
"""What came, the error, and the proof, by an adapter, that the next request is another story."""
TRIES = 4
SECRET = "sim-key"


async def try_cell(rig: Rig, row: str, cases: tuple[Case, ...]) -> None:
    """All cases of one cell, each drawn place of theirs."""
    if row in ("stream", "cancel"):
        await WELL[rig.kind, row](rig)
        return
    for at, case in enumerate(cases):
        adapter = rig.make(**case.options)
        try:
            for how in places(case, seed=at):
                for attempt in range(TRIES):
                    if await _try(rig, adapter, case.patient(2**attempt), how, attempt):
                        break
        except BaseException as error:
            error.add_note(f"{row}: {case.fault or case.request} {how}")
            raise
        finally:
            await adapter.aclose()
            rig.clear()


async def _try(rig: Rig, adapter: Any, case: Case, how: Mapping[str, Any], attempt: int) -> bool:
    """False: a busy machine; our deadline passed before the simulator had come to its fault."""
    has_fault = rig.strike is not None and bool(case.fault)
    struck, asked = rig.struck(case) if has_fault else 0, rig.asked()
    if rig.strike is not None and has_fault:
        rig.strike(case, how)
    given, error, goes_on = await _ANSWERS[rig.kind](rig, adapter, case)
    is_early = has_fault and isinstance(error, ProviderTimeout) and rig.struck(case) - struck < case.times
    if is_early and attempt < TRIES - 1:
        rig.forget()
        return False
    if case.error is None:
        assert error is None, repr(error)
    else:
        check_error(adapter.name, error, case.error, secret=SECRET, **case.attributes)
    if has_fault:
        assert rig.struck(case) - struck == case.times, "the fault did not come to pass, or once too often"
        if error is not None and not attempt:  # what was given up before may arrive later
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


def _must_be(heard: Any, whole: Any, case: Case, ms: float, error: ProviderError | None) -> None:
    """All of the right answer, or its beginning; where there is no end to it, no more than the limit."""
    assert case.error is not None or error is None, repr(error)
    if case.most:
        assert 0.9 * case.most < ms <= case.most, ms
    elif case.error is None:
        assert heard == whole
    else:
        assert whole[: len(heard)] == heard and len(heard) < len(whole), "not the beginning of the answer"


async def _model_answers(rig: Rig, adapter: Any, case: Case) -> Answer:
    given, error = await drained(_shielded(rig, adapter, case))
    whole = rig.whole() if rig.whole is not None else text_of(await all_of(rig.make().stream(rig.request)))
    _must_be(text := text_of(given), whole, case, len(text), error)
    # A call or an end that is told of an answer that failed would be acted upon.
    assert isinstance(given[-1], ChatDone) if error is None else all(isinstance(one, TextDelta) for one in given)

    async def goes_on(again: Any) -> None:
        assert text_of(await all_of(again.stream(rig.request))) == whole, "a failure outlived its request"

    return given, error, goes_on


async def _voice_answers(rig: Rig, adapter: Any, case: Case) -> Answer:
    closing = adapter.aclose if case.fault == "closed" else None
    given, error = await drained(_shielded(rig, adapter, case), closing)
    given = [one for one in given if isinstance(one, AudioChunk)]
    sound = sound_of(given)
    if case.fault != "closed" and (sound or error is None):
        whole = rig.whole() if rig.whole is not None else sound_of(await all_of(rig.make().stream(rig.request)))
        _must_be(sound, whole, case, len(sound) / 2 / 24, error)

    async def goes_on(again: Any) -> None:
        sound = sound_of(await all_of(again.stream(rig.request)))
        assert sound and (rig.whole is None or sound == rig.whole()), "something of the failed clause"

    return given, error, goes_on


async def _ear_answers(rig: Rig, adapter: Any, case: Case) -> Answer:
    """Utterances until one fails. What is given on are Finals: those of the utterances before, each once."""
    try:
        stream = await adapter.open(rig.changed(case.request))
    except ProviderError as caught:

        async def opens(again: Any) -> None:
            await hears(rig, await again.open(rig.request))

        return [], caught, opens
    given, error = await _heard(rig, adapter, stream, case)

    async def goes_on(again: Any) -> None:
        if error is None:
            await hears(rig, stream)  # a second Final of what was heard would come before this one's
        elif rig.stays_failed:
            await _stays_failed(stream, error, rig)
        if error is None or rig.stays_failed or case.request or again is not adapter:
            await stream.aclose()
            await hears(rig, await again.open(rig.request))
        else:
            await hears(rig, stream)
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
        said = rig.whole() if number == 1 and rig.whole is not None else rig.then.get(number, final.text)
        assert final.text == said, f"utterance {number}: {final.text!r}"
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


_ANSWERS: Mapping[str, Any] = {"model": _model_answers, "voice": _voice_answers, "ear": _ear_answers}
