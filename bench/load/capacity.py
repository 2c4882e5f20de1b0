"""How many calls a server carries: N simulated callers at real pace, judged by what they hear (DESIGN 3, 4, 6).

    floor ─→ server up ─→ ramp to 10 ─→ ramp to N ─→ steady window ─→ last turns ─→ hang up ─→ floor again
                               RSS           CPU, frames, latencies: only in here

The generator is this process; everything it reports it measured outside the server, but `own_latency_ms`, which only
the server can know and is labelled so in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.load.figure import parse_buckets, percentile, percentiles, quantile, subtract, table
from bench.load.floor import floor_us_per_frame
from bench.load.load_caller import LoadCaller
from bench.load.server_process import PUBLIC_URL, ROOT, ServerFailed, ServerProcess, Usage
from bench.sim.sound import FRAME_MS, Clip
from bench.sim.twilio import Account, Call, Exchange
from bench.sim.voice import pico_clip

TO_NUMBER = "+15550100"
FROM_PREFIX = "+1555200"
BASE_CALLS = 10
"""RSS per call is the slope between so many calls and all of them (DESIGN 4)."""
RAMP_CALLS_PER_S = 20
SETTLE_S = 2.0
FINISH_S = 20.0
GENERATOR_NICE = -10
MAX_GENERATOR_LATE_MS = 10.0
MAX_FLOOR_MOVE = 0.10
MAX_GENERATOR_CPU = 0.90
# Said in one breath, about three seconds: the load is for the transport, not for the endpointing.
SENTENCES = (
    "I would really like to know whether you are still open on Saturday afternoon",
    "could you tell me how much it costs to park my car near your main building",
    "my daughter needs to see somebody about her knee before the end of the month",
    "please remind me which bus I have to take when I come from the railway station",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for; see `python -m bench capacity --help`."""

    calls: int
    seconds: float
    lead_ms: int
    chunk_ms: int
    pin: bool
    providers: str


@dataclass(slots=True)
class Window:
    """What was counted at one edge of the steady window."""

    at: float
    usage: Usage
    generator_cpu_s: float
    ticks: int
    lateness: dict[str, int]
    frames_in: int
    frames_out: int
    latencies: dict[str, int]
    underruns: int
    metrics: str


