"""How well turns are taken: callers of the corpus against the real server, scored by what they hear.

    corpus ─→ plans ─→ callers ⇄ carrier's protocol ⇄ server ⇄ Azure and Groq, played with a profile's delays
                          └── logs ─→ score ─→ figures, beside other policies on the same turns

The server is a process that knows nothing of this. All calls run at real pace and at once; figures have intervals.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import psutil
import uvloop
import yaml

from bench.load.figure import percentile
from bench.load.provider_sims import SIMULATED, ProviderSims
from bench.load.rig import Target, going_first, on_core, two_cores, wait_for
from bench.load.server_process import PUBLIC_URL, ServerFailed, ServerProcess
from bench.load.verdict import MAX_GENERATOR_CPU, MAX_GENERATOR_LATE_MS, MAX_SIMULATOR_CPU
from bench.out_file import out_file
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.exchange import Switchboard
from bench.sim.process import ProviderProcesses, SimFailed
from bench.sim.profile import PROFILES, profile
from bench.sim.tasks import Tasks
from bench.sim.twilio import Exchange
from bench.turns import report
from bench.turns.call_log import CallLog
from bench.turns.caller import TurnCaller
from bench.turns.corpus import LANGUAGES, cache_folder, corpus, texts
from bench.turns.hearing import note, said_by_agent
from bench.turns.plan import Plan, plans
from bench.turns.source import SourceMissing
from bench.turns.speaker import Half
from bench.turns.surroundings import Floats

NUMBERS = {"en": "+15550100", "es": "+15550101"}
LOCALES = {"en": "en-US", "es": "es-ES"}
FROM = "+1555300{:04d}"
RAMP_S = 0.4
"""Between two calls: vendors' clients open several connections each."""
FINISH_S = 40.0
READY_S = 30.0
CALLBACKS_S = 5.0
MAX_SERVER_CPU = 0.80
"""On a core of its own: above that a turn waits for the core, which says nothing about turn-taking."""
MAX_OTHER_CPU = 0.30
"""Of what nobody in the run uses: a server that waits for others is late for no reason of its own."""
MAX_CALLS = 40
"""Azure's own client costs nine threads a call."""


@dataclass(slots=True)
class Heard:
    """What a run left behind."""

    logs: list[CallLog]
    problems: list[str] = field(default_factory=list)
    generator_late_ms: float | None = None
    generator_cpu: float = 0.0
    simulator_cpu: float = 0.0
    server_cpu: float = 0.0
    other_cpu: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent of one language, and what is known of its answers."""

    settings: dict[str, Any]
    opener: Floats
    answer_ms: float


def agent(language: str, changes: Mapping[str, Any]) -> Agent:
    """`changes`: settings by dotted name over the product's defaults. Raises KeyError, ValueError: no such voice."""
    told = texts()[language]["agent"]
    lines = [f"{told['opener']} {one}" for one in told["answers"]]
    settings: dict[str, Any] = {
        "numbers": [NUMBERS[language]],
        "name": f"Turns {language}",
        "language": LOCALES[language],
        "prompt": "\n".join(["Say one of these lines for each turn of the caller:", *(f"- {one}" for one in lines)]),
        "stt": {"provider": "azure"},
        "llm": {"provider": "groq"},
        "tts": {"provider": "azure", "voice": told["voice"]},
        "opening": {"mode": "speak", "text": told["opening"]},
        "limits": {"idle_timeout_ms": 60_000, "max_duration_ms": 3_600_000},
    }
    for name, value in changes.items():
        *path, last = name.split(".")
        inner = settings
        for one in path:
            inner = inner.setdefault(one, {})
        inner[last] = value
    lengths = [said_by_agent(one, told["voice"]).size / 8 for one in lines]
    return Agent(settings, said_by_agent(told["opener"], told["voice"]), min(lengths))


def write_agents(folder: Path, agents: Mapping[str, Agent]) -> None:
    """Where the server, which may run as somebody else, can read them."""
    folder.chmod(0o755)
    for language, one in agents.items():
        (folder / f"turns_{language}.yaml").write_text(yaml.safe_dump(one.settings, allow_unicode=True))


