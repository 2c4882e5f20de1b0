"""Deadlines around any provider's stream: a service that says nothing must not become dead air.

    consumer <- with_deadlines <- provider's iterator

Guarantees: only useful output counts as an answer (a keep-alive or an empty delta does not); only time spent waiting
for the provider counts, so a slow consumer never makes a provider late; the inner stream is closed in every case, and
closing it takes at most one frame. Retries and fallback are not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from providers.base import AudioChunk, Final, Interim, TextDelta, ToolCall
from providers.errors import Phase, ProviderTimeout

T = TypeVar("T")

CLOSE_LIMIT_S = 0.02  # one 20 ms frame: barge-in waits for this


def is_useful(item: object) -> bool:
    """Whether `item` carries something for the caller: text, audio, a tool call or a transcript."""
    match item:
        case TextDelta(text) | Interim(_, text):
            return bool(text)
        case AudioChunk(audio):
            return bool(audio)
        case ToolCall() | Final():
            return True
    return False


async def with_deadlines(
    stream: AsyncIterator[T],
    *,
    first_ms: int,
    idle_ms: int,
    total_ms: int,
    useful: Callable[[T], bool] = is_useful,
    provider: str = "",
) -> AsyncGenerator[T, None]:
    """Yield the items of `stream` unchanged while it keeps its deadlines.

    Args:
        stream: any async iterator; `aclose()` is called if it has one, whatever happens.
        first_ms: longest wait for the first useful item.
        idle_ms: longest wait between two useful items, and from the last one to the end.
        total_ms: longest wait of all together.
        useful: whether an item counts as an answer.
        provider: name for the error.
    Raises:
        ProviderTimeout: phase first, idle or total. What was yielded before stays valid.
        ValueError: a limit is not positive.
    """
    if min(first_ms, idle_ms, total_ms) <= 0:
        raise ValueError(f"deadlines: expected positive ms, got {first_ms}, {idle_ms}, {total_ms}")
    loop = asyncio.get_running_loop()
    phase: Phase = "first"
    phase_ms = first_ms
    waited_phase_s = waited_total_s = 0.0
    try:
        while True:
            left_total_s = total_ms / 1000 - waited_total_s
            left_s = min(phase_ms / 1000 - waited_phase_s, left_total_s)
            began_s = loop.time()
            limit = asyncio.timeout(max(left_s, 0.0))
            try:
                async with limit:
                    item = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not limit.expired():
                    raise
                if left_s == left_total_s:
                    phase, phase_ms = "total", total_ms
                raise ProviderTimeout(phase, phase_ms, provider=provider) from None
            waited_s = loop.time() - began_s
            waited_total_s += waited_s
            waited_phase_s += waited_s
            if useful(item):
                phase, phase_ms, waited_phase_s = "idle", idle_ms, 0.0
            yield item
    finally:
        await _close(stream)


async def _close(stream: object) -> None:
    closing = getattr(stream, "aclose", None)
    if closing is None:
        return
    limit = asyncio.timeout(CLOSE_LIMIT_S)
    try:
        async with limit:
            await closing()
    except TimeoutError:
        # Cancelled by us: whoever hangs while closing was told twice. The call goes on.
        if not limit.expired():
            raise
