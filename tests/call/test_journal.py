"""A journal steps to the same actions again, and a changed decision shows."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from server.agent.settings import AgentSettings
from server.call.journal import Journal, JournalError, replay
from server.dialogue import event as ev
from tests.dialogue.driver import BASE, MS, RATE_HZ, Driver


class Journalled(Driver):
    """A driver whose every step goes to a journal, as the session's do."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.journal = Journal(path, "call-1", AgentSettings.parse(BASE), RATE_HZ)

    def step(self, event: ev.Event) -> list[ev.Action]:
        actions = super().step(event)
        self.journal.write(self.now_ns, event, actions)
        return actions


def record(path: Path) -> None:
    driver = Journalled(path)
    driver.begin()
    driver.speaks("tell me everything, ¿vale?")
    driver.wait(600)
    driver.replies("One two three four five.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause)
    driver.heard = ((clause, 4000, 8000),)
    driver.feed(ev.SpeechStarted(9000))
    driver.wait(200)
    driver.feed(ev.SpeechConfirmed())
    driver.feed(ev.SpeechStopped(9000, 9900, driver.now_ns - 200 * MS))
    driver.final("stop")
    driver.wait(600)
    driver.feed(ev.ReplyFailed(driver.reply_no, "down"))
    driver.play_all()
    driver.feed(ev.DigitReceived("1"), ev.StreamEnded("caller_hung_up"))
    driver.journal.close()


def test_journal_decides_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "call.jsonl"
    record(path)
    steps = list(replay(path))
    assert len(steps) > 25
    assert {type(event) for _, event, _, _ in steps} >= {ev.PlayoutCleared, ev.TimerFired, ev.ReplyFailed}
    for now_ns, event, recorded, decided in steps:
        assert recorded == decided, f"{now_ns} {event}"


def test_changed_decision_shows(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    record(path)
    lines = path.read_bytes().splitlines(keepends=True)
    head = orjson.loads(lines[0])
    head["settings"]["opening"]["text"] = "Another opening."
    path.write_bytes(orjson.dumps(head) + b"\n" + b"".join(lines[1:]))
    assert any(recorded != decided for _, _, recorded, decided in replay(path))


@pytest.mark.parametrize("first", [b"", b"hello\n", b'{"journal":99}\n', b"[]\n"])
def test_strange_file_is_refused(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "call.jsonl"
    path.write_bytes(first)
    with pytest.raises(JournalError):
        list(replay(path))


def test_unwritable_folder_ends_the_journal_not_the_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file" / "call.jsonl", "call-1", AgentSettings.parse(BASE), RATE_HZ)
    assert journal.failed
    journal.write(0, ev.CallBegan(), [])
    journal.close()
