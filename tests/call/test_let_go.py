"""A call that is over goes at once: nothing of it waits for the garbage collector, which may come after 300 calls."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from server.call import plane
from server.call.capture import Capture
from server.call.session import CallSession
from server.call.uplink import UplinkPath
from tests.support.call_plane import plane_server, until

OF_A_CALL = (CallSession, UplinkPath, Capture)
SAID = b"\x00\x20\x00\xe0" * 160
"""20 ms of a square wave at 16 kHz."""


@pytest.fixture(autouse=True)
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def left() -> list[object]:
    return [one for one in gc.get_objects() if type(one) in OF_A_CALL]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_a_call_held_goes_with_it(run: Callable[..., None], tmp_path: Path) -> None:
    async def main() -> None:
        async with plane_server(tmp_path) as server:

            async def is_over() -> None:
                await until(lambda: not server.plane.active)
                await until(lambda: not left())

            # Left while the agent greets, in mid-word, and by the server, which is told to end.
            page = await server.talking(await server.promised("browser-1"))
            assert {type(one) for one in left()} == set(OF_A_CALL)
            await page.close()
            await is_over()
            page = await server.talking(await server.promised("browser-2"))
            for _ in range(20):
                await page.send(SAID)
            await page.send(json.dumps({"event": "dtmf", "digit": "1"}))
            await page.close()
            await is_over()
            await server.talking(await server.promised("browser-3"))
            next(one for one in left() if isinstance(one, CallSession)).end("drained")
            await is_over()

    run(main())


def test_the_watch_of_streams_keeps_no_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plane, "WATCH_S", 0.01)

    async def main() -> None:
        async with plane_server(tmp_path) as server:
            page = await server.talking(await server.promised())
            for _ in range(3):  # 100 ms each: it has looked at the call
                await page.recv()
            await page.close()
            await until(lambda: not server.plane.active)
            await until(lambda: not left())

    uvloop.run(main())
