"""N callers on the rig: brought up at a bounded pace, watched over a steady window, let go.

ramp to 10 ─→ ramp to N ─→ steady window ─→ last turns ─→ everybody hangs up
     RSS          └─ CPU, frames ─┘
└─ what is judged: every turn, latency, lateness and underrun of the whole run ─┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from bench.load.figure import parse_buckets, percentile, percentiles, quantile, subtract
from bench.load.rig import FROM_PREFIX, TO_NUMBER, Meter, Rig, wait_for
from bench.load.server_process import Usage
from bench.load.turn_judge import LoadRecord
from bench.sim.exchange import PhoneCall
from bench.sim.party import Party
from bench.sim.tasks import Tasks
from bench.sim.twilio_stream import MediaStream

BASE_CALLS = 10
"""RSS per call is the slope between so many calls and all of them."""
READY_S = 15.0
FINISH_S = 25.0
ACCOUNTS_S = 3.0
"""Until the server's records of the last turns are in its log."""


class Caller(Party, Protocol):
    """A caller of a load."""

    record: LoadRecord
    stopping: bool
    call_no: int

    @property
    def is_ready(self) -> bool:
        """It has heard its greeting and begun to talk."""


C = TypeVar("C", bound=Caller)


@dataclass(slots=True)
class Edge:
    """What was counted at one edge of the steady window."""

    meter: Meter
    frames_in: int
    frames_out: int


@dataclass(slots=True)
class Seen:
    """What was seen of a crowd."""

    idle: Usage
    base: Usage
    begin: Edge
    end: Edge
    ticks: tuple[int, int]
    """Of the generator, before the first call and after the last."""
    metrics: tuple[str, str]
    log: list[dict[str, Any]] = field(default_factory=list)
    """What the server logged from the first call to the last."""

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The server's own records of its turns: `latency_ms` and `stages`, empty when it gives none."""
        return [one for one in self.log if one.get("event") == "turn"]


