"""A peer that cannot be installed says which step failed; one that is installed is not installed again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.peers.environment import STAMP, PeerMissing, prepare


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_an_environment_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("nothing==1\n")
    python = script(tmp_path / "python", "echo 'WARNING: noise' >&2; echo 'no ensurepip' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(PeerMissing, match=r"could not make the environment[^\n]*\nno ensurepip"):
        prepare(tmp_path / "peer", requirements)


def test_an_index_that_refuses_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("nothing==1\n")
    folder = tmp_path / "peer"
    inner = folder / "bin" / "python"
    refused = "echo 'no matching distribution' >&2; exit 1"
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", "exit 0")))
    script(inner, refused)
    with pytest.raises(PeerMissing, match="could not install from the package index"):
        prepare(folder, requirements)
    assert not (folder / STAMP).exists()
    script(inner, "exit 0")
    assert prepare(folder, requirements) == inner
    script(inner, refused)
    assert prepare(folder, requirements) == inner  # nothing is run
    requirements.write_text("nothing==2\n")
    with pytest.raises(PeerMissing):
        prepare(folder, requirements)
