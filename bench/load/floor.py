"""What echoing one media message costs on this machine now: by C and epoll, and by picows, CPU per message.

Both stand beside every result: runs are only comparable when their floors are, and a floor that moved during a run
means that something else used the machine. The figure is the median of short slices, the two servers in turns with
pauses between, so that one burst of a neighbour touches few of them.

    serve (C) ◄──┐                         serve and picows sit on the server's core,
                 ├── drive: 8 connections  drive on the generator's, where there are two
    picows    ◄──┘    one message each
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("echo_floor.c")
MESSAGES = 5_000
"""In one slice: 40 ms of work, a multiple of the scheduler's steps and short beside a neighbour's burst."""
CONNECTIONS = 8
"""Each with one message on its way: no two messages of a connection arrive in one read, as at 20 ms each."""
MIN_SLICES, MAX_SLICES = 11, 27
PAUSE_S = 0.2
AGREEMENT = 0.10
"""Slices are added until the middle half of them lies within so much of the median."""
TIMEOUT_S = 20.0


class FloorFailed(Exception):
    """The floor could not be measured; says what is missing."""


@dataclass(frozen=True, slots=True)
class Floor:
    """CPU (user + system) of one echoed message, µs."""

    c_us: float
    picows_us: float
    slices: int


class Calibration(Protocol):
    """What a run is calibrated by: the floor before it and after it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def measure(self) -> Floor: ...


class EchoFloor:
    """Compiles the C echo, keeps both servers up, and measures when asked.

    Args:
        cores: (server's, generator's) core; None leaves all to the scheduler.
    """

    def __init__(self, cores: tuple[int, int] | None = None) -> None:
        self._cores = cores
        self._stack = AsyncExitStack()
        self._program = Path()
        self._servers: dict[str, tuple[asyncio.subprocess.Process, int]] = {}

    async def __aenter__(self) -> Self:
        try:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="floor-"))
            self._program = compile_echo(Path(folder))
            await self._serve("c", str(self._program), "serve")
            await self._serve("picows", sys.executable, "-m", "bench.load.floor")
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def measure(self) -> Floor:
        """Raises FloorFailed."""
        slices: dict[str, list[float]] = {name: [] for name in self._servers}
        while len(slices["c"]) < MIN_SLICES or (len(slices["c"]) < MAX_SLICES and not agree(slices["c"])):
            for name, (process, port) in self._servers.items():
                slices[name].append(await self._slice(process.pid, port))
            await asyncio.sleep(PAUSE_S)
        return Floor(statistics.median(slices["c"]), statistics.median(slices["picows"]), len(slices["c"]))

    async def _slice(self, pid: int, port: int) -> float:
        before_us = cpu_us(pid)
        drive = await asyncio.create_subprocess_exec(
            self._program, "drive", str(port), str(MESSAGES), str(CONNECTIONS),
            stderr=asyncio.subprocess.PIPE, preexec_fn=self._on_core(1),
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(drive.communicate(), TIMEOUT_S)
        except TimeoutError:
            drive.kill()
            await drive.wait()
            raise FloorFailed(f"{MESSAGES} messages were not echoed within {TIMEOUT_S:.0f} s") from None
        if drive.returncode:
            raise FloorFailed(f"echo floor: {said.decode().strip()}")
        return (cpu_us(pid) - before_us) / MESSAGES

    async def _serve(self, name: str, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            preexec_fn=self._on_core(0),
        )  # fmt: skip
        self._stack.push_async_callback(_end, process)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)
            self._servers[name] = (process, int(line))
        except (TimeoutError, ValueError):
            raise FloorFailed(f"the echo server {name!r} did not start") from None

    def _on_core(self, which: int) -> Callable[[], None] | None:
        cores = self._cores
        return None if cores is None else lambda: os.sched_setaffinity(0, {cores[which]})


def agree(slices: list[float]) -> bool:
    """The middle half of the slices lies within AGREEMENT of their median."""
    lower, middle, upper = statistics.quantiles(slices, n=4)
    return upper - lower <= AGREEMENT * middle


def compile_echo(folder: Path) -> Path:
    """Build the C echo with the machine's compiler. Raises FloorFailed."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise FloorFailed("no C compiler (gcc, cc or CC): the echo floor cannot be built")
    program = folder / "echo_floor"
    built = subprocess.run(
        [*compiler.split(), "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise FloorFailed(f"the echo floor does not compile:\n{built.stderr}")
    return program


def cpu_us(pid: int) -> float:
    """CPU time of a process's first thread until now: the scheduler's own count.

    Raises FloorFailed: the process is gone, or this is no Linux.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3
    except OSError as error:
        raise FloorFailed(f"no CPU time of process {pid}: {error}") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 5)
    except TimeoutError:
        process.kill()
        await process.wait()


class _Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
            return
        transport.send(frame.msg_type, frame.get_payload_as_bytes())


async def _echo_until_eof() -> None:
    server = await ws_create_server(lambda _request: _Echo(), "127.0.0.1", 0, use_aiofastnet=False)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_echo_until_eof())
