"""Sampled stacks: what is counted, under which name, and that the sampled process is the server."""

from __future__ import annotations

import subprocess
import sys
from asyncio import Runner
from collections import Counter
from pathlib import Path

import pytest

from bench.load.stacks import folded, shares, show
from server.call.downlink import Downlink
from server.dialogue.conversation import Conversation

CAPTURE = Path(__file__).parents[1] / "data" / "captures" / "cough.capture"
LOOP, SEND, STEP = Runner.run.__code__, Downlink.tick.__code__, Conversation.step.__code__


def test_stacks_begin_at_the_event_loop_and_name_their_files() -> None:
    start = test_stacks_begin_at_the_event_loop_and_name_their_files.__code__
    counted = Counter({(SEND, LOOP, start): 3, (STEP, SEND, LOOP): 2, (start,): 9})
    assert folded(counted) == {
        "Runner.run@asyncio/runners.py;Downlink.tick@server/call/downlink.py": 3,
        "Runner.run@asyncio/runners.py;Downlink.tick@server/call/downlink.py;"
        "Conversation.step@server/dialogue/conversation.py": 2,
    }


def test_a_library_counts_for_the_file_of_ours_that_called_it() -> None:
    lines = [
        "Runner.run@asyncio/runners.py 2",
        "Runner.run@asyncio/runners.py;a@server/logs.py;put@python3.11/queue.py 5",
        "Runner.run@asyncio/runners.py;a@server/logs.py;a@server/logs.py 1",
    ]
    total, files, functions = shares(lines)
    assert total == 8
    assert files == [("server/logs.py", 0.75), ("asyncio/runners.py", 0.25)]
    assert dict(functions) == {
        "Runner.run@asyncio/runners.py": 1.0,
        "a@server/logs.py": 0.75,
        "put@python3.11/queue.py": 5 / 8,
    }


def test_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("Runner.run@asyncio/runners.py;a@server/logs.py 3\n")
    (tmp_path / "b").write_text("Runner.run@asyncio/runners.py 1\n")
    show([tmp_path / "a", tmp_path / "b"])
    printed = capsys.readouterr().out
    assert "4 samples" in printed and "75.0%  server/logs.py" in printed


@pytest.mark.slow
def test_the_program_runs_and_ends_as_it_would(tmp_path: Path) -> None:
    def ended(*arguments: str) -> int:
        command = [sys.executable, "-m", "bench.load.stacks", "run", str(tmp_path / "out"), "replay", *arguments]
        return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False).returncode

    assert ended(str(CAPTURE)) == 0
    assert (tmp_path / "out").read_text() == ""  # a replay has no event loop
    assert ended(str(tmp_path / "out")) == 2
