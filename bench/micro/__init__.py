"""`python -m bench micro`: each native kernel beside the usual alternative, in one process.

A figure is the median over rounds in which all variants take turns, in an order that rotates, so that a busy machine
or a changing clock hits them alike: read the ratio first. The figures hold a call from Python and its loop on both
sides. Instructions are counted by callgrind at each instruction set (no AVX-512 there), on demand because that takes
a minute.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from audio_native import dispatch
from bench.micro import bench_downlink, bench_kernels, bench_uplink
from bench.micro.bench_uplink import CHUNK_FRAMES, Calls, Way
from bench.out_file import out_file

BUDGETS = Path(__file__).parents[1] / "budgets.toml"
PROMISED_CALLS = 1000

Row = dict[str, Any]
Variants = dict[str, Callable[[], float]]


def main(argv: list[str]) -> int:
    """Exit code 0: it ran, and with --check every budget held. In CI counts that were asked for must be there too."""
    parser = argparse.ArgumentParser(prog="bench micro", description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=out_file, metavar="FILE", help="write the rows as one JSON list")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each kernel (default: %(default)s)")
    parser.add_argument("--kernel", default="", metavar="TEXT", help="only kernels whose name holds TEXT")
    parser.add_argument("--instructions", action="store_true", help="count instructions by valgrind's callgrind")
    parser.add_argument("--check", action="store_true", help=f"fail where a ceiling of {BUDGETS.name} is passed")
    options = parser.parse_args(argv)
    rows = measure(options.rounds, options.kernel)
    if options.instructions:
        add_counts(rows)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    budgets = tomllib.loads(BUDGETS.read_text())
    broken, missing = [], ""
    if options.check:
        factor, why = allowance(budgets["counted_with"])
        broken = check(rows, budgets, factor)
        print("".join(f"{line}\n" for line in [*broken, *([why] if why else [])]), end="", file=sys.stderr)
    if options.check and options.instructions:
        missing = not_counted(rows, budgets)
    if missing:
        print(f"NOT CHECKED: {missing}", file=sys.stderr)
    return 1 if broken or (missing and os.environ.get("CI")) else 0


def measure(rounds: int, wanted: str = "") -> list[Row]:
    """One row for each kernel and alternative; it has `resampling` where that is a choice."""
    rows: list[Row] = []
    for kernel, resampling, make in sources():
        if wanted in kernel:
            times = in_turns(make(), rounds)
            ours = times.pop("native")
            for alternative, theirs in times.items():
                rows.append(
                    {
                        "kernel": kernel,
                        "isa": dispatch.ISA,
                        "ns_native": round(ours, 1),
                        "ns_alternative": round(theirs, 1),
                        "alternative": alternative,
                        "ratio": round(theirs / ours, 2),
                        "instructions": None,
                        "counts": None,
                        "resampling": resampling,
                    }
                )
    return rows


def sources() -> list[tuple[str, bool | None, Callable[[], Variants]]]:
    """(kernel, resampling, a maker of its variants); each variant runs once and answers ns a frame."""
    found: list[tuple[str, bool | None, Callable[[], Variants]]] = []
    for case in bench_kernels.CASES:
        ways = {"native": case.native, case.alternative: case.instead}
        found.append((case.kernel, None, partial(timed, ways, bench_kernels.FRAMES)))
    for kernel, ours, theirs in [*bench_uplink.parts(), *bench_downlink.parts()]:
        ways = {"native": ours, **theirs}
        found.append((kernel, None, partial(timed, ways, bench_kernels.FRAMES)))
    for name, calls in (("hot", 1), (str(PROMISED_CALLS), PROMISED_CALLS)):
        for resampling, serving in ((False, bench_uplink.WIRE_WAYS), (True, bench_uplink.RESAMPLED_WAYS)):
            kernel = f"uplink_feed_{name}{'_resampled' if resampling else ''}"
            found.append((kernel, resampling, partial(served, serving, calls)))
    return found


def timed(ways: dict[str, Callable[[], object]], frames: int) -> Variants:
    def variant(run: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter_ns()
            run()
            return (time.perf_counter_ns() - start) / frames

        return once

    return {name: variant(run) for name, run in ways.items()}


def served(ways: dict[str, Way], calls: int) -> Variants:
    """Each variant serves its own `calls` calls; the messages are written before the clock starts."""
    turns, frames = (CHUNK_FRAMES, 1) if calls > 1 else (1, 50 * CHUNK_FRAMES)

    def variant(way: Way) -> Callable[[], float]:
        own = Calls(way, calls)

        def once() -> float:
            total = 0
            # One message of each call in a turn: between two of a call lie those of all others, as in life.
            for _ in range(turns):
                messages = own.prepare(frames)
                start = time.perf_counter_ns()
                own.serve(messages)
                total += time.perf_counter_ns() - start
            return total / (turns * frames * calls)

        return once

    return {name: variant(way) for name, way in ways.items()}


def in_turns(variants: Variants, rounds: int) -> dict[str, float]:
    """Median ns of each variant over `rounds`, of which the first two do not count."""
    names = list(variants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds + 2):
            for at in range(len(names)):
                name = names[(at + number) % len(names)]
                taken[name].append(variants[name]())
    finally:
        if enabled:
            gc.enable()
    return {name: statistics.median(values[2:]) for name, values in taken.items()}


def add_counts(rows: list[Row]) -> None:
    """Fill in what callgrind counts: `counts` at each instruction set, `instructions` in all at the one in use."""
    from bench.micro.instructions import NotCounted, count

    try:
        counted = count([row["kernel"] for row in rows])
    except NotCounted as error:
        print(f"instructions were not counted: {error}", file=sys.stderr)
        return
    for row in rows:
        row["counts"] = {level: asdict(found[row["kernel"]]) for level, found in counted.items()}
        row["instructions"] = row["counts"].get(row["isa"], {}).get("total")


def allowance(counted_with: dict[str, Any]) -> tuple[float, str]:
    """(factor for the ceilings of instructions, what to say): other compilers and interpreters count otherwise."""
    from bench.micro.instructions import compiler

    ours = {name: counted_with[name] for name in ("machine", "compiler", "python")}
    here = {
        "machine": platform.machine(),
        "compiler": compiler(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    if here == ours:
        return 1.0, ""
    said = f"ceilings of instructions are of {', '.join(ours.values())}; here it is {', '.join(here.values())}"
    if here["machine"] != ours["machine"]:
        return math.inf, f"NOT CHECKED: {said}"
    return counted_with["elsewhere"], f"{said}: held {counted_with['elsewhere']:g} times as high"


def check(rows: list[Row], budgets: dict[str, Any], factor: float = 1.0) -> list[str]:
    """What is broken of `budgets`: `ratio` floors by kernel, and ceilings of instructions times `factor`.

    `native` and `total` ceilings are by kernel and instruction set.
    """
    broken = []
    for row in rows:
        kernel = row["kernel"]
        floor = budgets["ratio"].get(kernel, {}).get(row["alternative"])
        if floor is not None and row["ratio"] < floor:
            broken.append(f"{kernel}: {row['ratio']} times {row['alternative']}, expected at least {floor}")
        for which, text in (("native", "instructions of ours"), ("total", "instructions in all")):
            for level, ceiling in budgets[which].get(kernel, {}).items():
                counted = (row["counts"] or {}).get(level, {}).get(which)
                if counted is not None and counted > ceiling * factor:
                    broken.append(f"{kernel} ({level}): {counted} {text}, expected at most {ceiling * factor:g}")
    return list(dict.fromkeys(broken))


def not_counted(rows: list[Row], budgets: dict[str, Any]) -> str:
    """Which ceilings of instructions nothing was held against; empty when there are none."""
    bounded = set(budgets["native"]) | set(budgets["total"])
    kernels = sorted({row["kernel"] for row in rows if row["counts"] is None} & bounded)
    if not kernels:
        return ""
    return f"the instructions of {len(kernels)} kernels were not counted, which takes valgrind: {', '.join(kernels)}"


def show(rows: list[Row]) -> None:
    print(f"20 ms frames, {platform.machine()}, kernels for {dispatch.ISA}, Python {platform.python_version()}")
    print("uplink_feed: no voice detector on either side; _1000 serves that many calls in rotation\n")
    print(f"{'kernel':<28}{'ns':>8}{'instead':>10}{'ratio':>8}{'instr':>8}  alternative")
    for row in rows:
        counted = "" if row["instructions"] is None else row["instructions"]
        print(
            f"{row['kernel']:<28}{row['ns_native']:>8.0f}{row['ns_alternative']:>10.0f}{row['ratio']:>8.1f}"
            f"{counted:>8}  {row['alternative']}"
        )
