"""From command line to table, JSON and image: the frame that all loads share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.load import clips as source
from bench.load.captured import from_captures
from bench.load.conditions import conditions
from bench.load.figure import table
from bench.load.floor import FloorFailed
from bench.load.knee import knee
from bench.load.options import Options, UsageError, callers, check, numbers_of_calls, options, side
from bench.load.plot import draw, panels
from bench.load.rig import Bench, native_isa
from bench.load.server_process import ServerFailed
from bench.load.verdict import Result, is_failed, not_measured
from bench.sim.sound import Clip

Rows = dict[str, Callable[[Result], str]]


@dataclass(frozen=True, slots=True)
class Sound:
    """What callers say, and what they say to interrupt."""

    clips: list[Clip]
    interruptions: list[Clip]


RunOnce = Callable[[Options, Sound, Bench], Awaitable[Result]]


def trio(value: dict[str, float | None] | None) -> str:
    return "-" if not value else " / ".join("-" if one is None else f"{one:g}" for one in value.values())


COMMON_ROWS: Rows = {
    "CPU per call-second, ms": lambda one: f"{one['server_cpu_ms_per_call_s']:.3f}",
    "  embedded databases, ms": lambda one: f"{one['embedded_cpu_ms_per_call_s']:.3f}",
    "  per frame, of the C floor": lambda one: f"{one['cpu_of_floor']:g} x",
    "RSS per call, KiB": lambda one: str(one["server_rss_kib_per_call"]),
    "frame lateness p50/p95/p99/max, ms": lambda one: trio(one["frame_lateness_ms"]),
    "turn latency p50/p95/p99, ms": lambda one: trio(one["turn_latency_ms"]),
    "own p50/p95/p99 (server says), ms": lambda one: trio(one["own_latency_ms"]),
    "turns completed of expected": lambda one: f"{one['turns_completed']} of {one['turns_expected']}",
    "  not judged to the end, broke off": lambda one: f"{one['turns_unfinished']}, {one['broken_off']}",
    "  codes of others, old or wrong": lambda one: f"{one['foreign_codes']}, {one['wrong_codes']}",
    "underruns, overfills": lambda one: f"{one['underruns']}, {one['overfills']}",
    "dropped, errors": lambda one: f"{one['dropped']}, {one['errors']}",
    "frames in, out": lambda one: f"{one['frames_in']}, {one['frames_out']}",
    "callers talk": lambda one: f"{one['talk_share']:.0%} ({one['callers']})",
    "generator: core, late p99 ms": lambda one: f"{one['generator_cpu']:.2f}, {one['generator_late_ms']['p99']}",
    "simulators: core": lambda one: f"{one['simulator_cpu']:.2f}",
}
FLOOR_ROWS: Rows = {
    "on a core of its own": lambda one: "yes" if one["pinned"] else "NO",
    "not as usual": lambda one: ", ".join(one["asked_otherwise"]) or "-",
    "C echo floor before/after, us": lambda one: f"{one['floor_us_per_frame']} / {one['floor_after_us_per_frame']}",
    "picows echo before/after, us": lambda one: f"{one['picows_us_per_frame']} / {one['picows_after_us_per_frame']}",
    "valid": lambda one: "yes" if one["valid"] else "NO",
    "passed": lambda one: "NO" if is_failed(one) else "yes",
}


def show(results: Sequence[Result], rows: Rows) -> str:
    """The table: one row a figure, one column a run."""
    lines: list[tuple[str, ...]] = [("", *(one.get("server") or f"{one['calls']} calls" for one in results))]
    lines += [(name, *(read(one) for one in results)) for name, read in {**rows, **FLOOR_ROWS}.items()]
    return table(lines)


def run_bench(asked: argparse.Namespace, run_once: RunOnce, rows: Rows, bench: Bench | None) -> int:
    """All runs that were asked for. Returns 0: all passed, 1: not all, 2: nothing could be measured."""

    def once(calls: int, sound: Sound, given: Bench) -> Result:
        return told(asked, calls, run_once(options(asked, calls, asked.seconds), sound, given), given)

    def runs(sound: Sound, given: Bench) -> list[Result]:
        results = []
        for calls in numbers_of_calls(asked):
            result = once(calls, sound, given)
            if asked.curve and not result["valid"]:
                print(f"  {calls} calls: measured again, for the knee", file=sys.stderr)
                result = once(calls, sound, given)
            results.append(result)
        return results

    return conclude(asked, runs, rows, bench)


def conclude(
    asked: argparse.Namespace, runs: Callable[[Sound, Bench], list[Result]], rows: Rows, bench: Bench | None
) -> int:
    """Carry out `runs`, show and write what came of them. Returns as `run_bench`."""
    try:
        check(asked)
        sound = Sound(
            _callers(asked),
            source.interrupting(),
        )
        results = runs(sound, bench or Bench(isa=native_isa()))
    except (UsageError, source.RecordingError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    measured = [one for one in results if "failed" not in one]
    if measured:
        print(show(measured, rows))
    curve = bool(getattr(asked, "curve", None))
    found = knee(results) if curve else None
    if found is not None:
        print(f"knee: {found}")
    if asked.json:
        report: Any = results[0] if found is None else {"curve": results, "knee": found.as_dict()}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    if not measured:
        return 2
    if getattr(asked, "plot", None):
        draw(panels(results), {"": found} if found is not None else {}, asked.plot, "Talkspurt under load")
    return int(any(is_failed(one) for one in results))


def _callers(asked: argparse.Namespace) -> list[Clip]:
    kind = callers(asked)
    if kind == "clips":
        return source.spoken()
    if kind == "captures":
        return from_captures(asked.recording)
    return source.from_recording(asked.recording, side(asked))


def told(asked: argparse.Namespace, calls: int, run: Awaitable[Result], bench: Bench) -> Result:
    """Carry out one run; what went wrong is said at once, be it that there was nothing to measure."""
    try:
        result = uvloop.run(run)  # type: ignore[arg-type]
    except (ServerFailed, FloorFailed) as error:
        result = not_measured(calls, error)
    result["isa"] = bench.isa
    result["callers"] = callers(asked)
    result |= conditions(asked)
    for text in result["problems"] + [f"invalid: {why}" for why in result["why_invalid"]]:
        print(f"  {result['calls']} calls: {text}", file=sys.stderr)
    for text in result["broken"]:
        print(f"  {result['calls']} calls: FAILED: {text}", file=sys.stderr)
    return result
