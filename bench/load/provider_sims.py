"""Who hears, thinks and speaks for the server under load: the scripted providers inside it, or simulators outside.

Scripted providers cost next to nothing and prove themselves by tone codes; they are for CPU, lateness and own latency.
Simulated ones (`--providers sim`) speak the vendors' protocols over sockets, with the delays of a profile, in processes
of their own whose CPU is counted apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import psutil

from bench.load.options import Options, UsageError

SERVICES = ("STT_PROVIDER", "LLM_PROVIDER", "TTS_PROVIDER")


@dataclass(slots=True)
class ProviderSims:
    """`env` is for the server; `pids` are the simulators' processes."""

    env: Mapping[str, str]
    pids: list[int] = field(default_factory=list)

    def cpu_s(self) -> float:
        """User + system of all simulators until now."""
        used = 0.0
        for pid in self.pids:
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            used += times.user + times.system
        return used


@contextlib.asynccontextmanager
async def start_providers(options: Options) -> AsyncIterator[ProviderSims]:
    """Raises UsageError: these simulators cannot be started here."""
    if options.providers == "scripted":
        yield ProviderSims(dict.fromkeys(SERVICES, "scripted"))
        return
    raise UsageError(
        "--providers sim: the load cannot start the providers' simulators yet; --providers scripted measures the server"
    )
