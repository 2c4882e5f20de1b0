"""The stand on which a load runs: floor, carrier, server, cores; and what was used of the machine meanwhile.

    floor ─→ simulators and server up ─→ the bench's own calls ─→ server down ─→ floor again

Everything is measured outside the server. A `Target` is whatever answers the carrier's webhooks: our server in its own
process, a peer that is compared with it, or a stand-in in the bench's own tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import yaml

from bench.load.floor import Calibration, EchoFloor, Floor
from bench.load.options import Options
from bench.load.provider_sims import ProviderSims, start_providers
from bench.load.server_process import PUBLIC_URL, ROOT, Holdings, ServerProcess, Usage
from bench.sim import telnyx, twilio
from bench.sim.arrival import Weather
from bench.sim.exchange import Switchboard
from bench.sim.sound import Clip

TO_NUMBER = "+15550100"
FROM_PREFIX = "+1555200"
GENERATOR_NICE = -10
CALLBACKS_S = 5.0
FAULTS = ("error", "critical")
"""Levels of a log line that no good server writes."""
GREETING = "Good day, this line is under load."


class Target(Protocol):
    """A running server, as far as the bench looks at it."""

    url: str

    @property
    def is_running(self) -> bool: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def data_dir(self) -> Path: ...

    def usage(self) -> Usage: ...

    def holdings(self) -> Holdings: ...

    def pin(self, core: int) -> None: ...

    async def metrics(self) -> str: ...

    def log_lines(self, skip_bytes: int = 0) -> tuple[list[dict[str, Any]], int]: ...


Serve = Callable[[Mapping[str, str]], AbstractAsyncContextManager[Target]]
Calibrate = Callable[[tuple[int, int] | None], Calibration]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a bench is run with; its own tests put a stand-in here, and hurry.

    ramp_per_s: calls are brought up at this pace. settle_s: they run so long before anything is counted. quiet_s: the
    server gets so long to put calls away.
    """

    serve: Serve = ServerProcess
    calibrate: Calibrate = EchoFloor
    isa: str = ""
    ramp_per_s: float = 20.0
    settle_s: float = 2.0
    quiet_s: float = 5.0


