"""A task group for benches: what went wrong leaves it as itself, so that it can be said in one line."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Tasks(asyncio.TaskGroup):
    """Raises the first error, where all are of one kind, instead of a group of them; its cause is the group."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if any(type(one) is not type(first) for one in group.exceptions):
                raise
            raise first from group
