"""The maker of regression captures, on asyncio's loop: a fresh call is decided as the kept one must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.captures.situation import NOT_YET, QUESTION
from bench.load.captured import from_captures
from server.call.capture_file import STEP
from server.call.recompute import decided
from server.call.replay import replay_capture
from tests.call.captured import record
from tests.call.expectation import Expectation, told
from tests.call.test_replay_foreign import changed, records_of, write
from tests.e2e.conftest import replay_all

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


def test_captures_that_the_other_tests_leave_are_all_replayed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As each test of this folder has done when it ends. A folder of its own: its own end is not meant to fail."""
    folder = tmp_path_factory.mktemp("run")
    capture = record(folder / "a" / "capture")
    (folder / "b").mkdir()
    other = (folder / "b" / "b.capture").resolve()
    other.write_bytes(capture.read_bytes())
    assert replay_all(folder) == 2
    write(other, changed(records_of(other), STEP, lambda step: [*step[:3], []]))
    with pytest.raises(AssertionError, match=r"b\.capture: \[Difference"):
        replay_all(folder)
    other.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="not a capture of a call"):
        replay_all(folder)
