"""What capturing a call costs of the call's CPU: without captures, with them, and with the caller's audio in them.

Three servers run at the same time on one core, each with as many calls; in three windows each of them has each variant
once (a Latin square), so that neither the machine's noise, nor a window, nor a process can favour one:

    window 1: off  on  audio        the cost is on / off − 1, by the geometric means of a round's cells;
    window 2: on  audio  off        its spread is that between rounds
    window 3: audio  off  on

CPU is all of the process, user and system, the thread that compresses and writes included; embedded databases are not.
Scripted providers cost next to nothing, so the share of a call with real ones is smaller. `--instructions` counts
instead (capture_instructions.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import uvloop
import yaml

from bench.load.clips import spoken
from bench.load.figure import percentile, table
from bench.load.load_caller import LoadCaller
from bench.load.provider_sims import SCRIPTED
from bench.load.rig import FROM_PREFIX, GREETING, going_first, on_core, two_cores, wait_for
from bench.load.server_process import PUBLIC_URL, ServerFailed, ServerProcess, one_line
from bench.out_file import out_file
from bench.sim.sound import FRAME_MS, Clip
from bench.sim.tasks import Tasks
from bench.sim.twilio import Account, Exchange

VARIANTS: dict[str, dict[str, bool]] = {
    "off": {"enabled": False},
    "on": {"enabled": True, "audio": False},
    "audio": {"enabled": True, "audio": True},
}
NUMBERS = {name: f"+155502{at:02d}" for at, name in enumerate(VARIANTS)}
MAX_SHARE = 0.05
"""Of the call's CPU: what capturing may cost."""
MAX_LATE_MS = 10.0
"""The generator's tick at p99: later, and the servers did not get the load that they should."""
READY_S = 20.0
RAMP_S = 0.05
SETTLE_S = 2.0
FINISH_S = 25.0