@contextlib.asynccontextmanager
async def stand(
    book: Sequence[BookClip], agents: Mapping[str, Agent], profile_name: str, calls: int
) -> AsyncIterator[tuple[Switchboard[Any], Target, ProviderSims]]:
    """Simulators, carrier and server, up. Raises ServerFailed, SimFailed."""
    exchange = Exchange(public_url=PUBLIC_URL, local_url="")
    with tempfile.TemporaryDirectory(prefix="turns-") as name:
        folder = Path(name)
        write_agents(folder, agents)
        path = folder / "book.json"
        Clipbook(book).save(path)
        async with exchange, ProviderProcesses(book=path, profile=profile_name, brain="talk") as processes:
            sims = ProviderSims({**processes.env, **SIMULATED}, processes.pids)
            env = {
                "PUBLIC_URL": PUBLIC_URL, "AGENTS_DIR": str(folder), "MAX_CALLS": str(calls + 10),
                "HANDSHAKES_PER_S": "10000", "CONNECTIONS_PER_IP": "10000", **exchange.server_env, **sims.env,
            }  # fmt: skip
            async with ServerProcess(env) as target:
                exchange.local_url = target.url
                yield exchange, target, sims
                await exchange.wait_delivered(CALLBACKS_S)


async def talk(
    made: Sequence[Plan], book: Sequence[BookClip], tails: dict[str, Floats], asked: argparse.Namespace
) -> Heard:
    """Place the calls, let them go on for so long, and put what was heard into logs."""
    agents = {language: agent(language, asked.set) for language in LANGUAGES}
    callers = [TurnCaller(one, tails, agents[one.where.language].answer_ms) for one in made]
    cores = two_cores()
    async with stand(book, agents, asked.profile, len(made)) as (exchange, target, sims):
        if cores is not None:
            target.pin(cores[0])
        with on_core(cores), going_first(wanted=cores is not None):
            heard = await _watch(callers, exchange, target, sims, asked.seconds)
        if not target.is_running:
            heard.problems.append(f"the server exited with {target.returncode}")
    for caller in callers:
        note(caller.log, caller.heard, caller.first_heard_ms, agents[caller.log.where.language].opener)
    return heard


async def _watch(
    callers: Sequence[TurnCaller], exchange: Switchboard[Any], target: Target, sims: ProviderSims, seconds: float
) -> Heard:
    heard = Heard([one.log for one in callers])

    async def call(no: int, caller: TurnCaller) -> None:
        await asyncio.sleep(no * RAMP_S)
        to = NUMBERS[caller.log.where.language]
        placed = await exchange.call(caller, from_=FROM.format(no), to=to)
        if placed.ended_by != "caller":
            heard.problems.append(f"call {placed.from_} ended by {placed.ended_by} ({placed.status})")

    async with Tasks() as tasks:
        for no, caller in enumerate(callers):
            tasks.create_task(call(no, caller))
        if not await wait_for(lambda: all(one.is_ready for one in callers), len(callers) * RAMP_S + READY_S):
            heard.problems.append(f"{sum(not one.is_ready for one in callers)} callers were never greeted")
        began, used = time.monotonic(), _used(target, sims)
        first_tick = len(exchange.ticker.late_ms)
        await asyncio.sleep(seconds)
        heard.seconds = time.monotonic() - began
        shares = [(after - before) / heard.seconds for after, before in zip(_used(target, sims), used, strict=True)]
        heard.generator_cpu, heard.simulator_cpu, heard.server_cpu, everybody = shares
        heard.other_cpu = max(0.0, everybody - sum(shares[:3]))
        heard.generator_late_ms = percentile(exchange.ticker.late_ms[first_tick:], 0.99)
        for caller in callers:
            caller.stopping = True
        if not await wait_for(lambda: all(one.is_over for one in exchange.calls.values()), FINISH_S):
            for one in exchange.calls.values():
                if not one.is_over:
                    exchange.end_call(one.sid)
    listed = Counter(f"{one.code} {one.text[:80]}" for one in exchange.debugger)
    heard.problems += [f"debugger {text}: {count} times" for text, count in listed.most_common(5)]
    return heard


def _used(target: Target, sims: ProviderSims) -> tuple[float, float, float, float]:
    """CPU seconds of generator, simulators and server with its databases, and of everything on the machine."""
    own, usage, all_of_it = psutil.Process().cpu_times(), target.usage(), psutil.cpu_times()
    busy = all_of_it.user + all_of_it.nice + all_of_it.system
    return own.user + own.system, sims.cpu_s(), usage.cpu_s + usage.embedded_cpu_s, busy


