"""The bench judges itself: a server that is broken in one way must fail, and for that reason."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import uvloop

from bench.load import bargein, capacity, latency, soak
from bench.load.noise import noise_clip
from bench.load.options import Options
from bench.load.report import RunOnce, Sound
from bench.load.tone import crc16
from bench.load.verdict import Result, is_failed
from bench.sim.sound import Clip, write_stereo
from providers.offline.scripted import render
from tests.bench.load_target import SteadyFloor, bench_with
from tests.bench.stand_in import Behaviour, Broken, tone
from tests.bench.test_captured import part

ASK = Clip.from_pcmu(tone(300, 300), text="a tone", source="test")
INTERRUPT = Clip.from_pcmu(tone(700, 300), text="a longer tone", source="test")
SOUND = Sound([ASK], [INTERRUPT])
pytestmark = pytest.mark.slow


KEPT = Path(__file__).parents[1] / "data" / "captures"


def right(turn: int, caller: str) -> bytes:
    """An answer of 2.4 s that proves itself."""
    code = f"code {int(caller[-4:])} {turn % 256} {crc16(f'turn {turn} of {caller}'.encode())}"
    return render(f"{code}, this is the scripted reply that the generator takes apart")


def run(cases: dict[str, tuple[RunOnce, Behaviour]], folder: Path, *, calls: int, seconds: float) -> dict[str, Result]:
    """All cases at the same time, each with a stand-in of its own."""

    async def one(run_once: RunOnce, behaviour: Behaviour) -> Result:
        options = Options(calls=calls, seconds=seconds, pin=False)
        own = Path(tempfile.mkdtemp(dir=folder))
        if embedded.exists():
            (own / "embedded").symlink_to(embedded)
        return await run_once(options, SOUND, bench_with(behaviour, own))

    embedded = folder / "embedded"

    async def main() -> list[Result]:
        async with asyncio.timeout(50):
            return await asyncio.gather(*(one(*case) for case in cases.values()))

    return dict(zip(cases, uvloop.run(main()), strict=True))


def answering(reply: Callable[[int, str], bytes], broken: Broken = "", **more: int) -> Behaviour:
    return Behaviour(greeting_ms=200, reply=reply, paced=True, broken=broken, **more)


TIMING = ("late", "ran dry", "callers wait")
"""What a busy machine does to a good stand-in, which shares the generator's process; the others are its own doing."""


def faults(result: Result) -> list[str]:
    return [why for why in result["broken"] if not any(word in why for word in TIMING)]


def test_capacity_notices_what_is_broken(tmp_path: Path) -> None:
    names: tuple[Broken, ...] = (
        "",
        "pacer",
        "slow pacer",
        "vad",
        "halting",
        "halting and yielding",
        "hiding",
        "breaking off",
    )
    cases = {str(name): (capacity.run_once, answering(right, name)) for name in names}
    found = run(cases, tmp_path, calls=3, seconds=2.5)
    good = found[""]
    assert good["turns_completed"] == good["turns_expected"] >= 3
    assert faults(good) == []
    expected = {
        "pacer": "overfilled the caller's buffer",
        "slow pacer": "ran dry inside an utterance",
        "vad": "turns were not answered",
        "halting": "ran dry inside an utterance",
        "halting and yielding": "ran dry inside an utterance",
        "hiding": "clears came though nobody spoke",
        "breaking off": "answers ended before their end",
    }
    for name, reason in expected.items():
        assert any(reason in why for why in found[name]["broken"]), (name, found[name]["broken"])
        assert is_failed(found[name])
    assert found["hiding"]["underruns"] == good["underruns"], "which is why its clears are looked at"
    assert found["slow pacer"]["underruns"] > 10 * good["underruns"] + 10
    assert found["vad"]["turns_completed"] == 0
    # The code of every answer was right and heard; callers took the floor in its pause, or after half of it.
    for name in ("halting", "halting and yielding", "breaking off"):
        assert found[name]["turns_completed"] == 0
        assert found[name]["broken_off"] == found[name]["turns_expected"]
    assert found["halting"]["frame_lateness_ms"]["max"] == 100
    assert good["broken_off"] == 0
    # Callers who only beep are no load of people who talk.
    assert any("callers talked" in why for why in good["why_invalid"])


