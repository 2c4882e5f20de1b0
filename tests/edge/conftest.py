from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

Run = Callable[[Coroutine[Any, Any, None]], None]


def _uvloop(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(main)


def _asyncio_debug(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main, debug=True)


@pytest.fixture(params=[_uvloop, _asyncio_debug], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each of the loops that the edge promises to work on."""
    return request.param
