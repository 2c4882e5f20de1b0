"""Other people's OpenAI-compatible servers, so that an adapter is not only tried against a simulator of our own.

aimock (npm `@copilotkit/aimock`, MIT, no dependencies) is installed at a pinned version into var/cache/npm, once. Where
that cannot be, the test is skipped with the name of what is missing; in CI (the variable CI is set) it fails instead,
so that nobody takes a skipped peer for a passed one.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

CACHE = Path(__file__).parent.parent.parent / "var" / "cache" / "npm"
AIMOCK = "@copilotkit/aimock"
AIMOCK_VERSION = "1.43.0"
INSTALL_S = 60.0
START_S = 15.0
_LISTENS = re.compile(rb"listening on (http://\S+)")


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server. `url`: scheme, host and port; OpenAI's paths are under /v1, Groq's under /openai/v1."""

    name: str
    url: str


def aimock_path() -> Path:
    """The installed program; installs it at first. Skips the test, or fails it in CI, where it cannot."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        _missing("npm and node are not there")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may share the folder
        if _installed() != AIMOCK_VERSION:
            command = [npm, "install", "--prefix", str(CACHE), "--no-audit", "--no-fund", "--ignore-scripts"]
            try:
                done = subprocess.run(
                    [*command, f"{AIMOCK}@{AIMOCK_VERSION}"],
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=INSTALL_S,
                )
            except subprocess.TimeoutExpired:
                _missing(f"npm did not install it within {INSTALL_S:.0f} s")
            if done.returncode != 0 or _installed() != AIMOCK_VERSION:
                _missing(f"npm could not install it: {done.stderr.strip()[-300:]}")
    return CACHE / "node_modules" / ".bin" / "llmock"


@asynccontextmanager
async def aimock(
    program: Path, folder: Path, fixtures: Sequence[Mapping[str, Any]], *, chunk_chars: int = 7, latency_ms: int = 0
) -> AsyncIterator[Peer]:
    """aimock on a free port. A fixture: `{"match": {"userMessage": "hello"}, "response": {"content": "…"}}`.

    Args:
        program: from `aimock_path`, called outside of the event loop (it may install).
        folder: where the fixtures' file may be written.
    """
    file = folder / "aimock.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}))
    process = await asyncio.create_subprocess_exec(
        program, "-p", "0", "-f", file, "-c", str(chunk_chars), "-l", str(latency_ms), "--strict",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = b""
        async with asyncio.timeout(START_S):
            while (found := _LISTENS.search(said)) is None:
                line = await process.stdout.readline()
                assert line, f"aimock ended at its start: {said.decode()}"
                said += line
        draining = asyncio.ensure_future(_drain(process.stdout))
        try:
            yield Peer(f"aimock {AIMOCK_VERSION}", found[1].decode())
        finally:
            draining.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    """Its log must not fill the pipe."""
    while await stream.read(65536):
        pass


def _installed() -> str:
    manifest = CACHE / "node_modules" / AIMOCK / "package.json"
    return str(json.loads(manifest.read_text())["version"]) if manifest.exists() else ""


def _missing(why: str) -> NoReturn:
    said = f"third-party peer {AIMOCK}@{AIMOCK_VERSION}: {why}"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)
