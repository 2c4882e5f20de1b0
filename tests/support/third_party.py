"""Other people's OpenAI-compatible servers, so that an adapter is not only tried against a simulator of our own.

    aimock       npm `@copilotkit/aimock`, MIT, no dependencies: chat of OpenAI, Groq and Azure OpenAI, transcription,
                 speech, keys, errors, cut streams, and a journal of what it was asked
    mock-ai-api  PyPI, MIT: chat and models of OpenAI; runs on the Starlette that is here anyway

Each is installed at a pinned version into var/cache, once. Where that cannot be, the test is skipped with the name of
what is missing; where the registry has it all the same, and in CI (the variable CI is set), it fails instead, so that
nobody takes a skipped peer for a passed one.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

CACHE = Path(__file__).parent.parent.parent / "var" / "cache"
AIMOCK, AIMOCK_VERSION = "@copilotkit/aimock", "1.43.0"
MOCK_AI_API, MOCK_AI_API_VERSION = "mock-ai-api", "0.1.1"
INSTALL_S = 60.0
START_S = 15.0
_LISTENS = re.compile(rb"(?i)(?:listening|running) on (http://[\d.:]+)")


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server. `url`: scheme, host and port; OpenAI's paths are under /v1, Groq's under /openai/v1."""

    name: str
    url: str


# ── installed once ────────────────────────────────────────────────────────────────────────────────────────────


def aimock_path() -> Path:
    """The installed program; installs it at first. Skips or fails the test where it cannot."""
    what = f"{AIMOCK}@{AIMOCK_VERSION}"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        _missing(what, "npm and node are not there")
    folder = CACHE / "npm"
    manifest = folder / "node_modules" / AIMOCK / "package.json"

    def is_installed() -> bool:
        return manifest.exists() and json.loads(manifest.read_text())["version"] == AIMOCK_VERSION

    with _locked(folder):
        if not is_installed():
            options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
            said = _run([npm, "install", *options, what])
            if not is_installed():
                is_there = not _run([npm, "view", what, "version"])
                _missing(what, f"npm could not install it: {said}", is_there=is_there)
    return folder / "node_modules" / ".bin" / "llmock"


def mock_ai_api_path() -> Path:
    """The folder that holds its package; as `aimock_path`."""
    what = f"{MOCK_AI_API}=={MOCK_AI_API_VERSION}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    folder = CACHE / "pypi" / what
    with _locked(folder):
        if not (folder / "app" / "openai_app.py").exists():
            # Its own dependencies are for a second server that is not wanted; this one needs Starlette and pydantic.
            said = _run([*pip, "install", "--no-deps", "--target", str(folder), what])
            if said:
                is_there = not _run([*pip, "download", "--no-deps", "--dest", str(folder / "download"), what])
                _missing(what, f"pip could not install it: {said}", is_there=is_there)
    return folder


def _run(command: Sequence[str]) -> str:
    """Empty when it went well, else what it said last."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        return f"nothing within {INSTALL_S:.0f} s"
    return "" if done.returncode == 0 else done.stderr.strip()[-300:] or f"exit code {done.returncode}"


class _locked:
    """Several test processes may share a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "lock"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _missing(what: str, why: str, *, is_there: bool = False) -> NoReturn:
    said = f"third-party peer {what}: {why}"
    if is_there or os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def aimock(
    program: Path,
    folder: Path,
    fixtures: Sequence[Mapping[str, Any]],
    *,
    chunk_chars: int = 7,
    latency_ms: int = 0,
    keys: Sequence[str] = (),
) -> AsyncIterator[Peer]:
    """aimock on a free port. A fixture: `{"match": {"userMessage": "hello"}, "response": {"content": "…"}}`.

    Args:
        program: from `aimock_path`, called outside of the event loop (it may install).
        folder: where the fixtures' file may be written.
        keys: those that it accepts; none accepts all.
    """
    file = folder / "aimock.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}))
    options = ["-p", "0", "-f", str(file), "-c", str(chunk_chars), "-l", str(latency_ms), "--strict"]
    env = os.environ | {"AIMOCK_API_KEYS": ",".join(keys)} if keys else None
    async with _running(f"aimock {AIMOCK_VERSION}", [str(program), *options], env=env) as peer:
        yield peer


@asynccontextmanager
async def mock_ai_api(folder: Path) -> AsyncIterator[Peer]:
    """mock-ai-api on a free port. What it answers follows from the model: `gpt-4.1:mock-tool-stream`, `…:mock-429`."""
    command = [sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:0", "--workers", "0", "app.openai_app:app"]
    async with _running(f"{MOCK_AI_API} {MOCK_AI_API_VERSION}", command, cwd=folder) as peer:
        yield peer


@asynccontextmanager
async def _running(
    name: str, command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = b""
        async with asyncio.timeout(START_S):
            while (found := _LISTENS.search(said)) is None:
                line = await process.stdout.readline()
                assert line, f"{name} ended at its start: {said.decode()}"
                said += line
        draining = asyncio.ensure_future(_drain(process.stdout))
        try:
            yield Peer(name, found[1].decode())
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
