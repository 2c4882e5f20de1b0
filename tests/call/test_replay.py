"""`talkspurt replay`: one hash for the same decisions, the first difference for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.__main__ import main
from server.call.capture_file import END, HEAD, Head, Step, frame, read
from server.call.replay import MAX_DIFFERENCES, replay_capture, steps
from server.dialogue import event as ev
from tests.call.captured import inflated, packed, record


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    return record(tmp_path / "capture")


def test_a_thousand_replays_give_one_hash(captured: Path) -> None:
    results = [replay_capture(captured) for _ in range(1000)]
    assert {one.decided_hash for one in results} == {results[0].recorded_hash}
    assert results[0].is_same and results[0].steps > 25 and not results[0].differences


def test_each_step_decides_the_same_again(captured: Path) -> None:
    found = list(steps(captured))
    assert {type(event) for _, event, _, _ in found} >= {ev.PlayoutCleared, ev.TimerFired, ev.ReplyFailed}
    for now_ns, event, recorded, decided in found:
        # The one thing that a capture changes: a secret in a provider's words.
        assert recorded == decided, f"{now_ns} {event}"


def test_other_settings_show_what_they_would_have_decided(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = tmp_path / "agent.yaml"
    agent.write_text("name: Other\nnumbers: []\nopening: {text: 'Another opening.'}\n")
    assert main(["replay", str(captured), "--against", str(agent)]) == 1
    out = capsys.readouterr().out
    assert "Another opening." in out and "steps differ" in out
    assert main(["replay", str(captured), "--against", str(agent), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False and found["differences"][0]["step"] == 1
    assert len(found["differences"]) <= MAX_DIFFERENCES


def test_the_same_is_said_and_exits_with_0(captured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(captured)]) == 0
    assert "the same as recorded" in capsys.readouterr().out


def test_what_is_no_capture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.capture").write_text("hello\n")
    assert main(["replay", str(tmp_path / "x.capture")]) == 2
    assert main(["replay", str(tmp_path / "none.capture")]) == 2
    assert "not a capture" in capsys.readouterr().err


def test_without_audio_nothing_can_be_recomputed(captured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(captured), "--recompute"]) == 2
    assert "capture.audio" in capsys.readouterr().err


def altered(path: Path, before: bytes, after: bytes) -> Path:
    """The same capture with other words in it."""
    data, out, at = inflated(path), b"", 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "little")
        out += frame(data[at], data[at + 5 : end].replace(before, after))
        at = end
    other = path.with_name("other.capture")
    other.write_bytes(packed(out))
    return other


def test_another_word_is_another_hash(captured: Path) -> None:
    heard = b'"TranscriptFinal",{"utterance_no":1,"text":"tell me '
    other = altered(captured, heard + b"everything", heard + b"nothing")
    assert sum(isinstance(one, Step) for one in read(other)) == replay_capture(captured).steps
    result = replay_capture(other)
    assert result.decided_hash != replay_capture(captured).decided_hash and not result.is_same


def test_an_unknown_event_or_setting_is_of_another_version(captured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for before, after in ((b'"DigitReceived"', b'"DigitDreamt"'), (b'"idle_timeout_ms"', b'"idle_dreams_ms"')):
        assert main(["replay", str(altered(captured, before, after))]) == 2
        assert "another version" in capsys.readouterr().err


def test_a_cut_capture_says_so(captured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = captured.read_bytes()
    captured.write_bytes(raw[: len(raw) * 2 // 3])
    assert main(["replay", str(captured)]) == 0
    assert "ends before the call" in capsys.readouterr().out
    assert isinstance(next(read(captured)), Head)


def after_each_other(path: Path, *, middle: bytes, names: tuple[str, ...]) -> Path:
    """The recorded talk in two parts, the second of a stream that went on; `middle` ends the first."""
    records, at = [], 0
    data = inflated(path)
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "little")
        records.append(data[at:end])
        at = end
    head, *rest = records
    half = len(rest) // 2
    resumed = head[5:].replace(b'"resumed":false', b'"resumed":true')
    parts = {
        "first": packed(head + b"".join(rest[:half]) + middle),
        "lost": b"",
        "second": packed(frame(HEAD, resumed) + b"".join(rest[half + ("lost" in names) * 4 :])),
    }
    path.write_bytes(b"".join(parts[name] for name in names))
    return path


@pytest.mark.parametrize("middle", [b"", frame(END, b'[0,"",true,{}]')])
def test_a_stream_that_went_on_after_a_loss_accuses_nobody(
    middle: bytes, captured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = replay_capture(captured).steps
    after_each_other(captured, middle=middle, names=("first", "lost", "second"))
    result = replay_capture(captured)
    assert result.is_same and result.is_cut and result.has_gap and 0 < result.steps < whole
    assert main(["replay", str(captured)]) == 0
    said = capsys.readouterr().out
    assert "what came between is missing" in said and "differ" not in said
    assert main(["replay", str(captured), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gap"] is True


def test_a_stream_that_went_on_where_the_one_before_ended_is_decided(captured: Path) -> None:
    whole = replay_capture(captured)
    ended = frame(END, b'[0,"media_lost",false,{}]')
    result = replay_capture(after_each_other(captured, middle=ended, names=("first", "second")))
    assert (result.steps, result.decided_hash) == (whole.steps, whole.decided_hash)
    assert result.is_same and not result.is_cut and not result.has_gap


def test_a_capture_without_its_first_stream_is_refused(captured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(after_each_other(captured, middle=b"", names=("second",)))]) == 2
    assert "begins in the middle of the call" in capsys.readouterr().err
