"""Tools beside calls: on record before anything happens, to the end, and heard of by whoever carries the call on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.agent.settings import AgentSettings
from server.agent.tool_settings import ToolSettings
from server.clock import SystemClock
from server.metrics import Metrics
from server.store.fact import Fact, ToolEnded, ToolStarted, decode
from server.store.segment import records
from server.store.spool import Spool
from server.tool import runner
from server.tool.http_tool import HttpTools
from server.tool.runner import ToolRunner
from tests.support.http_peer import Answer, HttpPeer, http_peer

CALL = "0b6f5d0e-0000-4000-8000-000000000001"


@dataclass
class Desk:
    tools: ToolRunner
    peer: HttpPeer
    spool: Spool
    metrics: Metrics
    results: list[tuple[int, str]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def on_result(self, tool_no: int, result: str) -> None:
        self.results.append((tool_no, result))
        self.came.set()

    def tool(self, **settings: Any) -> ToolSettings:
        [one] = AgentSettings.parse({"tools": [{"name": "book", "url": self.peer.url, **settings}]}).tools
        return one

    async def facts(self) -> list[Fact]:
        await self.spool.flush()
        return [
            decode(one.payload)
            for path in sorted(self.spool.folder.glob("*.seg"))
            for one in records(path.read_bytes())
        ]


@asynccontextmanager
async def desk(folder: Path, *answers: Answer) -> AsyncIterator[Desk]:
    spool, metrics = Spool(folder), Metrics()
    spool.start()
    try:
        async with http_peer(*answers) as peer:
            http = HttpTools({}, ["127.0.0.1"])
            async with ToolRunner(http, spool, metrics, SystemClock()) as tools:
                yield Desk(tools, peer, spool, metrics)
    finally:
        spool.close()


def test_a_call_is_on_record_before_and_after(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path, Answer(body=b"booked")) as d:
            d.tools.listen(CALL, d.on_result)
            d.tools.start(CALL, 1, d.tool(redact=["card"]), '{"day": "Monday", "card": "4111"}')
            await d.came.wait()
            assert d.results == [(1, "booked")]
            first, last = await d.facts()
            assert isinstance(first, ToolStarted) and isinstance(last, ToolEnded)
            assert dict(first.arguments) == {"day": "Monday", "card": "(redacted)"}
            assert (last.outcome, last.result, last.attempts) == ("done", "booked", 1)
            [seen] = d.peer.seen
            assert '"card": "4111"' in seen.body and seen.headers["idempotency-key"] == f"{CALL}-1"
            assert d.metrics.registry.get_sample_value("tool_call_seconds_count", {"outcome": "done"}) == 1

    asyncio.run(run())


def test_what_cannot_be_put_on_record_is_not_done(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as d:
            d.tools.listen(CALL, d.on_result)
            d.spool._queue_records = 0
            d.tools.start(CALL, 1, d.tool(), "{}")
            await d.came.wait()
            assert d.results == [(1, "error: it could not be put on record, so it was not done")]
            assert d.peer.seen == []

    asyncio.run(run())


def test_nor_what_the_disk_takes_too_long_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with desk(tmp_path) as d:
            monkeypatch.setattr(runner, "ON_RECORD_S", 0.05)
            writing, go_on = d.spool._commit, threading.Event()

            def slow(batch: list[tuple[int, bytes]]) -> None:
                go_on.wait(20)
                writing(batch)

            monkeypatch.setattr(d.spool, "_commit", slow)
            d.tools.listen(CALL, d.on_result)
            d.tools.start(CALL, 1, d.tool(), "{}")
            await d.came.wait()
            go_on.set()
            assert d.results == [(1, "error: it could not be put on record in time, so it was not done")]
            assert d.peer.seen == []

    asyncio.run(run())


def test_failures_are_told_and_kept(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path, Answer(status=409, body=b"taken")) as d:
            d.tools.listen(CALL, d.on_result)
            d.tools.start(CALL, 1, d.tool(), "{}")
            await d.came.wait()
            assert d.results == [(1, "error: HTTP 409 taken")]
            last = (await d.facts())[-1]
            assert isinstance(last, ToolEnded) and (last.outcome, last.attempts) == ("rejected", 0)

    asyncio.run(run())


def test_a_stream_that_comes_back_gets_what_was_done_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path, Answer(body=b"one"), Answer(body=b"two")) as d:
            lost: list[tuple[int, str]] = []
            first = lambda tool_no, result: lost.append((tool_no, result))  # noqa: E731
            d.tools.listen(CALL, first)
            d.tools.leave(CALL, first)
            for number in (1, 2):
                d.tools.start(CALL, number, d.tool(), "{}")
                while len([one for one in await d.facts() if isinstance(one, ToolEnded)]) < number:
                    await asyncio.sleep(0)
            d.tools.listen(CALL, d.on_result)
            assert (lost, d.results) == ([], [(1, "one"), (2, "two")])
            d.tools.leave(CALL, first)  # late, and no longer the one who listens
            d.tools.start(CALL, 3, d.tool(), "{}")
            d.came.clear()
            await d.came.wait()
            assert d.results[-1][0] == 3

    asyncio.run(run())


def test_stopping_waits_for_what_is_at_work(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path, Answer(body=b"booked")) as d:
            d.tools.listen(CALL, d.on_result)
            d.tools.start(CALL, 1, d.tool(), "{}")
        assert d.results == [(1, "booked")]

    asyncio.run(run())


def test_so_many_at_once_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with desk(tmp_path) as d:
            monkeypatch.setattr(runner, "MAX_RUNNING", 3)
            d.tools.listen(CALL, d.on_result)
            for number in range(1, 6):
                d.tools.start(CALL, number, d.tool(), "{}")
            assert d.results == [(4, "error: too much to do"), (5, "error: too much to do")]
        assert len(d.results) == 5

    asyncio.run(run())


def test_a_call_that_breaks_on_us_costs_no_other(tmp_path: Path) -> None:
    """Half a surrogate pair cannot be put on record, nor sent: that one fails, and what is at work goes on."""

    async def run() -> None:
        async with desk(tmp_path, Answer(body=b"booked")) as d:
            d.tools.listen(CALL, d.on_result)
            d.tools.start(CALL, 1, d.tool(), '{"a": "\\ud800"}')
            await d.came.wait()
            assert d.results == [(1, "error: it failed")] and d.peer.seen == []
            d.came.clear()
            d.tools.start(CALL, 2, d.tool(), "{}")
            await d.came.wait()
            assert d.results[1:] == [(2, "booked")]
            assert [one.tool_no for one in await d.facts() if isinstance(one, ToolStarted)] == [2]

    asyncio.run(run())


def test_a_redacted_value_that_the_server_repeats_is_neither_logged_nor_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with desk(tmp_path, Answer(status=400, body=b"no such card: 4111222")) as d:
            d.tools.listen(CALL, d.on_result)
            d.tools.start(CALL, 1, d.tool(redact=["card"]), '{"card": 4111222}')
            await d.came.wait()
            assert d.results == [(1, "error: HTTP 400 no such card: 4111222")]  # the model knows it anyway
            last = (await d.facts())[-1]
            assert isinstance(last, ToolEnded) and last.result == "error: HTTP 400 no such card: (redacted)"
        assert "tool book: rejected" in caplog.text and "4111222" not in caplog.text

    asyncio.run(run())


def test_one_that_was_cancelled_has_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process gives up before its deadline: whether it was done nobody knows, and the record does not say."""

    async def run() -> None:
        results: list[tuple[int, str]] = []
        with pytest.raises(ExceptionGroup):
            async with desk(tmp_path) as d:
                asked, calling = asyncio.Event(), HttpTools.call

                async def call(*given: Any) -> Any:
                    asked.set()
                    await asyncio.Event().wait()
                    return await calling(*given)

                monkeypatch.setattr(HttpTools, "call", call)
                d.tools.listen(CALL, lambda number, result: results.append((number, result)))
                d.tools.start(CALL, 1, d.tool(), "{}")
                await asked.wait()
                raise RuntimeError("stop")
        kept = [type(decode(one.payload)) for one in records(next(tmp_path.glob("*.seg")).read_bytes())]  # noqa: ASYNC240
        assert (kept, results) == ([ToolStarted], [])

    asyncio.run(run())
