"""The maker of regression captures, on asyncio's loop: a fresh call is decided as the kept one must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.captures.situation import NOT_YET, QUESTION
from bench.load.captured import from_captures
from server.call.recompute import decided
from server.call.replay import replay_capture
from tests.call.expectation import Expectation, told

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ROOT / "tests" / "data" / "captures"

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(90)]


def test_a_call_captured_on_asyncios_loop_is_decided_as_expected(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "captures", "--only", "barge_in_sentence", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=80, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    path = tmp_path / "barge_in_sentence.capture"
    assert replay_capture(path).is_same
    # The load's callers can be made of it: they say what was said in this call, sample by sample.
    assert [clip.pcmu for clip in from_captures(path)] == [QUESTION.pcmu, NOT_YET.pcmu]
    log = decided(path)
    unmet = Expectation.load(BESIDE / "barge_in_sentence.yaml").unmet(log)
    assert not unmet, "\n".join([*unmet, told(log)])
