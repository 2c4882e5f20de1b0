"""`make bench`: budgets name what results have, and each way of failing fails it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.load import check
from bench.load.check import Step, figure, over_budget

BUDGETS = tomllib.loads(check.BUDGETS.read_text())["load"]
RESULT: dict[str, Any] = {
    "valid": True,
    "broken": [],
    "why_invalid": [],
    "cpu_of_floor": 10.0,
    "server_rss_kib_per_call": 300.0,
    "turn_latency_ms": {"p50": 506.0, "p95": 509.0, "p99": 510.0},
    "own_latency_ms": {"p50": 0.4, "p95": 0.7, "p99": 1.0},
    "time_to_clear_ms": {"p50": 200.0, "p95": 201.0, "p99": 201.0},
    "decision_to_clear_ms": {"p50": 0.2, "p95": 0.5, "p99": 0.5},
    "false_pauses_per_minute": None,
    "rss_growth_percent": 1.0,
}


def run(
    tmp_path: Path, *results: dict[str, Any], micro: int = 0, code: int = 0, rows: Sequence[dict[str, Any]] = ()
) -> tuple[int, dict[str, Any], int]:
    """(exit code, report, runs) of a check whose only load gives `results` one after the other."""
    runs = 0

    def load(argv: list[str]) -> int:
        nonlocal runs
        Path(argv[argv.index("--json") + 1]).write_text(json.dumps(results[min(runs, len(results) - 1)]))
        runs += 1
        return code

    def kernels(argv: list[str]) -> int:
        Path(argv[argv.index("--json") + 1]).write_text(json.dumps(rows))
        return micro

    out = tmp_path / "check.json"
    step = Step("latency", load, ["--calls", "1"])
    exit_code = check.main(["--json", str(out)], kernels, [step])
    return exit_code, json.loads(out.read_text()), runs


def test_all_is_well(tmp_path: Path) -> None:
    assert run(tmp_path, RESULT)[0] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cpu_of_floor": 100.0}, "cpu_of_floor 100"),
        ({"cpu_of_floor": 13.0}, "cpu_of_floor 13, at most 12"),
        ({"server_rss_kib_per_call": 9000.0}, "server_rss_kib_per_call 9000"),
        ({"server_rss_kib_per_call": None}, "server_rss_kib_per_call is not known"),
        ({"turn_latency_ms": {"p50": 540.0}}, "turn_latency_p50_ms 540, at most 530"),
        ({"own_latency_ms": {"p50": 2.0}}, "own_latency_p50_ms 2, at most 1.5"),
        ({"broken": ["1 of 10 turns were not answered"]}, "1 of 10 turns"),
    ],
)
def test_a_regression_fails(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    code, report, runs = run(tmp_path, RESULT | change)
    assert (code, runs) == (1, 1)
    assert any(reason in why for why in report["wrong"]["latency"])


def test_an_invalid_run_is_tried_again_once(tmp_path: Path) -> None:
    invalid = RESULT | {"valid": False, "why_invalid": ["the echo floor moved"]}
    assert run(tmp_path, invalid, RESULT)[::2] == (0, 2)
    assert run(tmp_path, invalid, invalid)[::2] == (1, 2)


def test_a_slow_kernel_and_a_server_that_does_not_start_fail(tmp_path: Path) -> None:
    assert run(tmp_path, RESULT, micro=1)[0] == 1
    code, report, _ = run(tmp_path, RESULT, code=2)
    assert code == 1
    assert report["wrong"]["latency"] == ["nothing could be measured"]


def test_what_takes_too_long_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, RESULT)[1]["wrong"]["time"] == []
    monkeypatch.setattr(check, "MAX_S", 0.0)
    code, report, _ = run(tmp_path, RESULT)
    assert code == 1 and report["wrong"]["time"] == ["took 0 s, at most 0"]


def test_instructions_that_were_not_counted_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"kernel": "fir_8_16", "isa": "avx2", "counts": {}}
    assert run(tmp_path, RESULT, rows=[row])[1]["not_checked"] == ""
    assert "NOT CHECKED" not in capsys.readouterr().err
    code, report, _ = run(tmp_path, RESULT, rows=[row | {"counts": None}])
    assert code == 0 and "1 kernels were not counted" in report["not_checked"]
    assert capsys.readouterr().err.endswith("which takes valgrind: fir_8_16\n")


def test_the_readme_names_the_parts_as_they_are_run() -> None:
    lines = (check.BUDGETS.parent / "README.md").read_text().splitlines()
    (row,) = (one for one in lines if one.startswith("| `python -m bench check`"))
    told = re.findall(r"`((?:latency|bargein|soak|micro)\b[^`]*)`", row)
    ran = [" ".join([step.name, *step.arguments]) for step in check.steps(BUDGETS)]
    # Bounds come from the budgets.
    ran = [re.sub(r" --max-\S+ \S+", "", one) for one in ran]
    assert told == [*ran, " ".join(["micro", *check.MICRO])]


def test_budgets_are_of_steps_and_of_fields_that_exist() -> None:
    assert set(BUDGETS) == {step.name for step in check.steps(BUDGETS)}
    for budget in BUDGETS.values():
        for name in budget:
            figure(RESULT, name)
    assert over_budget(RESULT, {"time_to_clear_p95_ms": 200.5}) == ["time_to_clear_p95_ms 201, at most 200.5"]
    assert over_budget(RESULT, {"false_pauses_per_minute": 1.0}) == ["false_pauses_per_minute is not known, at most 1"]
    with pytest.raises(KeyError):
        over_budget(RESULT, {"no_such_figure": 1.0})