class Run:
    """One run with one number of calls."""

    def __init__(self, options: Options, server: ServerProcess, exchange: Exchange, clips: list[Clip]) -> None:
        self._options = options
        self._server = server
        self._exchange = exchange
        self._clips = clips
        self._callers: list[LoadCaller] = []
        self._calls: list[Call] = []
        self.problems: list[str] = []

    async def measure(self) -> dict[str, Any]:
        options = self._options
        async with asyncio.TaskGroup() as tasks:
            await self._ramp(tasks, 0, min(BASE_CALLS, options.calls))
            base = self._server.usage()
            await self._ramp(tasks, min(BASE_CALLS, options.calls), options.calls)
            begin = await self._edge()
            await asyncio.sleep(options.seconds)
            end = await self._edge()
            for caller in self._callers:
                caller.stopping = True
            await self._finish()
        return self._result(base, begin, end)

    async def _ramp(self, tasks: asyncio.TaskGroup, first: int, last: int) -> None:
        """Start calls [first, last) at a bounded pace and wait until each has heard its greeting and begun to talk."""
        began = time.monotonic()
        for number in range(first, last):
            await asyncio.sleep(max(0.0, began + (number - first) / RAMP_CALLS_PER_S - time.monotonic()))
            think_frames = (number * 7) % 25  # callers do not stay in step
            caller = LoadCaller(f"{FROM_PREFIX}{number:04d}", self._clips, think_frames)
            self._callers.append(caller)
            tasks.create_task(self._call(caller, f"{FROM_PREFIX}{number:04d}"))
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and not all(caller.is_ready for caller in self._callers):
            await asyncio.sleep(0.1)
        if not all(caller.is_ready for caller in self._callers):
            self.problems.append("not every caller was connected after 15 s")
        await asyncio.sleep(SETTLE_S)

    async def _call(self, caller: LoadCaller, number: str) -> None:
        self._calls.append(await self._exchange.call(caller, from_=number, to=TO_NUMBER))

    async def _finish(self) -> None:
        """Every caller hears its last answer and hangs up; who cannot is cut off."""
        deadline = time.monotonic() + FINISH_S
        while len(self._calls) < len(self._callers) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        for call in self._exchange.calls.values():
            if not call.is_over:
                self.problems.append(f"call {call.from_} did not end by itself")
                self._exchange.update_call(call.sid, {"Status": "completed"})

    async def _edge(self) -> Window:
        metrics = await self._server.metrics()
        process = psutil.Process().cpu_times()
        streams = [stream for call in self._exchange.calls.values() for stream in call.streams]
        return Window(
            at=time.monotonic(),
            usage=self._server.usage(),
            generator_cpu_s=process.user + process.system,
            ticks=len(self._exchange.ticker.late_ms),
            lateness={stream.facts.stream_sid: len(stream.playout.counters.lateness_ms) for stream in streams},
            frames_in=sum(stream.facts.frames_out for stream in streams),
            frames_out=sum(stream.facts.frames_in for stream in streams),
            latencies={str(caller.call_no): len(caller.record.latency_ms) for caller in self._callers},
            underruns=sum(stream.playout.counters.underruns for stream in streams),
            metrics=metrics,
        )

    def _result(self, base: Usage, begin: Window, end: Window) -> dict[str, Any]:
        calls, wall = len(self._callers), end.at - begin.at
        streams = [stream for call in self._exchange.calls.values() for stream in call.streams]
        lateness: list[float] = []
        for stream in streams:
            sid = stream.facts.stream_sid
            lateness += stream.playout.counters.lateness_ms[begin.lateness.get(sid, 0) : end.lateness.get(sid, 0)]
        latency: list[float] = []
        for caller in self._callers:
            key = str(caller.call_no)
            latency += caller.record.latency_ms[begin.latencies.get(key, 0) : end.latencies.get(key, 0)]
        records = [caller.record for caller in self._callers]
        late = percentile(self._exchange.ticker.late_ms[begin.ticks : end.ticks], 0.99)
        frames = sum(record.frames for record in records)
        slope = (end.usage.rss_kib - base.rss_kib) / (calls - BASE_CALLS) if calls > BASE_CALLS else None
        return {
            "calls": calls,
            "seconds": round(wall, 1),
            "vad": "webrtc",
            "isa": native_isa(),
            "server_cpu_ms_per_call_s": round((end.usage.cpu_s - begin.usage.cpu_s) / wall / calls * 1e3, 3),
            "server_rss_kib_per_call": None if slope is None else round(slope, 1),
            "frame_lateness_ms": percentiles(lateness, with_max=True),
            "turn_latency_ms": percentiles(latency),
            "own_latency_ms": own_latency(begin.metrics, end.metrics),
            "underruns": end.underruns - begin.underruns,
            "frames_in": end.frames_in - begin.frames_in,
            "frames_out": end.frames_out - begin.frames_out,
            "dropped": sum(stream.facts.bad_messages + stream.playout.counters.overflows for stream in streams),
            "errors": self._errors(),
            "turns_expected": sum(record.turns_expected for record in records),
            "turns_completed": sum(record.turns_completed for record in records),
            "generator_cpu": round((end.generator_cpu_s - begin.generator_cpu_s) / wall, 3),
            "simulator_cpu": 0.0,
            "generator_late_ms": {"p99": None if late is None else round(late, 2)},
            "server_rss_kib": end.usage.rss_kib,
            "embedded_cpu_ms_per_call_s": round(
                (end.usage.embedded_cpu_s - begin.usage.embedded_cpu_s) / wall / calls * 1e3, 3
            ),
            "talk_share": round(sum(record.speech_frames for record in records) / max(1, frames), 2),
            "damaged_codes": sum(record.damaged for record in records),
            "wrong_codes": sum(record.wrong for record in records),
            "split_turns": sum(record.split for record in records),
        }

    def _errors(self) -> int:
        """Calls that did not end as their caller wanted, and what Twilio's debugger would list."""
        bad = [call for call in self._calls if call.ended_by != "caller"]
        listed = Counter(f"{one.code} {one.text[:80]}" for one in self._exchange.debugger)
        self.problems += [f"call {call.from_} ended by {call.ended_by} ({call.status})" for call in bad[:5]]
        self.problems += [f"debugger {text}: {count} times" for text, count in listed.most_common(5)]
        return len(bad) + sum(listed.values())


