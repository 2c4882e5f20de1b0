"""The load against the whole server: what it reads of our log and our captures is there, and the server passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from bench.load import bargein, soak
from bench.load.clips import interrupting, spoken
from bench.load.options import Options
from bench.load.report import Sound
from bench.load.rig import Bench
from tests.bench.load_target import SteadyFloor

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.timeout(120)
def test_an_interrupting_caller_is_served_and_the_decision_is_known(tmp_path: Path) -> None:
    bench = Bench(calibrate=lambda cores: SteadyFloor(), settle_s=0.1, ramp_per_s=50.0)
    options = Options(calls=2, seconds=7.0, pin=False)
    result = uvloop.run(bargein.run_with(None)(options, Sound(spoken(), interrupting()), bench))
    assert result["barge_ins"] >= 2
    assert result["barge_ins_cleared"] == result["barge_ins"]
    assert result["turns_completed"] == result["turns_expected"] >= 4
    assert result["stale_frames_after_clear"] == 0
    assert result["errors"] == 0
    # From the server's log and its captures.
    assert result["own_latency_ms"]["p50"] is not None
    assert result["decisions_found"] == result["barge_ins_cleared"]
    assert 0 < result["decision_to_clear_ms"]["p50"] < 200
    assert result["server_cpu_ms_per_call_s"] > 0
    assert result["problems"] == []


@pytest.mark.timeout(120)
def test_short_calls_leave_nothing_in_the_server() -> None:
    bench = Bench(calibrate=lambda cores: SteadyFloor(), quiet_s=0.5)
    options = Options(calls=6, seconds=0.0, pin=False)
    result = uvloop.run(soak.run_once(options, Sound(spoken(), interrupting()), bench, 20, 100.0, 5.0))
    assert result["turns_completed"] == result["turns_expected"] == 16
    assert result["problems"] == []
    # Counted, each of them: of the process, by its own metric, and in its Redis.
    assert result["threads"]["first"] >= 1 and result["fds"]["first"] > 10
    assert result["tasks"]["first"] >= 2 and result["database_connections"]["first"] >= 1
    assert result["broken"] == []
