"""What is left when many short calls are over: memory, threads, file descriptors, tasks, keys in Redis.

    first thousand ─→ quiet, look ─→ all the others, memory after each hundredth ─→ quiet, look again

The first thousand (of a shorter run a tenth, see `warming`) warm caches and allocators and are what the end is compared
with. Quiet: no key is left in Redis, or QUIET_S are over; a run in a hurry waits less, and leaves out the keys that
will have expired by then. Most calls have one turn and hear its answer; one in ten leaves in mid-sentence, one while
the agent speaks.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import redis

from bench.load import verdict
from bench.load.figure import percentile, percentiles
from bench.load.options import MAX_CALLS, Options, UsageError, common_parser, options
from bench.load.report import Rows, Sound, conclude, told
from bench.load.rig import FROM_PREFIX, TO_NUMBER, Bench, Floors, Rig, raised, wait_for
from bench.load.short_caller import KINDS, ShortCaller
from bench.load.verdict import Result
from bench.sim.exchange import PhoneCall
from bench.sim.sound import FRAME_SAMPLES, Clip
from bench.sim.tasks import Tasks

MOST_CALLS = 1_000_000
NUMBERS = 10_000
"""Telephone numbers of callers; later calls use them again."""
START_PER_S = 40.0
TOKEN_TTL_S = 5
QUIET_S = 75.0
"""Until nothing of the calls is left: answers to webhooks live for 60 s, tokens for TOKEN_TTL_S, last words 3 s."""
TELNYX_KEYS_S = 375.0
"""The same for Telnyx, whose answers live for 360 s; so long nobody waits: what will be gone by then is left out."""
LEAST_QUIET_S = 5.0
WARMING_CALLS = 1000
SAMPLES = 100
OF_A_CALLER = ("turns_expected", "turns_completed", "broken_off", "overlong", "talked_over", "unasked_clears")
"""What is summed of each caller's record."""
OF_A_CALL = ("ungreeted", "foreign_codes", "underruns", "overfills", "dropped")
CLIP_FRAMES = 60
_TASKS = re.compile(r"^asyncio_tasks (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Left:
    """What the server holds while nobody calls; None is "not known"."""

    rss_kib: int
    threads: int
    fds: int
    connections: int
    tasks: int | None
    redis_keys: int | None


class Soak:
    """Keeps `options.calls` calls up at a time until `total` have been made."""

    def __init__(self, rig: Rig, clips: list[Clip], total: int, quiet_s: float = QUIET_S) -> None:
        self._rig = rig
        self._quiet_s = quiet_s
        self._clips = clips
        self._total = total
        self._warming = warming(total, rig.options.calls)
        self._numbers: Iterator[int] = iter(range(total))
        self._slots = asyncio.Semaphore(rig.options.calls)
        self._done = 0
        self._running = 0
        self._bad: list[str] = []
        self._errors = 0
        self._seen = Counter(dict.fromkeys((*OF_A_CALLER, *OF_A_CALL), 0))
        self._lateness_ms: list[float] = []
        self._calling_s = 0.0
        self._samples: list[tuple[int, int]] = []

    async def run(self) -> dict[str, Any]:
        begin = self._rig.meter()
        _, log_bytes = self._rig.target.log_lines()
        await self._calls(self._warming)
        first = await self._quiet()
        await self._calls(self._total - self._done)
        last = await self._quiet()
        end = self._rig.meter()
        late = percentile(self._rig.exchange.ticker.late_ms[begin.ticks : end.ticks], 0.99)
        self._rig.problems += self._bad[:5]
        log, _ = self._rig.target.log_lines(log_bytes)
        wall = end.at - begin.at
        return {
            "calls": self._total,
            "at_once": self._rig.options.calls,
            "warming_calls": self._warming,
            "seconds": round(wall, 1),
            "calls_per_minute": round(self._total / self._calling_s * 60, 1),
            "vad": self._rig.options.vad,
            "rss_kib": {"first": first.rss_kib, "last": last.rss_kib},
            "rss_growth_percent": round((last.rss_kib / first.rss_kib - 1) * 100, 2),
            "rss_slope_kib_per_1000_calls": theil_sen(self._samples),
            "rss_samples_kib": self._samples,
            "threads": {"first": first.threads, "last": last.threads},
            "fds": {"first": first.fds, "last": last.fds},
            "database_connections": {"first": first.connections, "last": last.connections},
            "tasks": {"first": first.tasks, "last": last.tasks},
            "redis_keys": {"first": first.redis_keys, "last": last.redis_keys},
            **self._seen,
            "frame_lateness_ms": percentiles(self._lateness_ms, with_max=True),
            "errors": self._errors + self._rig.complaints(log),
            "server_cpu_ms_per_call": round((end.usage.cpu_s - begin.usage.cpu_s) / self._total * 1e3, 2),
            "generator_cpu": round((end.generator_cpu_s - begin.generator_cpu_s) / wall, 3),
            "simulator_cpu": round((end.simulator_cpu_s - begin.simulator_cpu_s) / wall, 3),
            "generator_late_ms": {"p99": None if late is None else round(late, 2)},
        }

    async def _calls(self, count: int) -> None:
        began = time.monotonic()
        async with Tasks() as tasks:
            for started in range(count):
                await self._slots.acquire()
                await asyncio.sleep(max(0.0, began + started / START_PER_S - time.monotonic()))
                tasks.create_task(self._call(next(self._numbers)))
        self._calling_s += time.monotonic() - began

    async def _call(self, number: int) -> None:
        from_number = f"{FROM_PREFIX}{number % NUMBERS:04d}"
        caller = ShortCaller(from_number, self._clips, KINDS[number % len(KINDS)])
        try:
            call = await self._rig.exchange.call(caller, from_=from_number, to=TO_NUMBER)
        finally:
            self._slots.release()
        self._count(call, caller)

    def _count(self, call: PhoneCall, caller: ShortCaller) -> None:
        self._rig.exchange.calls.pop(call.sid, None)  # ten thousand are not kept
        self._done += 1
        record = caller.record
        self._seen.update({name: int(getattr(record, name)) for name in OF_A_CALLER})
        self._seen["ungreeted"] += not record.is_greeted
        self._seen["foreign_codes"] += record.foreign
        for stream in call.streams:
            counters = stream.playout.counters
            self._seen["underruns"] += counters.underruns
            self._seen["overfills"] += counters.overfills
            self._seen["dropped"] += stream.facts.bad_messages + counters.overflows
            self._lateness_ms += counters.lateness_ms
        if record.turns_completed < record.turns_expected:
            heard = f"{record.damaged} damaged and {record.wrong} wrong codes, {record.broken_off} answers broke off"
            self._bad.append(f"call {call.from_} ({call.sid}) was not answered: {heard}")
        if call.ended_by != "caller":
            self._errors += 1
            self._bad.append(f"call {call.from_} ended by {call.ended_by} ({call.status})")
        if self._done % max(1, self._total // SAMPLES) == 0 and self._done > self._warming:
            self._samples.append((self._done, self._rig.target.holdings().rss_kib))

    async def _quiet(self) -> Left:
        """Wait until what belongs to calls is gone, or is seen to stay; then look."""
        sockets = sorted(self._rig.target.data_dir.glob("embedded/**/valkey.sock"))
        await wait_for(lambda: not sockets or count_keys(sockets[0]) == 0, self._quiet_s)
        await asyncio.sleep(self._rig.bench.quiet_s)
        held = self._rig.target.holdings()
        tasks = _TASKS.search(await self._rig.target.metrics())
        keys_s = TELNYX_KEYS_S if self._rig.options.carrier == "telnyx" else QUIET_S
        return Left(
            rss_kib=held.rss_kib,
            threads=held.threads,
            fds=held.fds,
            connections=held.connections,
            tasks=int(float(tasks[1])) if tasks else None,
            redis_keys=count_keys(sockets[0], keys_s - self._quiet_s) if sockets else None,
        )


def warming(total: int, at_once: int) -> int:
    """Calls before the first look: 1,000; of fewer than 10,000 a tenth, but enough that every place was taken twice."""
    return min(WARMING_CALLS, max(total // 10, min(2 * at_once, total // 2)))


def count_keys(socket: Path, live_s: float = 0.0) -> int:
    """Keys in the embedded Redis, by SCAN; only those that will be there in `live_s` still, where that is not zero."""
    with redis.Redis(unix_socket_path=str(socket), socket_timeout=5) as client:
        keys = list(client.scan_iter(count=1000))
        if not live_s or not keys:
            return len(keys)
        with client.pipeline(transaction=False) as asked:
            for key in keys:
                asked.pttl(key)
            # -1: never expires, -2: has just expired.
            return sum(left_ms == -1 or left_ms > live_s * 1e3 for left_ms in asked.execute())


def theil_sen(samples: Sequence[tuple[int, int]]) -> float | None:
    """Median slope of all pairs, KiB per 1,000 calls: a few odd samples do not move it. None below two samples."""
    slopes = [(y2 - y1) / (x2 - x1) * 1000 for (x1, y1), (x2, y2) in combinations(samples, 2) if x2 != x1]
    return round(statistics.median(slopes), 1) if slopes else None


def shortened(clips: Sequence[Clip]) -> list[Clip]:
    """The beginnings of clips: a call is to be short."""
    return [
        Clip.from_pcmu(clip.pcmu[: CLIP_FRAMES * FRAME_SAMPLES], text=clip.text, source=clip.source) for clip in clips
    ]


def pair(value: dict[str, Any]) -> str:
    return " / ".join("-" if one is None else str(one) for one in value.values())


ROWS: Rows = {
    "calls at once": lambda one: str(one["at_once"]),
    "calls before the first look": lambda one: str(one["warming_calls"]),
    "seconds, calls per minute": lambda one: f"{one['seconds']:g}, {one['calls_per_minute']:g}",
    "RSS first / last look, KiB": lambda one: pair(one["rss_kib"]),
    "  growth, %": lambda one: str(one["rss_growth_percent"]),
    "  slope, KiB per 1,000 calls": lambda one: str(one["rss_slope_kib_per_1000_calls"]),
    "threads": lambda one: pair(one["threads"]),
    "file descriptors": lambda one: pair(one["fds"]),
    "  besides: to databases, from pools": lambda one: pair(one["database_connections"]),
    "tasks (server says)": lambda one: pair(one["tasks"]),
    "keys in Redis": lambda one: pair(one["redis_keys"]),
    "CPU per call, ms": lambda one: str(one["server_cpu_ms_per_call"]),
    "turns completed of expected": lambda one: f"{one['turns_completed']} of {one['turns_expected']}",
    "underruns, overfills": lambda one: f"{one['underruns']}, {one['overfills']}",
    "errors": lambda one: str(one["errors"]),
    "generator: core, late p99 ms": lambda one: f"{one['generator_cpu']:.2f}, {one['generator_late_ms']['p99']}",
}


async def run_once(
    made: Options,
    sound: Sound,
    bench: Bench,
    total: int,
    max_growth_percent: float = verdict.MAX_RSS_GROWTH_PERCENT,
    quiet_s: float = QUIET_S,
) -> Result:
    """One whole run. Raises ServerFailed, FloorFailed, UsageError when there is nothing to measure."""
    floors = Floors()
    if made.proof != "tone codes":
        raise UsageError("soak cuts its clips short, which simulated recognisers do not know; use --providers scripted")
    clips = shortened(sound.clips)
    async with raised(made, bench, floors, clips, {"STREAM_TOKEN_TTL_S": str(TOKEN_TTL_S)}) as rig:
        result = await Soak(rig, clips, total, quiet_s).run()
    failures = rig.failures + verdict.broken_soak(result, max_growth_percent)
    return verdict.concluded(result, floors, rig.problems, failures)


def main(argv: list[str], bench: Bench | None = None) -> int:
    """Returns 0 for a valid run that left nothing behind, 1 for others, 2 when nothing could be measured."""
    made = common_parser("soak", __doc__.splitlines()[0])
    made.add_argument("--calls", type=int, default=1000, help="short calls in all (default: %(default)s)")
    made.add_argument("--at-once", type=int, default=50, help="of them at the same time (default: %(default)s)")
    made.add_argument(
        "--max-growth-percent", type=float, default=verdict.MAX_RSS_GROWTH_PERCENT, metavar="P",
        help="of memory between the two looks (default: %(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--quiet-s", type=float, default=QUIET_S, metavar="S",
        help="wait at most so long for the last keys before each look (default: %(default)s)",
    )  # fmt: skip
    asked = made.parse_args(argv)

    def runs(sound: Sound, given: Bench) -> list[Result]:
        if not (10 <= asked.calls <= MOST_CALLS and 1 <= asked.at_once <= MAX_CALLS):
            raise UsageError(f"--calls: 10 to {MOST_CALLS}; --at-once: 1 to {MAX_CALLS}")
        if not LEAST_QUIET_S <= asked.quiet_s <= QUIET_S:
            raise UsageError(f"--quiet-s: {LEAST_QUIET_S:g} to {QUIET_S:g}")
        one = run_once(
            options(asked, asked.at_once, 0.0), sound, given, asked.calls, asked.max_growth_percent, asked.quiet_s
        )
        return [told(asked, asked.calls, one, given)]

    return conclude(asked, runs, ROWS, bench)
