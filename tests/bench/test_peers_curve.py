"""Servers side by side: what callers notice, where each one's knee is, and how runs are pooled. No server is run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.peers import run
from bench.peers.curve import MAX_CLEAR_P95_MS, MAX_TURN_P95_MS, knees, noticed, panels, shown

WELL: dict[str, Any] = {
    "server": "talkspurt",
    "calls": 4,
    "valid": True,
    "why_invalid": [],
    "turns_expected": 12,
    "turns_completed": 12,
    "barge_ins": 4,
    "barge_ins_cleared": 4,
    "broken_off": 0,
    "errors": 0,
    "underruns": 0,
    "stale_frames_after_clear": 0,
    "turn_latency_ms": {"p50": 505.0, "p95": 520.0, "p99": 521.0},
    "time_to_clear_ms": {"p50": 160.0, "p95": 161.0, "p99": 161.0},
    "own_latency_ms": {"p50": 0.4, "p95": 0.5, "p99": 0.6},
    "server_cpu_ms_per_call_s": 2.0,
    "server_rss_kib_per_call_from_idle": 512.0,
    "noticed": [],
}


def of(server: str, calls: int, **changed: Any) -> dict[str, Any]:
    one = WELL | {"server": server, "calls": calls} | changed
    return one | {"noticed": noticed(one)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"turns_completed": 11}, "1 of 12 turns"),
        ({"barge_ins_cleared": 3}, "1 of 4 interruptions"),
        ({"broken_off": 2}, "2 answers ended"),
        ({"errors": 1}, "1 calls failed"),
        ({"underruns": 3}, "3 times the sound stopped"),
        ({"stale_frames_after_clear": 5}, "5 frames of a cancelled answer"),
        ({"turn_latency_ms": {"p95": MAX_TURN_P95_MS + 1}}, "answers took 801"),
        ({"turn_latency_ms": {"p95": None}}, "answers took None"),
        ({"time_to_clear_ms": {"p95": MAX_CLEAR_P95_MS + 1}}, "interruptions took 501"),
    ],
)
def test_each_thing_that_callers_notice_is_told(change: dict[str, Any], reason: str) -> None:
    assert noticed(WELL) == []
    (told,) = noticed(WELL | change)
    assert told.startswith(reason)


def test_a_server_that_died_is_noticed_and_does_not_spoil_the_table() -> None:
    dead = {"server": "pipecat", "calls": 9, "failed": "not ready", "valid": True, "broken": ["not ready"]}
    runs = [of("pipecat", 4), dead | {"noticed": noticed(dead)}]
    assert runs[1]["noticed"] == ["not ready"]
    assert "knee of pipecat: 4 calls" in shown(runs)
    assert panels(runs)[0] == ("CPU, ms a call-second", [("pipecat", [4], [2.0])])


def test_a_knee_is_where_half_of_the_valid_runs_still_pass() -> None:
    runs = [
        *(of("talkspurt", calls) for calls in (4, 100)),
        *(of("pipecat", 4, underruns=n) for n in (1, 0)),
        of("pipecat", 6, valid=False),
        *(of("pipecat", 8, underruns=n) for n in (0, 7, 7)),
        of("pipecat", 8, valid=False),
    ]
    found = knees(runs)
    assert str(found["talkspurt"]) == ">= 100 calls (not reached)"
    assert str(found["pipecat"]) == "4 calls; skipped as invalid: 6"


def test_the_table_has_the_spread_and_leaves_out_what_says_nothing() -> None:
    runs = [
        *(of("pipecat", 4, server_cpu_ms_per_call_s=ms) for ms in (43.0, 41.0, 47.5)),
        of("pipecat", 4, server_cpu_ms_per_call_s=99.0, valid=False),
        of("pipecat", 8, valid=False, time_to_clear_ms={"p50": None, "p95": None, "p99": None}),
    ]
    head, four, eight, knee = shown(runs).splitlines()
    assert head.split()[:3] == ["server", "calls", "runs"]
    assert four.split()[:5] == ["pipecat", "4", "3", "43.00", "(41.00-47.50)"]
    assert four.endswith("36/36               no") and " 0.50 " in four
    assert "1 invalid" in eight and "-  " in eight and eight.endswith("yes, in 1")
    assert knee == "knee of pipecat: >= 4 calls (not reached); skipped as invalid: 8"


def test_lines_are_drawn_for_each_server() -> None:
    runs = [of("talkspurt", 4), of("talkspurt", 8), of("pipecat", 4, underruns=2), of("pipecat", 4, underruns=4)]
    drawn = dict(panels(runs))
    assert drawn["underruns"] == [("talkspurt", [4, 8], [0, 0]), ("pipecat", [4], [3])]


def test_a_curve_ends_where_callers_notice_and_repeats_what_was_invalid() -> None:
    results = {4: [of("x", 4, valid=False), of("x", 4)], 8: [of("x", 8, underruns=1), of("x", 8)]}
    results |= {16: [of("x", 16, underruns=n) for n in (1, 2)], 32: [of("x", 32)]}
    done = run.climbed([4, 8, 16, 32], lambda calls: results[calls].pop(0))
    assert [one["calls"] for one in done] == [4, 4, 8, 8, 16, 16]
    alone = run.climbed([4], lambda calls: of("x", calls, valid=False))
    assert len(alone) == 1


def test_files_are_pooled_and_judged_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps({"peers": [WELL, WELL | {"server": "pipecat"}]}))
    files[1].write_text(json.dumps({"peers": [WELL | {"server": "pipecat", "calls": 8, "underruns": 9}]}))
    out = tmp_path / "all.json"
    assert run.main(["--show", *map(str, files), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "knee of talkspurt: >= 4 calls (not reached)\nknee of pipecat: 4 calls\n" in printed
    written = json.loads(out.read_text())
    assert written["knee"]["pipecat"]["calls"] == 4 and written["knee"]["pipecat"]["reached"]
    assert len(written["peers"]) == 3
    assert written["machine"]["cores"] == len(os.sched_getaffinity(0)) and written["command"].startswith("--show ")
    files[0].write_text("[]")
    assert run.main(["--show", *map(str, files)]) == 2
    assert "a.json: not written by" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--curve", "4,many"]) == 2
    assert "numbers of calls like" in capsys.readouterr().err