def native_isa() -> str:
    """The instruction set that the product's kernels chose, asked in a process of its own."""
    code = "import audio_native.dispatch as d; print(d.ISA)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    return run.stdout.strip() or "unknown"


def own_latency(before: str, after: str) -> dict[str, float | None]:
    """The server's own share of its turns in the window, ms, from its histogram; None where it gives none."""
    name = "turn_own_seconds"
    window = subtract(parse_buckets(after, name), parse_buckets(before, name))
    found: dict[str, float | None] = {}
    for share in (50, 95, 99):
        value = quantile(window, share / 100)
        found[f"p{share}"] = None if value is None else round(value * 1e3, 2)
    return found


async def run_once(options: Options, clips: list[Clip]) -> dict[str, Any]:
    """One whole run: floor, server, calls, floor. Raises ServerFailed when there is nothing to measure."""
    floor = await floor_us_per_frame()
    account = Account()
    exchange = Exchange(
        public_url=PUBLIC_URL, local_url="", account=account, lead_ms=options.lead_ms, chunk_ms=options.chunk_ms
    )
    async with exchange:
        env = {
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_ACCOUNT_SID": account.account_sid,
            "TWILIO_AUTH_TOKEN": account.auth_token,
            "TWILIO_API_URL": exchange.rest_url,
            "MAX_CALLS": str(options.calls + 10),
            "HANDSHAKES_PER_S": "10000",
            "CONNECTIONS_PER_IP": "10000",
            "PACER_LEAD_MS": str(options.lead_ms),
            "PACER_CHUNK_MS": str(options.chunk_ms),
            "STT_PROVIDER": options.providers,
            "LLM_PROVIDER": options.providers,
            "TTS_PROVIDER": options.providers,
        }
        async with ServerProcess(env) as server:
            exchange.local_url = server.url
            if options.pin:
                pin_apart(server)
            run = Run(options, server, exchange, clips)
            with going_first():
                result = await run.measure()
            if not server.is_running:
                run.problems.append(f"the server exited with {server.returncode}")
    after = await floor_us_per_frame()
    result["floor_us_per_frame"] = round(floor, 2)
    result["floor_after_us_per_frame"] = round(after, 2)
    result["problems"] = run.problems
    result["why_invalid"] = why_invalid(result)
    result["valid"] = not result["why_invalid"]
    return result


@contextlib.contextmanager
def going_first() -> Iterator[None]:
    """The generator runs before other processes where it may: it needs little, and late it could only be refused.

    Enter after the server was started, which would inherit it.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, GENERATOR_NICE)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def pin_apart(server: ServerProcess) -> None:
    """Server on the first core, generator on the second; with one core there is nothing to choose."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        server.pin(cores[0])
        os.sched_setaffinity(0, {cores[1]})


def why_invalid(result: dict[str, Any]) -> list[str]:
    """Why the figures say nothing about the server: the generator or the machine was at fault."""
    reasons = []
    late = result["generator_late_ms"]["p99"]
    if late is None or late > MAX_GENERATOR_LATE_MS:
        reasons.append(f"generator late: p99 {late} ms, at most {MAX_GENERATOR_LATE_MS}")
    if result["generator_cpu"] > MAX_GENERATOR_CPU:
        reasons.append(f"generator used {result['generator_cpu']:.2f} of a core, at most {MAX_GENERATOR_CPU}")
    floor, after = result["floor_us_per_frame"], result["floor_after_us_per_frame"]
    if abs(after - floor) > MAX_FLOOR_MOVE * floor:
        reasons.append(f"the echo floor moved from {floor} to {after} us a frame")
    if result["turns_expected"] == 0:
        reasons.append("no turn was spoken")
    return reasons


