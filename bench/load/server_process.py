"""The server under test, as a user runs it: `python -m server serve` in its own process, told by environment only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
PUBLIC_URL = "https://bench.example.test"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 30
LINE_CHARS = 400


class ServerFailed(Exception):
    """The server did not come up or went away; holds the end of its log."""


def one_line(error: Exception) -> str:
    """What happened, and the last that the server said, if anything."""
    lines = [one.strip() for one in str(error).splitlines() if one.strip()]
    return ": ".join([lines[0].rstrip(":"), *lines[1:][-1:]])[:LINE_CHARS] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user + system) and resident KiB of the server's own processes; embedded databases apart."""

    cpu_s: float
    rss_kib: int
    embedded_cpu_s: float


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the server's own processes hold now: what must not grow from call to call.

    `fds` are without `connections`, those to the embedded databases: pools open them as they are needed, up to their
    own bound, and keep them.
    """

    rss_kib: int
    threads: int
    fds: int
    connections: int = 0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def open_connections(servers: Sequence[psutil.Process]) -> int:
    """Accepted connections of servers on Unix sockets: each has the path of the socket that it came by, as that has."""
    paths: list[str] = []
    for one in servers:
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that has just gone
            paths += [str(found.laddr) for found in one.net_connections("unix") if found.laddr]
    return len(paths) - len(set(paths))


class ServerProcess:
    """Starts the server, waits until it is ready, stops it with SIGTERM.

    Args:
        env: added to (and over) a minimal environment; variables of the product are never inherited.
        log: where its output goes; a file in the data folder when None.
        data_dir: kept when given, else a temporary folder that goes with the server.
    """

    ready_s = READY_TIMEOUT_S
    """How long it may take to be ready."""

    def __init__(self, env: Mapping[str, str], *, log: Path | None = None, data_dir: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = dict(env)
        self._temporary = None if data_dir else tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self.data_dir = data_dir or Path(self._temporary.name if self._temporary else "")
        self.log = log or self.data_dir / "server.log"
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._temporary is not None:
            # As root the embedded servers run as somebody else, who must be able to enter.
            self.data_dir.chmod(0o755)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as sink:
            self._process = await self._spawn(sink)
        try:
            await self._wait_ready()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _spawn(self, sink: BinaryIO) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command(), cwd=ROOT, env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "server", "serve"]

    def _environment(self) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        base = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DATA_DIR": str(self.data_dir),
            "ALLOW_EMBEDDED": "1",
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        return {**keep, **base, **self._env}

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def pid(self) -> int:
        return self._process.pid

    def usage(self) -> Usage:
        """What it has used until now. Raises ServerFailed when it is gone."""
        try:
            ours, others = self._processes()
            cpu = [one.cpu_times() for one in ours]
            embedded = [one.cpu_times() for one in others if one.is_running()]
            rss = sum(one.memory_info().rss for one in ours)
        except psutil.NoSuchProcess as error:
            raise ServerFailed(f"the server is gone: {error}\n{self.log_tail()}") from None
        return Usage(
            cpu_s=sum(one.user + one.system for one in cpu),
            rss_kib=rss // 1024,
            embedded_cpu_s=sum(one.user + one.system for one in embedded),
        )

    def holdings(self) -> Holdings:
        """Raises ServerFailed when it is gone."""
        try:
            ours, others = self._processes()
            connections = open_connections(others)
            return Holdings(
                rss_kib=sum(one.memory_info().rss for one in ours) // 1024,
                threads=sum(one.num_threads() for one in ours),
                fds=sum(one.num_fds() for one in ours) - connections,
                connections=connections,
            )
        except psutil.NoSuchProcess as error:
            raise ServerFailed(f"the server is gone: {error}\n{self.log_tail()}") from None

    def _processes(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """(the server's own, the embedded databases'); raises psutil.NoSuchProcess."""
        main = psutil.Process(self._process.pid)
        if main.status() == psutil.STATUS_ZOMBIE:  # nobody has noticed yet
            raise psutil.ZombieProcess(main.pid)
        members = [main, *main.children(recursive=True)]
        name = main.name()
        return [one for one in members if one.name() == name], [one for one in members if one.name() != name]

    def pin(self, core: int) -> None:
        """Keep the server's own process and its threads on one core. Raises ServerFailed when it is gone."""
        try:
            for thread in psutil.Process(self._process.pid).threads():
                os.sched_setaffinity(thread.id, {core})
        except (psutil.NoSuchProcess, ProcessLookupError) as error:
            raise ServerFailed(f"the server is gone: {error}\n{self.log_tail()}") from None

    async def metrics(self) -> str:
        """The text of /metrics; empty when the server does not give it."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
                response = await http.get(f"{self.url}/metrics")
        except httpx.HTTPError:
            return ""
        return response.text if response.status_code == 200 else ""

    def log_lines(self, skip_bytes: int = 0) -> tuple[list[dict[str, Any]], int]:
        """JSON lines logged after `skip_bytes`, and where to go on; other lines are left out."""
        with self.log.open("rb") as file:
            file.seek(skip_bytes)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        found = []
        for line in whole.splitlines():
            if line.startswith(b"{"):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return found, skip_bytes + len(whole)

    def log_tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        except OSError:
            return ""

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.ready_s
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            while time.monotonic() < deadline:
                if not self.is_running:
                    raise ServerFailed(f"the server exited with {self.returncode}:\n{self.log_tail()}")
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)
        raise ServerFailed(f"not ready after {self.ready_s:.0f} s:\n{self.log_tail()}")

    async def _stop(self) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):  # it has just died
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()