def test_capacity_notices_one_turn_in_fifty(tmp_path: Path) -> None:
    cases = {"": (capacity.run_once, answering(right, "one in fifty"))}
    result = run(cases, tmp_path, calls=26, seconds=5.0)[""]
    assert result["turns_expected"] >= 50
    assert result["turns_expected"] - result["turns_completed"] == result["turns_expected"] // 50
    assert any("turns were not answered" in why for why in result["broken"])


def test_latency_notices_an_account_that_does_not_add_up(tmp_path: Path) -> None:
    cases = {
        "": (latency.run_once, answering(right)),
        "account": (latency.run_once, answering(right, "account")),
    }
    found = run(cases, tmp_path, calls=3, seconds=2.0)
    assert found[""]["server_turns"] > 0
    assert set(found[""]["stages"]) == {"detect", "own"}
    assert found[""]["stage_sum_error_ms"] == 0
    assert faults(found[""]) == []
    assert any("do not add up" in why for why in found["account"]["broken"])


def test_bargein_notices_what_is_broken(tmp_path: Path) -> None:
    run_once = bargein.run_with(noise_clip("white", [ASK], 10.0))
    # Noise at 10 dB below a tone of 8000: its peaks stay under the threshold, but not under that of the nervous one.
    names: tuple[Broken, ...] = ("", "barge-in", "late clear", "stale", "no captures")
    cases = {str(name): (run_once, answering(right, name, loud=7000, confirm_frames=3)) for name in names}
    found = run(cases, tmp_path, calls=2, seconds=4.0)
    good = found[""]
    assert good["barge_ins_cleared"] == good["barge_ins"] >= 2
    assert good["decisions_found"] == good["barge_ins_cleared"] and good["captures_unreadable"] == []
    assert good["stale_frames_after_clear"] == 0
    assert 40 <= good["time_to_clear_ms"]["p50"] <= 160
    assert good["agent_minutes_in_noise"] > 0
    assert good["false_pauses"] == 0
    assert not good["false_pause_aim_shown"]  # in some seconds of noise
    assert faults(good) == []
    expected = {
        "barge-in": "were not cleared",
        "late clear": "time to clear p95",
        "stale": "frames of a cancelled answer came after clear",
        "no captures": "decision to clear p99 is not known",
    }
    for name, reason in expected.items():
        assert any(reason in why for why in found[name]["broken"]), (name, found[name]["broken"])
    # A chunk of 100 ms after each clear.
    assert found["stale"]["stale_frames_after_clear"] == 5 * found["stale"]["barge_ins_cleared"]


def test_bargein_notices_a_server_that_gives_way_to_any_noise(tmp_path: Path) -> None:
    run_once = bargein.run_with(noise_clip("white", [ASK], 10.0))
    nervous = run({"": (run_once, answering(right, confirm_frames=3))}, tmp_path, calls=6, seconds=6.0)[""]
    assert nervous["false_pauses"] >= 5
    assert nervous["false_pauses_per_minute"] > 100
    assert nervous["resumed"] == 0
    assert not nervous["false_pause_aim_shown"]
    assert any("false pauses" in why and "at most 60 a minute" in why for why in nervous["broken"])


