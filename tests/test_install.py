"""What is installed works from anywhere: the command finds the server, whatever the current folder is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_command_runs_from_another_folder(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "talkspurt"
    if not command.exists():
        pytest.fail(f"{command} is not installed: make build")
    done = subprocess.run(
        [command, "--help"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout and "replay" in done.stdout
