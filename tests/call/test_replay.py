"""`talkspurt replay`: one hash for the same decisions, the first difference for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.__main__ import main
from server.call.replay import MAX_DIFFERENCES, replay_journal
from tests.call.test_journal import record


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "call.jsonl"
    record(path)
    return path


def test_a_thousand_replays_give_one_hash(journal: Path) -> None:
    results = [replay_journal(journal) for _ in range(1000)]
    assert {one.decided_hash for one in results} == {results[0].recorded_hash}
    assert results[0].is_same and results[0].steps > 25 and not results[0].differences


def test_the_hash_is_known() -> None:
    """The same on every machine and event loop: nothing but the journal decides it."""
    path = Path(__file__).parents[1] / "data" / "journal_barge_in.jsonl"
    result = replay_journal(path)
    assert result.is_same
    assert result.decided_hash == (path.with_suffix(".sha256")).read_text().strip()


def test_other_settings_show_what_they_would_have_decided(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = tmp_path / "agent.yaml"
    agent.write_text("name: Other\nnumbers: []\nopening: {text: 'Another opening.'}\n")
    assert main(["replay", str(journal), "--against", str(agent)]) == 1
    out = capsys.readouterr().out
    assert "Another opening." in out and "steps differ" in out
    assert main(["replay", str(journal), "--against", str(agent), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False and found["differences"][0]["step"] == 1
    assert len(found["differences"]) <= MAX_DIFFERENCES


def test_the_same_is_said_and_exits_with_0(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(journal)]) == 0
    assert "the same as recorded" in capsys.readouterr().out


def test_what_is_no_journal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.jsonl").write_text("hello\n")
    assert main(["replay", str(tmp_path / "x.jsonl")]) == 2
    assert main(["replay", str(tmp_path / "none.jsonl")]) == 2
    assert "not a journal" in capsys.readouterr().err


def test_a_changed_line_changes_the_hash(journal: Path) -> None:
    before = replay_journal(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if b'"TranscriptFinal"' in line)
    journal.write_bytes(b"".join([*lines[:at], lines[at].replace(b"everything", b"nothing"), *lines[at + 1 :]]))
    assert replay_journal(journal).decided_hash != before.decided_hash
