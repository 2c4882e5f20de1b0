"""Who hears, thinks and speaks for the server under load: the scripted providers inside it, or simulators outside.

Scripted providers cost next to nothing and prove themselves by tone codes; they are for CPU, lateness and own latency.
Simulated ones (`--providers sim`) speak the vendors' protocols over sockets, with the delays of a profile, in processes
of their own whose CPU is counted apart: Azure hears and speaks, Groq thinks. They recognise what they receive, so the
callers' clips are given to them as a book; answers have no tone code, and a turn counts when one was heard.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.load.options import Options, UsageError
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.process import ProviderProcesses, SimFailed
from bench.sim.sound import Clip

SCRIPTED = dict.fromkeys(("STT_PROVIDER", "LLM_PROVIDER", "TTS_PROVIDER"), "scripted")
SIMULATED = {"STT_PROVIDER": "azure", "LLM_PROVIDER": "groq", "TTS_PROVIDER": "azure"}


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
async def start_providers(options: Options, clips: Sequence[Clip]) -> AsyncIterator[ProviderSims]:
    """Raises UsageError: the simulators did not come up, or a clip has no words to be recognised by."""
    if options.providers == "scripted":
        yield ProviderSims(SCRIPTED)
        return
    with tempfile.TemporaryDirectory(prefix="book-") as folder:
        path = Path(folder) / "book.json"
        write_book(clips, path)
        sims = ProviderProcesses(book=path, profile=options.profile)
        try:
            await sims.__aenter__()
        except SimFailed as error:
            raise UsageError(f"--providers sim: {error}") from None
        try:
            yield ProviderSims({**sims.env, **SIMULATED}, sims.pids)
        finally:
            await sims.__aexit__(None, None, None)


def write_book(clips: Sequence[Clip], path: Path) -> None:
    """Raises UsageError."""
    try:
        Clipbook(BookClip.of_clip(f"clip {no}", clip) for no, clip in enumerate(clips)).save(path)
    except ValueError as error:
        raise UsageError(f"--providers sim: {error}") from None