def has_failed(result: dict[str, Any]) -> bool:
    return not result["valid"] or result["turns_completed"] < result["turns_expected"] or result["errors"] > 0


def show(results: list[dict[str, Any]]) -> str:
    """The table: one row a figure, one column a run."""

    def trio(value: dict[str, float | None]) -> str:
        return " / ".join("-" if one is None else f"{one:g}" for one in value.values())

    rows: list[tuple[str, ...]] = [("", *(f"{one['calls']} calls" for one in results))]
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "CPU per call-second, ms": lambda one: f"{one['server_cpu_ms_per_call_s']:.3f}",
        "  embedded databases, ms": lambda one: f"{one['embedded_cpu_ms_per_call_s']:.3f}",
        "RSS per call, KiB": lambda one: str(one["server_rss_kib_per_call"]),
        "frame lateness p50/p95/p99/max, ms": lambda one: trio(one["frame_lateness_ms"]),
        "turn latency p50/p95/p99, ms": lambda one: trio(one["turn_latency_ms"]),
        "own p50/p95/p99 (server says), ms": lambda one: trio(one["own_latency_ms"]),
        "turns completed of expected": lambda one: f"{one['turns_completed']} of {one['turns_expected']}",
        "underruns, dropped, errors": lambda one: f"{one['underruns']}, {one['dropped']}, {one['errors']}",
        "frames in, out": lambda one: f"{one['frames_in']}, {one['frames_out']}",
        "callers talk": lambda one: f"{one['talk_share']:.0%}",
        "generator: core, late p99 ms": lambda one: f"{one['generator_cpu']:.2f}, {one['generator_late_ms']['p99']}",
        "echo floor before/after, us": lambda one: f"{one['floor_us_per_frame']} / {one['floor_after_us_per_frame']}",
        "valid": lambda one: "yes" if one["valid"] else "NO",
    }
    rows += [(name, *(read(one) for one in results)) for name, read in lines.items()]
    return table(rows)


def knee(results: list[dict[str, Any]]) -> int | None:
    """The most calls whose run was valid, complete and late by less than a frame at p99."""
    good = [one for one in results if not has_failed(one) and (one["frame_lateness_ms"]["p99"] or 0.0) < FRAME_MS]
    return max((one["calls"] for one in good), default=None)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench capacity", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the steady window")
    parser.add_argument("--curve", help="comma-separated numbers of calls, one run each; names the knee")
    parser.add_argument("--providers", default="scripted", choices=["scripted"])
    parser.add_argument("--lead-ms", type=int, default=200, help="the server's PACER_LEAD_MS")
    parser.add_argument("--chunk-ms", type=int, default=100, help="the server's PACER_CHUNK_MS")
    parser.add_argument("--pin", action="store_true", help="server and generator on a core each")
    parser.add_argument("--json", type=Path, help="write the result here")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Returns 0 for valid runs whose turns all completed, 1 for others, 2 when the server did not start."""
    asked = parse(argv)
    numbers = [int(part) for part in asked.curve.split(",")] if asked.curve else [asked.calls]
    # Every second caller is another voice; the server must not learn one clip.
    clips = [pico_clip(text, pitch_percent=90 + 20 * (n % 2)) for n, text in enumerate(SENTENCES)]
    results = []
    for calls in numbers:
        options = Options(calls, asked.seconds, asked.lead_ms, asked.chunk_ms, asked.pin, asked.providers)
        try:
            results.append(uvloop.run(run_once(options, clips)))
        except ServerFailed as error:
            print(error, file=sys.stderr)
            return 2
        for text in results[-1]["problems"] + [f"invalid: {why}" for why in results[-1]["why_invalid"]]:
            print(f"  {calls} calls: {text}", file=sys.stderr)
    print(show(results))
    if asked.curve:
        print(f"knee: {knee(results)} calls")
    if asked.json:
        report = {"curve": results, "knee": knee(results)} if asked.curve else results[0]
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(has_failed(one) for one in results))
