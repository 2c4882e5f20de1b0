"""N callers on the rig: brought up at a bounded pace, watched over a steady window, let go.

ramp to 10 ─→ ramp to N ─→ steady window ─→ last turns ─→ everybody hangs up
     RSS          └─ CPU, frames, latencies: only in here ─┘
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
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
    lateness: dict[str, int]
    frames_in: int
    frames_out: int
    latencies: dict[int, int]
    underruns: int
    overfills: int
    metrics: str
    log_bytes: int


@dataclass(slots=True)
class Seen:
    """What was seen of a crowd."""

    idle: Usage
    base: Usage
    begin: Edge
    end: Edge
    turns: list[dict[str, Any]] = field(default_factory=list)
    """The server's own records of the turns in the window: `latency_ms` and `stages`, empty when it gives none."""


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
        async with Tasks() as tasks:
            base_calls = min(BASE_CALLS, options.calls)
            await self._ramp(tasks, base_calls)
            base = rig.target.usage()
            await self._ramp(tasks, options.calls)
            begin = await self._edge()
            await asyncio.sleep(options.seconds)
            end = await self._edge()
            turns, _ = rig.target.log_lines(begin.log_bytes)
            for caller in self.callers:
                caller.stopping = True
            await self._finish()
        return Seen(idle, base, begin, end, [one for one in turns if one.get("event") == "turn"])

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
            self._rig.problems.append(f"{late} callers were not connected and greeted after {READY_S:.0f} s")
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
        rig, streams = self._rig, self.streams
        metrics = await rig.target.metrics()
        _, log_bytes = rig.target.log_lines()
        return Edge(
            meter=rig.meter(),
            lateness={stream.facts.stream_sid: len(stream.playout.counters.lateness_ms) for stream in streams},
            frames_in=sum(stream.facts.frames_out for stream in streams),
            frames_out=sum(stream.facts.frames_in for stream in streams),
            latencies={caller.call_no: len(caller.record.latency_ms) for caller in self.callers},
            underruns=sum(stream.playout.counters.underruns for stream in streams)
            + sum(caller.record.gaps for caller in self.callers),
            overfills=sum(stream.playout.counters.overfills for stream in streams),
            metrics=metrics,
            log_bytes=log_bytes,
        )

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────

    def figures(self, seen: Seen) -> dict[str, Any]:
        """What all benches of a crowd report."""
        rig, begin, end = self._rig, seen.begin, seen.end
        calls, wall = len(self.callers), end.meter.at - begin.meter.at
        before, after = begin.meter, end.meter
        lateness: list[float] = []
        for stream in self.streams:
            sid = stream.facts.stream_sid
            lateness += stream.playout.counters.lateness_ms[begin.lateness.get(sid, 0) : end.lateness.get(sid, 0)]
        latency: list[float] = []
        for caller in self.callers:
            no = caller.call_no
            latency += caller.record.latency_ms[begin.latencies.get(no, 0) : end.latencies.get(no, 0)]
        records = [caller.record for caller in self.callers]
        late = percentile(rig.exchange.ticker.late_ms[before.ticks : after.ticks], 0.99)
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
            "frame_lateness_ms": percentiles(lateness, with_max=True),
            "turn_latency_ms": percentiles(latency),
            "own_latency_ms": own_latency(seen),
            "underruns": end.underruns - begin.underruns,
            "overfills": end.overfills - begin.overfills,
            "frames_in": end.frames_in - begin.frames_in,
            "frames_out": end.frames_out - begin.frames_out,
            "dropped": sum(one.facts.bad_messages + one.playout.counters.overflows for one in self.streams),
            "errors": self._errors(),
            "turns_expected": sum(record.turns_expected for record in records),
            "turns_completed": sum(record.turns_completed for record in records),
            "broken_off": sum(record.broken_off for record in records),
            "generator_cpu": round((after.generator_cpu_s - before.generator_cpu_s) / wall, 3),
            "simulator_cpu": round((after.simulator_cpu_s - before.simulator_cpu_s) / wall, 3),
            "generator_late_ms": {"p99": None if late is None else round(late, 2)},
            "server_rss_kib": after.usage.rss_kib,
            "embedded_cpu_ms_per_call_s": round(embedded_s / wall / calls * 1e3, 3),
            "talk_share": round(sum(record.speech_frames for record in records) / max(1, frames), 2),
            "damaged_codes": sum(record.damaged for record in records),
            "wrong_codes": sum(record.wrong for record in records),
            "split_turns": sum(record.split for record in records),
            "network_stalls": rig.exchange.arrivals.stalls if rig.exchange.arrivals else 0,
        }

    def _errors(self) -> int:
        """Calls that did not end as their caller wanted, and what the carrier's debugger would list."""
        problems = self._rig.problems
        bad = [call for call in self.calls if call.ended_by != "caller"]
        listed = Counter(f"{one.code} {one.text[:80]}" for one in self._rig.exchange.debugger)
        problems += [f"call {call.from_} ended by {call.ended_by} ({call.status})" for call in bad[:5]]
        problems += [f"debugger {text}: {count} times" for text, count in listed.most_common(5)]
        return len(bad) + sum(listed.values())


def own_latency(seen: Seen) -> dict[str, float | None]:
    """The server's own share of its turns in the window, ms: from its records of turns, else from its histogram."""
    if seen.turns:
        return percentiles([one["stages"]["own"] for one in seen.turns if "own" in one["stages"]])
    name = "turn_own_seconds"
    window = subtract(parse_buckets(seen.end.metrics, name), parse_buckets(seen.begin.metrics, name))
    found: dict[str, float | None] = {}
    for share in (50, 95, 99):
        value = quantile(window, share / 100)
        found[f"p{share}"] = None if value is None else round(value * 1e3, 2)
    return found


def stages(turns: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Percentiles of each stage over the server's records of turns, in the order of the account."""
    values: dict[str, list[float]] = {}
    for turn in turns:
        for name, ms in turn["stages"].items():
            values.setdefault(name, []).append(ms)
    return {name: percentiles(found) for name, found in values.items()}
