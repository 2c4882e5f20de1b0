"""Several servers at several numbers of calls: what their callers noticed, where each knee is, one table, one plot.

What is held against a server is the same for all, and only what a caller notices: how a server paces or decides inside
is its own affair. The bounds leave room for a pipeline that is well but slower than ours; load is what breaks them.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.load.figure import table
from bench.load.knee import Knee, knee
from bench.load.plot import Line, Panel
from bench.load.verdict import Result

MAX_TURN_P95_MS = 800.0
"""Half a second of it is the silence after which both end a turn; an unloaded answer is 10 to 70 ms after that."""
MAX_CLEAR_P95_MS = 500.0
"""From the first sample of an interruption; unloaded it is 160 ms with ours, 340 to 370 with pipecat."""

Run = dict[str, Any]
Read = Callable[[Run], float | None]


def noticed(result: Result) -> list[str]:
    """What a caller has to complain about in one run; a server at its ease gives no reason."""
    if "failed" in result:
        return list(result["broken"])
    reasons = []
    expected, completed = result["turns_expected"], result["turns_completed"]
    if completed < expected:
        reasons.append(f"{expected - completed} of {expected} turns were not answered, or not with the right words")
    missed = result["barge_ins"] - result["barge_ins_cleared"]
    if missed:
        reasons.append(f"{missed} of {result['barge_ins']} interruptions were not cleared")
    for name, text in (
        ("broken_off", "answers ended before their end, though nobody interrupted"),
        ("errors", "calls failed or were complained about"),
        ("underruns", "times the sound stopped inside an utterance"),
        ("stale_frames_after_clear", "frames of a cancelled answer came after clear"),
    ):
        if result[name]:
            reasons.append(f"{result[name]} {text}")
    for name, text, most in (
        ("turn_latency_ms", "answers", MAX_TURN_P95_MS),
        ("time_to_clear_ms", "interruptions", MAX_CLEAR_P95_MS),
    ):
        value = result[name]["p95"]
        if value is None or value > most:
            reasons.append(f"{text} took {value} ms at p95, at most {most:g}")
    return reasons


def grouped(runs: Sequence[Run]) -> dict[tuple[str, int], list[Run]]:
    """The runs of each (server, calls), servers in their order and calls ascending.

    Where one of them is valid those that are not are left out: they say nothing.
    """
    servers = list(dict.fromkeys(one["server"] for one in runs))
    ordered = sorted(runs, key=lambda one: (servers.index(one["server"]), one["calls"]))
    groups: dict[tuple[str, int], list[Run]] = {}
    for one in ordered:
        groups.setdefault((one["server"], one["calls"]), []).append(one)
    return {key: [one for one in group if one["valid"]] or group for key, group in groups.items()}


def knees(runs: Sequence[Run]) -> dict[str, Knee]:
    """The knee of each server. Of several runs with the same number of calls half must have passed."""
    found: dict[str, list[Result]] = {}
    for (server, calls), group in grouped(runs).items():
        failed = sum(bool(one["noticed"]) for one in group)
        verdict = {"calls": calls, "valid": group[0]["valid"], "broken": 2 * failed > len(group)}
        found.setdefault(server, []).append(verdict)
    return {server: knee(verdicts) for server, verdicts in found.items()}


def share(name: str, which: str) -> Read:
    def read(one: Run) -> float | None:
        return None if one.get(name) is None else one[name][which]

    return read


def field(name: str, scale: float = 1.0) -> Read:
    def read(one: Run) -> float | None:
        value = one.get(name)
        return None if value is None else value * scale

    return read


COLUMNS: dict[str, tuple[Read, int]] = {
    "CPU ms/call-s": (field("server_cpu_ms_per_call_s"), 2),
    "MiB/call": (field("server_rss_kib_per_call_from_idle", 1 / 1024), 2),
    "own p50": (share("own_latency_ms", "p50"), 1),
    "own p99": (share("own_latency_ms", "p99"), 1),
    "turn p95": (share("turn_latency_ms", "p95"), 0),
    "clear p50": (share("time_to_clear_ms", "p50"), 0),
    "clear p95": (share("time_to_clear_ms", "p95"), 0),
    "underruns": (field("underruns"), 0),
}


def spread(values: Sequence[float | None], digits: int) -> str:
    """The median, and the least and the most where they differ as printed."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    least, middle, most = (f"{one:.{digits}f}" for one in (min(known), statistics.median(known), max(known)))
    return middle if least == most else f"{middle} ({least}-{most})"


def shown(runs: Sequence[Run]) -> str:
    """The table: one row for each server and number of calls; below it the knee of each, where there were several."""
    rows = [["server", "calls", "runs", *COLUMNS, "turns", "callers noticed"]]
    for (server, calls), group in grouped(runs).items():
        measured = [one for one in group if "failed" not in one]
        done, asked = (sum(one[f"turns_{name}"] for one in measured) for name in ("completed", "expected"))
        failed = sum(bool(one["noticed"]) for one in group)
        rows.append(
            [
                server,
                str(calls),
                str(len(group)) if group[0]["valid"] else f"{len(group)} invalid",
                *(spread([read(one) for one in measured], digits) for read, digits in COLUMNS.values()),
                f"{done}/{asked}",
                f"yes, in {failed}" if failed else "no",
            ]
        )
    found = knees(runs) if len({one["calls"] for one in runs}) > 1 else {}
    return "\n".join([table(rows), *(f"knee of {server}: {one}" for server, one in found.items())])


def panels(runs: Sequence[Run]) -> list[Panel]:
    """What is drawn: each figure against the number of calls, one line a server."""
    groups = grouped(runs)
    wanted = {
        "CPU, ms a call-second": COLUMNS["CPU ms/call-s"][0],
        "turn latency p95, ms": COLUMNS["turn p95"][0],
        "time to clear p95, ms": COLUMNS["clear p95"][0],
        "underruns": COLUMNS["underruns"][0],
    }
    found = []
    for title, read in wanted.items():
        lines: dict[str, Line] = {}
        for (server, calls), group in groups.items():
            values = [value for one in group if (value := read(one)) is not None]
            if values:
                _, numbers, medians = lines.setdefault(server, (server, [], []))
                numbers.append(calls)
                medians.append(statistics.median(values))
        if lines:
            found.append((title, list(lines.values())))
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on, for whoever reads the file later."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
