"""Two streams for the same question: whoever answers first is kept, the other is closed.

The second is opened only when the first has taken longer than usual, so that a slow tail costs one more request and
not a late answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")


@dataclass(slots=True)
class Raced(Generic[T, V]):
    """`value` and `stream` are the winner's."""

    value: V
    stream: AsyncGenerator[T, None]
    opened_backup: bool
    used_backup: bool


async def first_of(
    stream: AsyncGenerator[T, None],
    first: Callable[[AsyncGenerator[T, None]], Awaitable[V]],
    open_backup: Callable[[], AsyncGenerator[T, None] | None],
    after_s: float,
    *,
    is_failure: type[BaseException],
) -> Raced[T, V]:
    """Await `first(stream)`; when it takes longer than `after_s`, that of a backup too.

    A side that fails with `is_failure` leaves the race to the other; when both fail, the error of `stream` is raised.
    Both are closed when the caller is cancelled; the loser is closed before this returns.
    """
    own = asyncio.ensure_future(first(stream))
    other: asyncio.Future[V] | None = None
    backup: AsyncGenerator[T, None] | None = None
    kept: AsyncGenerator[T, None] | None = None
    try:
        await asyncio.wait({own}, timeout=after_s)
        if not own.done():
            backup = open_backup()
        if backup is None:
            value = await own
            kept = stream
            return Raced(value, stream, False, False)
        other = asyncio.ensure_future(first(backup))
        pending: set[asyncio.Future[Any]] = {own, other}
        while pending:
            finished, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # When both are there the first one is kept: it was asked first.
            for one in (own, other):
                if one in finished and one.exception() is None:
                    if one is own:
                        kept = stream
                        return Raced(own.result(), stream, True, False)
                    kept = backup
                    return Raced(other.result(), backup, True, True)
                if one in finished and not isinstance(one.exception(), is_failure):
                    raise one.exception() or AssertionError
        error = own.exception()
        assert error is not None
        raise error
    finally:
        if other is not None and backup is not None and kept is not backup:
            await _close(other, backup)
        if kept is not stream:
            await _close(own, stream)


async def _close(future: asyncio.Future[Any], stream: AsyncGenerator[Any, None]) -> None:
    """Cancel what waits for the stream, then close it; `with_deadlines` bounds how long that takes."""
    if not future.done():
        future.cancel()
        await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # seen: it lost
    await stream.aclose()
