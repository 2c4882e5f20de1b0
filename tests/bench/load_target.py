"""The stand-in as something that the load can be run against, in the generator's own process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from bench.load.floor import Floor
from bench.load.rig import Bench
from bench.load.server_process import Holdings, Usage
from tests.bench.stand_in import Behaviour, StandIn


class SteadyFloor:
    """A machine that nobody else uses."""

    def __init__(self, after_us: float = 5.0) -> None:
        self._floors = [Floor(after_us, 9.0, 9), Floor(5.0, 9.0, 9)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def measure(self) -> Floor:
        return self._floors.pop()


class StandInTarget:
    """Usage is that of this process; a leaking stand-in keeps a file descriptor, or a task, for each call."""

    is_running = True
    returncode = None

    def __init__(self, stand_in: StandIn, folder: Path) -> None:
        self.url = stand_in.url
        self.data_dir = folder
        self._stand_in = stand_in
        self.leaked: list[int] = []

    def usage(self) -> Usage:
        times = psutil.Process().cpu_times()
        return Usage(times.user + times.system, psutil.Process().memory_info().rss // 1024, 0.0)

    def holdings(self) -> Holdings:
        held = len(self.leaked)
        if self._stand_in.behaviour.broken == "leak":
            wanted = len(self._stand_in.agents)
            self.leaked += [os.open("/dev/null", os.O_RDONLY) for _ in range(wanted - held)]
        process = psutil.Process()
        # Sockets of the generator are in here too; what it holds itself is the same before and after.
        return Holdings(process.memory_info().rss // 1024, process.num_threads(), len(self.leaked))

    def pin(self, core: int) -> None:
        raise AssertionError("the stand-in shares the generator's process")

    async def metrics(self) -> str:
        # Other tasks of this loop are the generator's.
        return f"# TYPE asyncio_tasks gauge\nasyncio_tasks {float(len(self._stand_in.left))}\n"

    def log_lines(self, skip_bytes: int = 0) -> tuple[list[dict[str, Any]], int]:
        turns = self._stand_in.turns
        return turns[skip_bytes:], len(turns)


def bench_with(behaviour: Behaviour, folder: Path, floor: SteadyFloor | None = None) -> Bench:
    """A bench that runs against the stand-in, and hurries."""

    @contextlib.asynccontextmanager
    async def serve(env: Mapping[str, str]) -> AsyncIterator[StandInTarget]:
        captures = folder / "capture"
        captures.mkdir(exist_ok=True)
        async with StandIn(behaviour, captures) as stand_in:
            target = StandInTarget(stand_in, folder)
            try:
                yield target
            finally:
                for fd in target.leaked:
                    os.close(fd)

    return Bench(
        serve=serve,
        calibrate=lambda cores: floor or SteadyFloor(),
        isa="none",
        ramp_per_s=200.0,
        settle_s=0.1,
        quiet_s=0.1,
    )