def test_soak_notices_what_is_left_over(tmp_path: Path, redis_url: str) -> None:
    async def total(options: Options, sound: Sound, bench: object) -> Result:
        return await soak.run_once(options, sound, bench, 16, 50.0)  # type: ignore[arg-type]

    # Memory is the generator's too.
    socket = Path(redis_url.removeprefix("unix://").partition("?")[0])
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "valkey.sock").symlink_to(socket)
    names: tuple[Broken, ...] = ("", "leak", "task leak")
    cases = {str(name): (total, answering(right, name)) for name in names}
    found = run(cases, tmp_path, calls=8, seconds=0.0)
    for one in found.values():
        assert one["errors"] == 0
        assert one["turns_completed"] == one["turns_expected"] > 8
        assert one["warming_calls"] == 8
        # Sixteen calls of about four seconds, eight at a time.
        assert 60 < one["calls_per_minute"] < 600
    assert found[""]["fds"] == found[""]["tasks"] == found[""]["redis_keys"] == {"first": 0, "last": 0}
    assert left_over(found[""]) == []
    assert found["leak"]["fds"] == found["task leak"]["tasks"] == {"first": 8, "last": 16}
    assert left_over(found["leak"]) == ["8 fds were left over"]
    assert left_over(found["task leak"]) == ["8 tasks were left over"]
    assert is_failed(found["leak"]) and is_failed(found["task leak"])

    # One key of a call that never expires, one that would have expired while a longer run waits.
    async def hurried(options: Options, sound: Sound, bench: object) -> Result:
        return await soak.run_once(options, sound, bench, 16, 50.0, 0.5)  # type: ignore[arg-type]

    with redis.Redis(unix_socket_path=str(socket)) as client:
        client.set("talkspurt:answer:x", "1")
        client.set("talkspurt:answer:y", "1", ex=60)
    kept = run({"": (hurried, answering(right))}, tmp_path, calls=8, seconds=0.0)[""]
    assert kept["redis_keys"] == {"first": 1, "last": 1}
    assert left_over(kept) == ["1 redis keys were left over"]


def left_over(result: Result) -> list[str]:
    """Without threads, which are those of the pytest process."""
    return [why for why in result["broken"] if "left over" in why and "threads" not in why]


@pytest.mark.parametrize("bench_main", [capacity.main, latency.main, bargein.main, soak.main])
def test_a_capture_without_audio_is_refused_in_one_line(
    bench_main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "call.capture"
    path.write_bytes(part({}, has_audio=False))
    assert bench_main(["--recording", str(path)], bench_with(answering(right), tmp_path)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"{path}: no audio in it: the agent's capture.audio was off during this call\n"


def test_the_commands_report_failure_by_their_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, recording = tmp_path / "out.json", tmp_path / "call.wav"
    write_stereo(recording, b"\xff" * 4000 + tone(300, 300) + b"\xff" * 8000 + tone(260, 300), tone(2000, 500))
    arguments = ["--calls", "2", "--seconds", "2.5", "--no-pin", "--recording", str(recording), "--json", str(out)]
    broken = bench_with(answering(right, "pacer"), tmp_path)
    assert capacity.main(arguments, broken) == 1
    result = json.loads(out.read_text())
    assert any("overfilled" in why for why in result["broken"])
    assert result["callers"] == "recording"
    assert not any("callers talked" in why for why in result["why_invalid"])
    said = capsys.readouterr()
    assert "FAILED" in said.err
    assert "turns completed of expected" in said.out
    # Callers made of a captured call are answered as others are.
    arguments[arguments.index(str(recording))] = str(KEPT / "duplicate_reordered.capture")
    capacity.main(arguments, bench_with(answering(right), tmp_path))
    result = json.loads(out.read_text())
    assert result["callers"] == "captures"
    assert not any("callers talked" in why for why in result["why_invalid"])
    assert result["turns_completed"] == result["turns_expected"] >= 2
    capsys.readouterr()
    # Nothing is wrong with this server, but the floor moved by a fifth: no verdict is better than a wrong one.
    moved = bench_with(answering(right), tmp_path, SteadyFloor(6.0))
    assert capacity.main(arguments, moved) == 1
    result = json.loads(out.read_text())
    assert not result["valid"]
    assert any("echo floor moved from 5.0 to 6.0" in why for why in result["why_invalid"])