class Crowd(Generic[C]):
    """The callers of one run. `make(number, think_frames)` makes one; `number` is a telephone number."""

    def __init__(self, rig: Rig, make: Callable[[str, int], C]) -> None:
        self.callers: list[C] = []
        self.calls: list[PhoneCall] = []
        self._rig = rig
        self._make = make

    @property
    def streams(self) -> list[MediaStream]:
        return [stream for call in self._rig.exchange.calls.values() for stream in call.streams]

    async def watch(self) -> Seen:
        rig, options = self._rig, self._rig.options
        idle = rig.target.usage()
        metrics = await rig.target.metrics()
        _, log_bytes = rig.target.log_lines()
        first_tick = len(rig.exchange.ticker.late_ms)
        async with Tasks() as tasks:
            base_calls = min(BASE_CALLS, options.calls)
            await self._ramp(tasks, base_calls)
            base = rig.target.usage()
            await self._ramp(tasks, options.calls)
            begin = await self._edge()
            await asyncio.sleep(options.seconds)
            end = await self._edge()
            for caller in self.callers:
                caller.stopping = True
            await self._finish()
        ticks = (first_tick, len(rig.exchange.ticker.late_ms))
        log = await self._logged(log_bytes)
        return Seen(idle, base, begin, end, ticks, (metrics, await rig.target.metrics()), log)

    async def _logged(self, at: int) -> list[dict[str, Any]]:
        """The server's log from there on, once it has told of every turn that was heard."""
        completed = sum(caller.record.turns_completed for caller in self.callers)
        deadline, found = time.monotonic() + ACCOUNTS_S, []
        while True:
            lines, at = self._rig.target.log_lines(at)
            found += lines
            told = sum(one.get("event") == "turn" for one in found)
            if not told or told >= completed or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(0.1)

    async def _ramp(self, tasks: Tasks, last: int) -> None:
        """Start calls until there are `last`, and wait until each has heard its greeting and begun to talk."""
        bench, first, began = self._rig.bench, len(self.callers), time.monotonic()
        for number in range(first, last):
            await asyncio.sleep(max(0.0, began + (number - first) / bench.ramp_per_s - time.monotonic()))
            from_number = f"{FROM_PREFIX}{number:04d}"
            caller = self._make(from_number, (number * 7) % 25)  # callers do not stay in step
            self.callers.append(caller)
            tasks.create_task(self._call(caller, from_number))
        if not await wait_for(lambda: all(caller.is_ready for caller in self.callers), READY_S):
            late = sum(not caller.is_ready for caller in self.callers)
            self._rig.failures.append(f"{late} callers were not connected and greeted after {READY_S:.0f} s")
        await asyncio.sleep(bench.settle_s)

    async def _call(self, caller: C, number: str) -> None:
        self.calls.append(await self._rig.exchange.call(caller, from_=number, to=TO_NUMBER))

    async def _finish(self) -> None:
        """Every caller hears its last answer and hangs up; who cannot is cut off."""
        await wait_for(lambda: len(self.calls) == len(self.callers), FINISH_S)
        for call in self._rig.exchange.calls.values():
            if not call.is_over:
                self._rig.problems.append(f"call {call.from_} did not end by itself")
                self._rig.exchange.end_call(call.sid)

    async def _edge(self) -> Edge:
        streams = self.streams
        return Edge(
            meter=self._rig.meter(),
            frames_in=sum(stream.facts.frames_out for stream in streams),
            frames_out=sum(stream.facts.frames_in for stream in streams),
        )

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────

    def figures(self, seen: Seen) -> dict[str, Any]:
        """What all benches of a crowd report."""
        rig, begin, end = self._rig, seen.begin, seen.end
        calls, wall = len(self.callers), end.meter.at - begin.meter.at
        before, after = begin.meter, end.meter
        counters = [stream.playout.counters for stream in self.streams]
        records = [caller.record for caller in self.callers]
        late = percentile(rig.exchange.ticker.late_ms[slice(*seen.ticks)], 0.99)
        frames = sum(record.frames for record in records)
        slope = (after.usage.rss_kib - seen.base.rss_kib) / (calls - BASE_CALLS) if calls > BASE_CALLS else None
        embedded_s = after.usage.embedded_cpu_s - before.usage.embedded_cpu_s
        return {
            "calls": calls,
            "seconds": round(wall, 1),
            "carrier": rig.options.carrier,
            "vad": rig.options.vad,
            "providers": rig.options.providers,
            "profile": rig.options.profile if rig.options.providers == "sim" else None,
            "proof": rig.options.proof,
            "callers": rig.options.callers,
            "server_cpu_ms_per_call_s": round((after.usage.cpu_s - before.usage.cpu_s) / wall / calls * 1e3, 3),
            "server_rss_kib_per_call": None if slope is None else round(slope, 1),
            "server_rss_kib_per_call_from_idle": round((after.usage.rss_kib - seen.idle.rss_kib) / calls, 1),
            "frame_lateness_ms": percentiles([ms for one in counters for ms in one.lateness_ms], with_max=True),
            "turn_latency_ms": percentiles([ms for record in records for ms in record.latency_ms]),
            "own_latency_ms": own_latency(seen),
            "underruns": sum(one.underruns for one in counters) + sum(record.gaps for record in records),
            "overfills": sum(one.overfills for one in counters),
            "frames_in": end.frames_in - begin.frames_in,
            "frames_out": end.frames_out - begin.frames_out,
            "dropped": sum(one.facts.bad_messages + one.playout.counters.overflows for one in self.streams),
            "errors": self._errors(seen),
            "turns_expected": sum(record.turns_expected for record in records),
            "turns_completed": sum(record.turns_completed for record in records),
            "turns_unfinished": sum(record.in_turn for record in records),
            "turns_accounted": accounted(seen),
            "ungreeted": sum(not record.is_greeted for record in records),
            "broken_off": sum(record.broken_off for record in records),
            "overlong": sum(record.overlong for record in records),
            "talked_over": sum(record.talked_over for record in records),
            "unasked_clears": sum(record.unasked_clears for record in records),
            "generator_cpu": round((after.generator_cpu_s - before.generator_cpu_s) / wall, 3),
            "simulator_cpu": round((after.simulator_cpu_s - before.simulator_cpu_s) / wall, 3),
            "generator_late_ms": {"p99": None if late is None else round(late, 2)},
            "server_rss_kib": after.usage.rss_kib,
            "embedded_cpu_ms_per_call_s": round(embedded_s / wall / calls * 1e3, 3),
            "talk_share": round(sum(record.speech_frames for record in records) / max(1, frames), 2),
            "damaged_codes": sum(record.damaged for record in records),
            "wrong_codes": sum(record.wrong for record in records),
            "foreign_codes": sum(record.foreign for record in records),
            "jitter": rig.options.jitter,
            "split_turns": sum(record.split for record in records),
            "network_stalls": rig.exchange.arrivals.stalls if rig.exchange.arrivals else 0,
        }

    def _errors(self, seen: Seen) -> int:
        """Calls that did not end as their caller wanted, what the carrier's debugger and the server's log list."""
        problems = self._rig.problems
        bad = [call for call in self.calls if call.ended_by != "caller"]
        problems += [f"call {call.from_} ended by {call.ended_by} ({call.status})" for call in bad[:5]]
        return len(bad) + self._rig.complaints(seen.log)


def own_latency(seen: Seen) -> dict[str, float | None]:
    """The server's own share of its turns, ms: from its records of turns, else from its histogram."""
    if seen.turns:
        return percentiles(owns(seen))
    found: dict[str, float | None] = {}
    for share in (50, 95, 99):
        value = quantile(_histogram(seen), share / 100)
        found[f"p{share}"] = None if value is None else round(value * 1e3, 2)
    return found


def accounted(seen: Seen) -> int:
    """Turns of which the server tells its own share."""
    return len(owns(seen)) if seen.turns else round(max(_histogram(seen).values(), default=0.0))


def owns(seen: Seen) -> list[float]:
    return [one["stages"]["own"] for one in seen.turns if "own" in one["stages"]]


def _histogram(seen: Seen) -> dict[float, float]:
    before, after = (parse_buckets(text, "turn_own_seconds") for text in seen.metrics)
    return subtract(after, before)


def stages(turns: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Percentiles of each stage over the server's records of turns, in the order of the account."""
    values: dict[str, list[float]] = {}
    for turn in turns:
        for name, ms in turn["stages"].items():
            values.setdefault(name, []).append(ms)
    return {name: percentiles(found) for name, found in values.items()}
