"""Short runs of latency, bargein, soak and micro, compared with budgets.toml in ratios and counts: `make bench`.

Longer than five minutes is a failure too. The first load whose run is invalid (the machine was used by somebody else
meanwhile) is done again; a further invalid run is a failure, because nothing was shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import micro
from bench.load import bargein, latency, soak
from bench.load.verdict import Result
from bench.micro import not_counted
from bench.out_file import out_file

BUDGETS = Path(__file__).parents[1] / "budgets.toml"
MICRO = ["--check", "--instructions", "--rounds", "10"]
MAX_S = 300.0
RETRIES = 1
"""Of all loads together: more would take longer than MAX_S."""
Main = Callable[[list[str]], int]


@dataclass(frozen=True, slots=True)
class Step:
    """One bench as it is run here."""

    name: str
    main: Main
    arguments: list[str]


def steps(budgets: dict[str, Any]) -> list[Step]:
    clear_ms = str(budgets["bargein"]["time_to_clear_p95_ms"])
    growth = str(budgets["soak"]["rss_growth_percent"])
    return [
        Step("latency", latency.main, ["--calls", "20", "--seconds", "8"]),
        Step(
            "bargein", bargein.main,
            ["--calls", "10", "--seconds", "12", "--vad", "silero", "--max-clear-ms", clear_ms],
        ),
        Step(
            "soak", soak.main,
            ["--calls", "120", "--at-once", "30", "--quiet-s", "5", "--max-growth-percent", growth],
        ),
    ]  # fmt: skip


def over_budget(result: Result, budget: dict[str, float]) -> list[str]:
    """Ceilings that a result passes, or of which it has no figure: nothing was shown then."""
    found = []
    for name, ceiling in budget.items():
        value = figure(result, name)
        if value is None:
            found.append(f"{name} is not known, at most {ceiling:g}")
        elif value > ceiling:
            found.append(f"{name} {value:g}, at most {ceiling:g}")
    return found


def figure(result: Result, name: str) -> float | None:
    """`turn_latency_p95_ms` is `result["turn_latency_ms"]["p95"]`, other names are fields. Raises KeyError."""
    head, _, tail = name.removesuffix("_ms").rpartition("_")
    value = result[f"{head}_ms"][tail] if tail in ("p50", "p95", "p99") else result[name]
    return None if value is None else float(value)


class Runner:
    """Runs the loads, one after the other; holds what may still be done again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._retries = RETRIES

    def run(self, step: Step, budget: dict[str, float]) -> tuple[list[str], Result | None]:
        """(what is wrong, the result). A bench that could not measure anything has no result."""
        result = self._once(step)
        if result is not None and not result["valid"] and self._retries:
            self._retries -= 1
            print(f"{step.name}: the run is invalid and is done again", file=sys.stderr)
            result = self._once(step)
        if result is None:
            return ["nothing could be measured"], None
        invalid = [f"invalid: {why}" for why in result["why_invalid"]]
        return [*result["broken"], *invalid, *over_budget(result, budget)], result

    def _once(self, step: Step) -> Result | None:
        out = self._folder / f"{step.name}.json"
        code = step.main([*step.arguments, "--json", str(out)])
        return None if code == 2 else json.loads(out.read_text())


def main(argv: list[str], micro_main: Main | None = None, chosen: Sequence[Step] | None = None) -> int:
    """Returns 0 when everything is within its budget, else 1. The two other arguments are for the bench's own tests."""
    parser = argparse.ArgumentParser(prog="python -m bench check", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=out_file, metavar="FILE", help="write all results here")
    asked = parser.parse_args(argv)
    began = time.monotonic()
    budgets = tomllib.loads(BUDGETS.read_text())["load"]
    if micro_main is None:
        micro_main = micro.main
    wrong: dict[str, list[str]] = {}
    results: dict[str, Result | None] = {}
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        runner = Runner(Path(folder))
        for step in steps(budgets) if chosen is None else chosen:
            print(f"\n── {step.name} {' '.join(step.arguments)}")
            wrong[step.name], results[step.name] = runner.run(step, budgets[step.name])
        print(f"\n── micro {' '.join(MICRO)}")
        rows = Path(folder) / "micro.json"
        code = micro_main([*MICRO, "--json", str(rows)])
        missing = not_counted(json.loads(rows.read_text()), tomllib.loads(BUDGETS.read_text()))
    wrong["micro"] = ["a kernel is not within its budget, or was not measured"] if code else []
    took_s = time.monotonic() - began
    wrong["time"] = [f"took {took_s:.0f} s, at most {MAX_S:.0f}"] if took_s > MAX_S else []
    print()
    for name, reasons in wrong.items():
        print(f"{name}: {'ok' if not reasons else 'FAILED'}")
        for why in reasons:
            print(f"  {why}")
    print(f"{took_s:.0f} s")
    if missing:
        print(f"NOT CHECKED: {missing}", file=sys.stderr)
    if asked.json:
        report = {"results": results, "wrong": wrong, "not_checked": missing, "seconds": round(took_s)}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(wrong.values()))
