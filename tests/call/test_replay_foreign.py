"""`talkspurt replay` of files that nobody of ours wrote, or that broke: one line, exit status 2, never a traceback."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.__main__ import main
from server.call.capture_file import HEAD, MAGIC, NOTE, STEP, TAPE, frame
from server.call.shape import fits
from tests.call.captured import inflated, packed, record
from tests.node.test_doctor import ROOT

WITH_AUDIO = sorted((ROOT / "tests" / "data" / "captures").glob("*.capture"))[0]
JUNK: tuple[Any, ...] = (None, True, -1, 2**40, 1.5, "", "x" * 9, "\0", [], {}, [1], [["a"]], {"a": 1})
MUTATIONS = 400


def records_of(path: Path) -> list[tuple[int, bytes]]:
    data, at, found = inflated(path), 0, []
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "little")
        found.append((data[at], data[at + 5 : end]))
        at = end
    return found


def write(path: Path, records: list[tuple[int, bytes]]) -> Path:
    path.write_bytes(packed(b"".join(frame(kind, body) for kind, body in records)))
    return path


def changed(records: list[tuple[int, bytes]], kind: int, change: Callable[[Any], Any]) -> list[tuple[int, bytes]]:
    """The first record of this kind with another body."""
    at = next(number for number, one in enumerate(records) if one[0] == kind)
    body = orjson.dumps(change(orjson.loads(records[at][1])))
    return [*records[:at], (kind, body), *records[at + 1 :]]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said when it is refused: one line."""
    status = main(["replay", *arguments])
    out, errors = capsys.readouterr()
    assert (status, out) == (2, "")
    assert errors.startswith("talkspurt: ") and errors.count("\n") == 1 and errors.endswith("\n")
    return errors


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00name", "utf-8"),
        (b"name: [unclosed", "not YAML"),
        (b"\x00\x01", "not YAML"),
        (b"- a\n- b\n", "expected a mapping"),
        (b"colour: red\n", "colour: unknown setting"),
        (b"[" * 20_000, "nested deeper"),
        (b"", "expected a mapping"),
    ],
)
def test_settings_that_cannot_be_read(
    content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = tmp_path / "agent.yaml"
    agent.write_bytes(content)
    said = refusal([str(record(tmp_path / "capture")), "--against", str(agent)], capsys)
    assert said.startswith(f"talkspurt: {agent}: ") and says in said
    said = refusal([str(tmp_path / "none.capture"), "--against", str(tmp_path / "none.yaml")], capsys)
    assert said == f"talkspurt: {tmp_path / 'none.yaml'}: No such file or directory\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a capture of a call"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a capture of a call"),
        (MAGIC, "nothing of it can be read"),
        (MAGIC + b"\x11\0\0\0\0\0\0\0" + b"\xff" * 16, "nothing of it can be read"),
        (MAGIC + b"\x10\0\0\0\0\0\0\0" + b"\xff" * 16, "damaged: the block at byte 14"),
        (packed(b"\xff" * 64), "longer than records are"),
        (packed(frame(STEP, b'[1,"CallBegan",{},[]]')), "does not begin with"),
        (packed(frame(HEAD, b"not JSON")), "a damaged record"),
        (packed(frame(HEAD, b'"text"')), "of version 1"),
        (packed(frame(HEAD, b'{"capture":99}')), "of version 1"),
        (packed(frame(HEAD, b'{"capture":1}')), "a damaged record"),
        (packed(frame(ord("?"), b"[]")), "a damaged record"),
    ],
)
def test_what_is_no_capture(content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "foreign.capture"
    path.write_bytes(content)
    for more in ([], ["--recompute"]):
        said = refusal([str(path), *more], capsys)
        assert said.startswith(f"talkspurt: {path}: ") and says in said


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        (HEAD, lambda head: head | {"rate_hz": "8000"}, "Head.rate_hz: str has no place here"),
        (HEAD, lambda head: head | {"settings": []}, "Head.settings: list has no place here"),
        (HEAD, lambda head: head | {"colour": 1}, "colour"),
        (STEP, lambda step: {"name": step[1]}, "a damaged record"),
        (STEP, lambda step: [*step[:2], [], step[3]], "Step.values: list has no place here"),
        (STEP, lambda step: [*step[:3], [["Speak"]]], "an action that is none"),
        (STEP, lambda step: [step[0], "DigitReceived", {"digit": 1}, []], "DigitReceived.digit: int has no place here"),
        (STEP, lambda step: [step[0], "DigitReceived", {}, []], "made by another version"),
        (STEP, lambda step: [step[0], "PlayoutCleared", {"heard": [[1, 2]]}, []], "PlayoutCleared.heard"),
    ],
)
def test_a_record_of_another_form_is_named(
    kind: int, change: Callable[[Any], Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = records_of(record(tmp_path / "capture"))
    assert says in refusal([str(write(tmp_path / "other.capture", changed(records, kind, change)))], capsys)


def mutated(records: list[tuple[int, bytes]], dice: random.Random) -> list[tuple[int, bytes]]:
    """Somewhere in one record, or in their order, something that does not belong there."""
    at = dice.randrange(len(records)) if dice.random() < 0.7 else 0
    kind, body = records[at]
    match dice.randrange(10):
        case 0:
            return [*records[:at], *records[at + 1 :]]
        case 1:
            return [*records[:at], dice.choice(records), *records[at:]]
        case 2:
            kind = dice.choice(b"HTMSANE?")
        case _ if kind == TAPE:
            place = dice.randrange(max(1, len(body)))
            body = body[:place] + dice.randbytes(1) + body[place + 1 :]
        case _:
            body = orjson.dumps(_with_junk(orjson.loads(body), dice))
    return [*records[:at], (kind, body), *records[at + 1 :]]


def _with_junk(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict | list) and value and dice.random() < 0.85:
        key: Any = dice.choice(list(value)) if isinstance(value, dict) else dice.randrange(len(value))
        value[key] = _with_junk(value[key], dice)
        return value
    return dice.choice(JUNK)


def test_whatever_stands_in_a_file_it_is_replayed_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talks = [records_of(record(tmp_path / "capture")), records_of(WITH_AUDIO)]
    seen = {0: 0, 1: 0, 2: 0}
    for seed in range(MUTATIONS):
        dice = random.Random(seed)
        path = write(tmp_path / "other.capture", mutated(dice.choice(talks), dice))
        status = main(["replay", str(path), *(["--recompute"] if seed % 10 == 0 else [])])
        errors = capsys.readouterr().err
        assert errors.count("\n") == (1 if status == 2 else 0), f"seed {seed}: {errors}"
        seen[status] += 1
    assert seen[2] > MUTATIONS // 4 and seen[0] and seen[1]


def test_one_flipped_bit_is_damage_wherever_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flipped.capture"
    cough = WITH_AUDIO.with_name("cough.capture").read_bytes()
    last, at = 0, len(MAGIC)
    while at < len(cough):  # to the last block; of a cut one nothing is read
        last, at = at, at + 8 + (int.from_bytes(cough[at : at + 4], "little") & 0x7FFF_FFFF)
    for raw, readable in ((cough, len(cough)), (cough + cough[: last + 20], len(cough) + last)):
        dice, first_block = random.Random(1), len(MAGIC) * 8
        for bit in (*range(first_block + 64), *(dice.randrange(readable * 8) for _ in range(100))):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            said = refusal([str(path)], capsys)
            assert any(why in said for why in ("not a capture", "damaged", "not deflated", "tape")), f"{bit}: {said}"
        # Without it there is nothing to refuse.
        path.write_bytes(raw)
        assert main(["replay", str(path)]) == 0
        assert ("ends before the call" in capsys.readouterr().out) is (raw != cough)


@pytest.mark.e2e
def test_the_process_says_so_on_standard_error(tmp_path: Path) -> None:
    agent = tmp_path / "agent.yaml"
    agent.write_bytes(b"\xff\xfe")
    captured = record(tmp_path / "capture")
    done = subprocess.run(
        [sys.executable, "-m", "server", "replay", str(captured), "--against", str(agent)],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"talkspurt: {agent}: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, 3, True),
        (float, 3, "3"),
        (bool, False, 0),
        (str | None, None, 1),
        (tuple[int, ...], [1, 2], [1, "2"]),
        (tuple[int, str], [1, "2"], [1]),
        (list[Any], [1, "a"], (1,)),
        (dict[str, int], {"a": 1}, {"a": "1"}),
    ],
)
def test_the_forms_of_values(hint: Any, good: Any, bad: Any) -> None:
    assert fits(hint, good) and not fits(hint, bad)


def test_recomputing_leaves_out_a_stream_that_went_on_after_a_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = records_of(WITH_AUDIO)
    head, half = records[0], len(records) // 2
    resumed = (HEAD, orjson.dumps(orjson.loads(head[1]) | {"resumed": True}))
    path = write(tmp_path / "cut.capture", records[:half])
    assert main(["replay", str(path), "--recompute", "--json"]) == 0
    until_then = orjson.loads(capsys.readouterr().out)
    after = write(tmp_path / "after.capture", [resumed, *records[half + 4 :]]).read_bytes()
    path.write_bytes(path.read_bytes() + after)
    assert main(["replay", str(path), "--recompute", "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out) == until_then | {"gap": True}


@pytest.mark.parametrize("depth", [235, 300, 900, 1100])
@pytest.mark.parametrize("kind", [HEAD, STEP, NOTE])
def test_values_nested_deeper_than_ours_are_refused(
    depth: int, kind: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = records_of(WITH_AUDIO)
    nested = b"[" * depth + b"]" * depth
    at = next((number for number, one in enumerate(records) if one[0] == kind), 1)
    body = {
        HEAD: lambda: records[at][1].replace(b'"settings":{', b'"settings":{"zz":' + nested + b",", 1),
        STEP: lambda: orjson.dumps(orjson.loads(records[at][1])[:3])[:-1] + b',[["Speak",{"x":' + nested + b"}]]]",
        NOTE: lambda: b'[1,"x",{"a":' + nested + b"}]",
    }[kind]()
    path = write(tmp_path / "deep.capture", [*records[:at], (kind, body), *records[at + (kind != NOTE) :]])
    for more in ([], ["--json"], ["--recompute", "--json"]):
        if depth > 240:
            assert "damaged record" in refusal([str(path), *more], capsys)
            continue
        # As deep as we may write: other than what is decided, a setting of another version, or nothing to mind.
        assert main(["replay", str(path), *more]) == {STEP: 1, HEAD: 2, NOTE: 0}[kind]
        capsys.readouterr()


def test_what_is_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    captured = str(record(tmp_path / "capture"))
    for one in ("/dev/zero", str(tmp_path), str(tmp_path / "pipe")):
        assert refusal([one], capsys) == f"talkspurt: {one}: not a regular file\n"
        assert refusal([captured, "--against", one], capsys) == f"talkspurt: {one}: not a regular file\n"
