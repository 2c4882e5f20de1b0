"""Carries the calls of tools out, beside the calls of people: on record before anything happens, and to the end.

    InvokeTool ─► ToolStarted on disk ─► HTTP ─► ToolEnded ─► whoever listens for the call, now or when it is carried on

A tool belongs to no stream: a caller who hangs up, or whose line breaks, changes nothing about it. When the process
stops it waits for the tools that are at work, each within its own deadline.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from server.agent.tool_settings import ToolSettings, redacted, without
from server.clock import Clock
from server.logs import bind_call
from server.metrics import Metrics
from server.store.fact import ToolEnded, ToolStarted
from server.store.short_memory import ShortMemory
from server.store.spool import Spool
from server.tool.http_tool import HttpTools, ToolFailed

log = logging.getLogger(__name__)

MAX_RUNNING = 500
ON_RECORD_S = 1.0
"""A disk that takes longer: nothing is done that would not be on record."""
KEPT_S = 60
"""So long the results of a call wait for its stream to come back."""
KEPT_CALLS = 1000
MAX_RESULT_CHARS = 4000

Deliver = Callable[[int, str], None]
"""(tool_no, result)."""


class ToolRunner:
    def __init__(self, http: HttpTools, spool: Spool, metrics: Metrics, clock: Clock) -> None:
        self._http = http
        self._spool = spool
        self._metrics = metrics
        self._clock = clock
        self._listening: dict[str, Deliver] = {}
        self._kept: ShortMemory[list[tuple[int, str]]] = ShortMemory(clock, ttl_s=KEPT_S, capacity=KEPT_CALLS)
        self._group = asyncio.TaskGroup()
        self._running = 0

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is at work: each call has its deadline."""
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            await self._http.aclose()

    def listen(self, call_id: str, deliver: Deliver) -> None:
        """From now on results of this call go to `deliver`; those that came meanwhile, at once."""
        self._listening[call_id] = deliver
        kept = self._kept.get(call_id)
        if kept is not None:
            self._kept.drop(call_id, kept)
            for tool_no, result in kept:
                deliver(tool_no, result)

    def leave(self, call_id: str, deliver: Deliver) -> None:
        """Nobody listens for this call, unless somebody else has begun to."""
        if self._listening.get(call_id) == deliver:
            del self._listening[call_id]

    def start(self, call_id: str, tool_no: int, tool: ToolSettings, arguments: str) -> None:
        """Begin one call; its result is delivered in any case, and its text begins with "error" when it failed."""
        if self._running >= MAX_RUNNING:
            self._deliver(call_id, tool_no, "error: too much to do")
            return
        self._running += 1
        self._group.create_task(self._run(call_id, tool_no, tool, arguments), name=f"{call_id} tool {tool_no}")

    async def _run(self, call_id: str, tool_no: int, tool: ToolSettings, arguments: str) -> None:
        began_s = time.monotonic()
        outcome, result, attempts = "failed", "error: it failed", 0
        given: dict[str, Any] = {}
        with bind_call(call_id):
            try:
                given = json.loads(arguments)
                await self._put_on_record(call_id, tool_no, tool, given)
                answer = await self._http.call(tool, given, f"{call_id}-{tool_no}")
                outcome, result, attempts = "done", answer.text or "done", answer.attempts
            except ToolFailed as error:
                outcome, result = error.kind, f"error: {error}"
                # Not its text: a server may repeat what it was sent.
                log.warning("tool %s: %s", tool.name, error.kind, extra={"event": "tool_failed", "tool": tool.name})
            except Exception as error:  # noqa: BLE001  a bug of ours costs this one its result, and no other
                kind = type(error).__name__
                log.error("tool %s: %s", tool.name, kind, extra={"event": "tool_failed", "tool": tool.name})
            finally:
                self._running -= 1
            took_s = time.monotonic() - began_s
            self._metrics.observe_tool(outcome, took_s)
            # One that was cancelled has no outcome: nobody knows it.
            ended = ToolEnded(
                call_id=call_id,
                tool_no=tool_no,
                outcome=outcome,
                result=without(result, given, tool)[:MAX_RESULT_CHARS],
                attempts=attempts,
                duration_ms=took_s * 1000,
            )
            self._spool.append_nowait(ended)
            self._deliver(call_id, tool_no, result)

    async def _put_on_record(self, call_id: str, tool_no: int, tool: ToolSettings, given: dict[str, Any]) -> None:
        kept = redacted(given, tool.redact)
        fact = ToolStarted(call_id=call_id, tool_no=tool_no, name=tool.name, arguments=kept, at=self._clock.wall_s())
        try:
            if not self._spool.append_nowait(fact):
                raise ToolFailed("refused", "it could not be put on record, so it was not done")
            async with asyncio.timeout(ON_RECORD_S):
                await self._spool.flush()
        except TimeoutError:
            raise ToolFailed("refused", "it could not be put on record in time, so it was not done") from None

    def _deliver(self, call_id: str, tool_no: int, result: str) -> None:
        deliver = self._listening.get(call_id)
        if deliver is not None:
            deliver(tool_no, result)
            return
        kept = self._kept.get(call_id)
        if kept is None:
            kept = []
            self._kept.add(call_id, kept)
        kept.append((tool_no, result))
