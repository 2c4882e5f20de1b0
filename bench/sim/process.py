"""The provider simulators as processes beside the server, and the environment that leads the server to them.

    Azure Speech (stt, tts) · Groq (model, Whisper) · OpenAI (model, transcription, speech)

Each has a port of its own and orders by HTTP (`faults`): the server under test is started with `env` and knows nothing
of simulators.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[2]
AZURE_KEY = "sim-azure-speech-key"
CHAT_KEY = "sim-key-0123"
START_S = 30.0
STOP_S = 5.0


class SimFailed(Exception):
    """A simulator did not come up; holds what it printed."""


class ProviderProcesses:
    """Starts the three, stops them with SIGTERM.

    Args:
        book: clips that the recognisers know, as `Clipbook.save` writes them; None: they hear nothing.
        profile: delays, one of bench.sim.profile. brain: clinic, scripted or talk.
    """

    def __init__(self, *, book: Path | None = None, profile: str = "azure-groq", brain: str = "clinic") -> None:
        self._book = book
        self._profile = profile
        self._brain = brain
        self._processes: list[asyncio.subprocess.Process] = []
        self.env: dict[str, str] = {}
        self.azure_url = ""
        self.controls: dict[str, str] = {}

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._processes]

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        known = ["--book", str(self._book)] if self._book else []
        azure = await self._run("bench.sim.azure", ["--profile", self._profile, "--key", AZURE_KEY, *known])
        self.azure_url = azure.split()[-1]
        self.env = {
            "AZURE_SPEECH_KEY": AZURE_KEY,
            "AZURE_SPEECH_ENDPOINT": self.azure_url.replace("http", "ws", 1),
        }
        known = ["--clips", str(self._book)] if self._book else []
        for flavour in ("groq", "openai"):
            options = ["--flavour", flavour, "--profile", self._profile, "--brain", self._brain, "--key", CHAT_KEY]
            addresses = json.loads(await self._run("bench.sim.openai", [*options, *known]))
            name = flavour.upper()
            # The SDK of OpenAI wants the path, that of Groq adds it.
            self.env |= {f"{name}_API_KEY": CHAT_KEY, f"{name}_BASE_URL": addresses["base_url"].rstrip("/")}
            self.controls[flavour] = addresses["control"]

    async def _run(self, module: str, options: Sequence[str]) -> str:
        """Start one; returns the line with its address."""
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *options, cwd=ROOT, env=keep,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._processes.append(process)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            line = ""
        if not line:
            raise SimFailed(f"{module} did not start")
        return line

    async def _stop(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    # ── orders ────────────────────────────────────────────────────────────────────────────────────────────────

    async def fault_azure(self, **fault: Any) -> None:
        """The fields of bench.sim.azure.fault.Fault."""
        await self._post(f"{self.azure_url}/sim/faults", fault)

    async def drop_azure(self) -> None:
        """Reset every connection to the Speech service."""
        await self._post(f"{self.azure_url}/sim/drop", {})

    async def fault_chat(self, flavour: str, **fault: Any) -> None:
        """An order of bench/sim/openai/control.py for faults."""
        await self._post(f"{self.controls[flavour]}/faults", fault)

    async def azure_state(self) -> Mapping[str, Any]:
        return await self._get(f"{self.azure_url}/sim/state")

    async def chat_state(self, flavour: str) -> Mapping[str, Any]:
        return await self._get(f"{self.controls[flavour]}/state")

    async def _get(self, url: str) -> Mapping[str, Any]:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            return (await http.get(url)).json()  # type: ignore[no-any-return]

    async def _post(self, url: str, body: Mapping[str, Any]) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            answer = await http.post(url, json=dict(body))
        if answer.status_code >= 300:
            raise SimFailed(f"{url}: {answer.status_code} {answer.text}")