@dataclass(slots=True)
class Rig:
    """What a bench works with while the server is up."""

    options: Options
    bench: Bench
    exchange: Switchboard[Any]
    target: Target
    simulators: ProviderSims
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What the server did that it must not, beside what is counted; complete when everything is down."""

    def meter(self) -> Meter:
        process = psutil.Process().cpu_times()
        return Meter(
            at=time.monotonic(),
            usage=self.target.usage(),
            generator_cpu_s=process.user + process.system,
            simulator_cpu_s=self.simulators.cpu_s(),
            ticks=len(self.exchange.ticker.late_ms),
        )

    def complaints(self, log: Sequence[Mapping[str, Any]]) -> int:
        """What the carrier's debugger lists, callbacks that were refused, and faults in the server's own log."""
        listed = Counter(f"debugger {one.code} {one.text[:80]}" for one in self.exchange.debugger)
        listed.update(f"the server logged: {str(one.get('message'))[:80]}" for one in log if one.get("level") in FAULTS)
        listed["refused status callbacks"] = self.exchange.callbacks_failed
        self.problems += [f"{text}: {count} times" for text, count in listed.most_common(8) if count]
        return sum(listed.values())


@dataclass(frozen=True, slots=True)
class Meter:
    """What had been used at one instant."""

    at: float
    usage: Usage
    generator_cpu_s: float
    simulator_cpu_s: float
    ticks: int


@dataclass(slots=True)
class Floors:
    """The floor before and after; filled as the rig opens and closes."""

    before: Floor | None = None
    after: Floor | None = None


@contextlib.asynccontextmanager
async def raised(
    options: Options,
    bench: Bench,
    floors: Floors,
    clips: Sequence[Clip],
    extra_env: Mapping[str, str] | None = None,
) -> AsyncIterator[Rig]:
    """Bring everything up, hand it over, take it down, measure the floor before and after.

    `clips` is all that callers will say, for simulated recognisers.

    Raises:
        ServerFailed, FloorFailed, UsageError: there is nothing to measure.
    """
    cores = two_cores() if options.pin else None
    async with AsyncExitStack() as stack:
        calibration = await stack.enter_async_context(bench.calibrate(cores))
        floors.before = await calibration.measure()
        async with _server(options, bench, clips, extra_env or {}) as rig:
            if cores is not None:
                rig.target.pin(cores[0])
            with on_core(cores), going_first(wanted=options.pin):
                yield rig
            if not rig.target.is_running:
                rig.failures.append(f"the server exited with {rig.target.returncode} before it was told to")
        if not rig.failures and rig.target.returncode:
            rig.failures.append(f"the server exited with {rig.target.returncode} when it was told to end")
        floors.after = await calibration.measure()


@contextlib.asynccontextmanager
async def _server(
    options: Options, bench: Bench, clips: Sequence[Clip], extra_env: Mapping[str, str]
) -> AsyncIterator[Rig]:
    carrier: Callable[..., Switchboard[Any]] = telnyx.Exchange if options.carrier == "telnyx" else twilio.Exchange
    exchange = carrier(
        public_url=PUBLIC_URL,
        local_url="",
        lead_ms=options.lead_ms,
        chunk_ms=options.chunk_ms,
        weather=Weather() if options.jitter else None,
    )
    with tempfile.TemporaryDirectory(prefix="agents-") as agents:
        write_agent(Path(agents), options)
        async with exchange, start_providers(options, clips) as simulators:
            env = {
                "PUBLIC_URL": PUBLIC_URL,
                "MAX_CALLS": str(options.calls + 10),
                "HANDSHAKES_PER_S": "10000",
                "CONNECTIONS_PER_IP": "10000",
                "PACER_LEAD_MS": str(options.lead_ms),
                "PACER_CHUNK_MS": str(options.chunk_ms),
                "AGENTS_DIR": agents,
                "TALKSPURT_TEST_BREAK": options.breakage,
                **exchange.server_env,
                **simulators.env,
                **extra_env,
            }
            async with bench.serve(env) as target:
                exchange.local_url = target.url
                rig = Rig(options, bench, exchange, target, simulators)
                yield rig
                if not await exchange.wait_delivered(CALLBACKS_S):
                    rig.failures.append(f"status callbacks were not answered within {CALLBACKS_S:g} s")


def write_agent(folder: Path, options: Options) -> None:
    """The agent that answers: a short greeting, no idle prompts, all else the product's own defaults."""
    agent = {
        "numbers": [TO_NUMBER],
        "name": "Load",
        "language": "en-US",
        "opening": {"mode": "speak", "text": GREETING},
        "limits": {"idle_timeout_ms": 60_000, "max_duration_ms": 14_400_000},
        "turn": {"vad": options.vad},
    }
    folder.chmod(0o755)
    (folder / "load.yaml").write_text(yaml.safe_dump(agent))


def two_cores() -> tuple[int, int] | None:
    """(server's, generator's); None where there is one core only."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


@contextlib.contextmanager
def on_core(cores: tuple[int, int] | None) -> Iterator[None]:
    """Keep this process on the generator's core."""
    usual = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, {cores[1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


@contextlib.contextmanager
def going_first(*, wanted: bool) -> Iterator[None]:
    """The generator runs before other processes where it may: it needs little, and late it could only be refused.

    Enter after the server was started, which would inherit it.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, GENERATOR_NICE if wanted else usual)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def native_isa() -> str:
    """The instruction set that the product's kernels chose, asked in a process of its own."""
    code = "import audio_native.dispatch as d; print(d.ISA)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    return run.stdout.strip() or "unknown"


async def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Look every 50 ms until `condition`; False when the time is over before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(0.05)
    return True