def why_invalid(heard: Heard, turns: int, calls: int) -> list[str]:
    """What makes the figures say nothing about the server: the generator, the machine, or too few turns."""
    reasons = list(heard.problems)
    late = heard.generator_late_ms
    if late is None or late > MAX_GENERATOR_LATE_MS:
        reasons.append(f"the generator was late: p99 {late} ms, at most {MAX_GENERATOR_LATE_MS:g}")
    if heard.generator_cpu > MAX_GENERATOR_CPU:
        reasons.append(f"the generator used {heard.generator_cpu:.2f} of a core, at most {MAX_GENERATOR_CPU}")
    if heard.simulator_cpu > MAX_SIMULATOR_CPU:
        reasons.append(f"the simulators used {heard.simulator_cpu:.2f} of a core, at most {MAX_SIMULATOR_CPU}")
    if heard.server_cpu > MAX_SERVER_CPU:
        reasons.append(f"the server used {heard.server_cpu:.2f} of its core, at most {MAX_SERVER_CPU}: fewer calls")
    if heard.other_cpu > MAX_OTHER_CPU:
        reasons.append(f"others used {heard.other_cpu:.2f} cores of the machine, at most {MAX_OTHER_CPU}")
    if turns < calls:
        reasons.append(f"{turns} turns of {calls} callers are too few")
    return reasons


def setting(text: str) -> tuple[str, Any]:
    """For argparse: NAME=VALUE, the value as YAML. Raises ArgumentTypeError."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE, like turn.min_delay_ms=400")
    return name, yaml.safe_load(value)


def options(argv: Sequence[str]) -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m bench turns", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--half", choices=get_args(Half),
                      default="tuning", help="whose voices call (default: %(default)s)")  # fmt: skip
    made.add_argument("--calls", type=int, default=24, help="calls at the same time (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=240, help="once all have been greeted (default: %(default)s)")
    made.add_argument("--profile", default="azure-groq", choices=sorted(PROFILES), help="the providers' delays")
    made.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="a setting of the agents, like turn.min_delay_ms=400; may be repeated",
    )  # fmt: skip
    made.add_argument("--cache", type=Path, default=cache_folder(), help="where the corpus lies (default: %(default)s)")
    made.add_argument("--json", type=out_file, metavar="FILE", help="write the result here")
    made.add_argument("--logs", type=out_file, metavar="FILE", help="write what was said and heard, call by call")
    made.add_argument("--again", type=Path, metavar="FILE", help="score the --logs of an earlier run, call nobody")
    asked = made.parse_args(argv)
    if not 1 <= asked.calls <= MAX_CALLS or not 10 <= asked.seconds <= 3000:
        made.error(f"--calls: 1 to {MAX_CALLS}; --seconds: 10 to 3000")
    asked.set = dict(asked.set)
    return asked


def main(argv: list[str]) -> int:
    """Returns 0 for a valid run, 1 for an invalid one, 2 when nothing could be measured."""
    asked = options(argv)
    try:
        run, logs = _earlier(asked.again) if asked.again else _now(asked)
        result = {**run, **report.result(logs, profile(run["profile"]))}
    except (SourceMissing, ServerFailed, SimFailed, OSError, ValueError, KeyError, TypeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report.table_of(result))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    if asked.logs:
        asked.logs.write_text(json.dumps({"run": run, "calls": [report.log_as_dict(one) for one in logs]}) + "\n")
    return int(not result["valid"])


def _now(asked: argparse.Namespace) -> tuple[dict[str, Any], list[CallLog]]:
    """What a run was, and what was heard in it."""
    made = corpus(asked.cache)
    callers, book = plans(made, asked.half, asked.calls)
    heard = uvloop.run(talk(callers, book, dict(made.tails), asked))
    turns = sum(len(one.turns) for one in heard.logs)
    reasons = why_invalid(heard, turns, asked.calls)
    run = {
        "half": asked.half, "corpus": made.digest, "profile": asked.profile, "settings": asked.set,
        "calls": asked.calls, "seconds": round(heard.seconds, 1), "turns": turns,
        "generator_late_ms": {"p99": heard.generator_late_ms}, "generator_cpu": round(heard.generator_cpu, 3),
        "simulator_cpu": round(heard.simulator_cpu, 3), "server_cpu": round(heard.server_cpu, 3),
        "other_cpu": round(heard.other_cpu, 3),
        "why_invalid": reasons, "valid": not reasons,
    }  # fmt: skip
    return run, heard.logs


def _earlier(path: Path) -> tuple[dict[str, Any], list[CallLog]]:
    """Raises OSError, ValueError, KeyError, TypeError: no such file, or not of --logs."""
    told = json.loads(path.read_text())
    return told["run"], [report.log_from_dict(one) for one in told["calls"]]