Count = Callable[[Sequence[LoadCaller]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One server in one window. `cost`: CPU ms per call-second, or thousands of instructions."""

    server: int
    round_no: int
    variant: str
    cost: float


@dataclass(slots=True)
class Stand:
    exchange: Exchange
    server: ServerProcess


@dataclass(slots=True)
class Run:
    """`problems`: why it says nothing."""

    cells: list[Cell]
    problems: list[str]
    turns: int = 0
    unit: str = "CPU ms"

    def cost(self, variant: str, round_no: int | None = None) -> float:
        """Geometric mean of the cells of a variant, in one round or in all."""
        return geometric_mean(
            one.cost for one in self.cells if one.variant == variant and round_no in (None, one.round_no)
        )

    def share(self, variant: str, round_no: int | None = None) -> float:
        """What `variant` costs as a share of a call without captures."""
        return self.cost(variant, round_no) / self.cost("off", round_no) - 1

    def shares(self, variant: str) -> list[float]:
        """The same for each round by itself."""
        return [self.share(variant, round_no) for round_no in sorted({one.round_no for one in self.cells})]

    def as_dict(self) -> dict[str, Any]:
        costs = {name: {"share": round(self.share(name), 4), "shares": self.shares(name)} for name in ("on", "audio")}
        each = {name: round(self.cost(name), 3) for name in VARIANTS}
        return {"unit": self.unit, "per_call_s": each, "cost": costs, "turns": self.turns, "why_invalid": self.problems}


async def measure(calls: int, seconds: float, rounds: int, vad: str) -> Run:
    """`calls` at each of three servers, `rounds` times three windows of `seconds`. Raises ServerFailed."""
    run = Run([], [])
    cores, clips = two_cores(), spoken()
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        write_agents(Path(folder), vad)
        async with AsyncExitStack() as stack:
            stands = [await bring_up(stack, folder, calls) for _ in VARIANTS]
            if cores is not None:
                for one in stands:
                    one.server.pin(cores[0])
            with on_core(cores), going_first(wanted=True):
                for window in range(3 * rounds):
                    await _window(run, stands, window, calls, seconds, clips)
            late = percentile([ms for one in stands for ms in one.exchange.ticker.late_ms], 0.99)
            if late is None or late > MAX_LATE_MS:
                run.problems.append(f"the generator's tick was late by {late} ms at p99")
            listed = [str(warning) for one in stands for warning in one.exchange.debugger]
            run.problems += listed[:5]
    return run


def write_agents(folder: Path, vad: str) -> None:
    """One agent for each variant, equal but for its captures."""
    folder.chmod(0o755)
    for name, capture in VARIANTS.items():
        agent = {
            "numbers": [NUMBERS[name]],
            "name": name,
            "opening": {"mode": "speak", "text": GREETING},
            "limits": {"idle_timeout_ms": 60_000},
            "turn": {"vad": vad},
            "capture": capture,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(agent))


async def bring_up(
    stack: AsyncExitStack, agents: str, calls: int, kind: Callable[[dict[str, str]], ServerProcess] = ServerProcess
) -> Stand:
    """A server with a carrier of its own, both until `stack` ends. Raises ServerFailed."""
    account = Account()
    exchange = await stack.enter_async_context(Exchange(public_url=PUBLIC_URL, local_url="", account=account))
    env = {
        "PUBLIC_URL": PUBLIC_URL,
        "TWILIO_ACCOUNT_SID": account.account_sid,
        "TWILIO_AUTH_TOKEN": account.auth_token,
        "TWILIO_API_URL": exchange.rest_url,
        "AGENTS_DIR": agents,
        "MAX_CALLS": str(calls + 10),
        "HANDSHAKES_PER_S": "10000",
        "CONNECTIONS_PER_IP": "10000",
        **SCRIPTED,
    }
    server = await stack.enter_async_context(kind(env))
    exchange.local_url = server.url
    return Stand(exchange, server)


async def _window(
    run: Run, stands: Sequence[Stand], window: int, calls: int, seconds: float, clips: list[Clip]
) -> None:
    names = list(VARIANTS)
    variants = [names[(at + window) % len(names)] for at in range(len(stands))]

    async def count(callers: Sequence[LoadCaller]) -> None:
        loop = asyncio.get_running_loop()
        began_s, before = loop.time(), [one.server.usage().cpu_s for one in stands]
        await asyncio.sleep(seconds)
        lasted_s, after = loop.time() - began_s, [one.server.usage().cpu_s for one in stands]
        for at, variant in enumerate(variants):
            cpu_ms = (after[at] - before[at]) / lasted_s / calls * 1e3
            run.cells.append(Cell(at, window // len(names), variant, cpu_ms))

    to = [(stand, NUMBERS[variant]) for stand, variant in zip(stands, variants, strict=True)]
    await call_all(run, to, calls, clips, count)


async def call_all(run: Run, to: Sequence[tuple[Stand, str]], calls: int, clips: list[Clip], count: Count) -> float:
    """`calls` to each number; `count` once all have begun to talk; then everybody finishes and hangs up.

    Returns the length of all calls, s.
    """
    callers: list[LoadCaller] = []
    async with Tasks() as tasks:
        placed = []
        for number in range(calls):
            for stand, to_number in to:
                from_number = f"{FROM_PREFIX}{number:04d}"
                callers.append(LoadCaller(from_number, clips, (number * 7) % 25))
                call = stand.exchange.call(callers[-1], from_=from_number, to=to_number)
                placed.append(tasks.create_task(call))
            await asyncio.sleep(RAMP_S)
        if not await wait_for(lambda: all(one.is_ready for one in callers), READY_S):
            run.problems.append("not all callers were greeted")
        await asyncio.sleep(SETTLE_S)
        await count(callers)
        for caller in callers:
            caller.stopping = True
        if not await wait_for(lambda: all(one.done() for one in placed), FINISH_S):
            run.problems.append("not all calls ended")
            for task in placed:
                task.cancel()
    missing = sum(one.record.turns_expected - one.record.turns_completed for one in callers)
    if missing:
        run.problems.append(f"{missing} turns were not answered right")
    run.turns += sum(one.record.turns_completed for one in callers)
    return sum(one.record.frames for one in callers) * FRAME_MS / 1e3


def told(run: Run) -> str:
    """For people."""
    rows = [("captures", f"{run.unit} per call-second", "cost", "of each round")]
    for name in VARIANTS:
        cost, each = "", ""
        if name != "off":
            values = run.shares(name)
            cost = f"{run.share(name):+.1%}"
            each = "  ".join(f"{one:+.1%}" for one in values)
        rows.append((name, f"{run.cost(name):.3f}", cost, each))
    return table(rows)


def main(argv: list[str]) -> int:
    """Returns 0 for a valid run within MAX_SHARE, 1 for another, 2 when nothing could be measured."""
    made = argparse.ArgumentParser(prog="python -m bench capturecost", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--calls", type=int, default=20, help="calls at each of three servers (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=20, help="length of a window (default: %(default)s)")
    made.add_argument("--rounds", type=int, default=2, help="of three windows (default: %(default)s)")
    made.add_argument("--vad", default="silero", choices=["webrtc", "silero"], help="the servers' turn.vad")
    made.add_argument("--instructions", action="store_true", help="count them under valgrind: 4 calls, 5 minutes")
    made.add_argument("--json", type=out_file, metavar="FILE", help="write the result here")
    asked = made.parse_args(argv)
    if not (1 <= asked.calls <= 200 and 1 <= asked.seconds <= 600 and 1 <= asked.rounds <= 20):
        made.error("expected 1 to 200 calls, 1 to 600 seconds, 1 to 20 rounds")
    try:
        if asked.instructions:
            # It builds on this module.
            from bench.load import capture_instructions

            run = uvloop.run(capture_instructions.measure(calls=4, turns=4, rounds=asked.rounds))
        else:
            run = uvloop.run(measure(asked.calls, asked.seconds, asked.rounds, asked.vad))
    except ServerFailed as error:
        print(one_line(error), file=sys.stderr)
        return 2
    print(told(run))
    for problem in run.problems:
        print(f"NOT VALID: {problem}")
    if asked.json:
        asked.json.write_text(json.dumps(run.as_dict(), indent=1))
    if asked.instructions:
        return int(bool(run.problems))  # of another call's, cheaper than any: no bound is known for them
    is_cheap = all(run.share(name) < MAX_SHARE for name in ("on", "audio"))
    print(f"captures cost {'less than' if is_cheap else 'NOT less than'} {MAX_SHARE:.0%} of a call's CPU")
    return int(bool(run.problems) or not is_cheap)
