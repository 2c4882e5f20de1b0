"""Parts of the load: the echo floor in C, late arrival, recordings, stale audio, decisions, verdicts, plots."""

from __future__ import annotations

import json
import os
import statistics
import struct
import wave
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import psutil
import pytest
import redis
import uvloop

from bench.load import bargein, capacity, clips, floor, latency, options, plot, soak, verdict
from bench.load.capture import MARK, TAPE_BIT, Decisions, clear_decisions, since_decision_ms
from bench.load.floor import EchoFloor, FloorFailed
from bench.load.knee import knee
from bench.load.noise import noise_clip, speech_rms
from bench.load.provider_sims import write_book
from bench.load.report import Sound, run_bench
from bench.load.rig import Bench
from bench.load.server_process import open_connections
from bench.load.soak import theil_sen
from bench.load.stale import AfterClear
from bench.load.tone import crc16
from bench.load.turn_judge import LoadRecord, SoundJudge, TurnJudge
from bench.sim.arrival import Arrivals, Way, Weather
from bench.sim.clipbook import Clipbook
from bench.sim.sound import Clip, audioop, from_pcmu
from providers.offline.scripted import render
from tests.bench.load_target import bench_with
from tests.bench.stand_in import Behaviour, packed, tone

KEPT = Path(__file__).parents[1] / "data" / "captures"

# ── the floor ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_floor_is_what_one_echo_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "MESSAGES", 1000)
    monkeypatch.setattr(floor, "PAUSE_S", 0.0)

    async def main() -> floor.Floor:
        async with EchoFloor() as made:
            return await made.measure()

    found = uvloop.run(main())
    assert found.slices >= floor.MIN_SLICES
    # One recv and one send cannot be cheaper; nothing that does one message at a time is dearer.
    assert 0.5 < found.c_us < found.picows_us < 500


def test_a_machine_without_a_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(FloorFailed, match="no C compiler"):
        floor.compile_echo(tmp_path)


def test_slices_agree_when_their_middle_half_is_narrow() -> None:
    assert floor.agree([5.0, 5.1, 5.2, 5.1, 5.0, 9.0, 5.1, 5.2, 5.0])
    assert not floor.agree([5.0, 6.0, 7.0, 8.0, 5.0, 6.0, 7.0, 8.0, 9.0])


# ── arrival ──────────────────────────────────────────────────────────────────────────────────────────────────────


def deliver(weather: Weather, frames: int) -> tuple[list[float], list[int], Arrivals]:
    """(delays in ms, order of arrival) of one stream whose tick has slots of 2 ms."""
    arrivals = Arrivals(weather)
    sent_ns: dict[bytes, int] = {}
    delays, order = [], []
    now_ns = 0

    def arrived(message: bytes) -> None:
        delays.append((now_ns - sent_ns[message]) / 1e6)
        order.append(int(message))

    way = Way(arrivals, arrived)
    for slot in range(frames * 10 + 3000):
        now_ns = slot * 2_000_000
        arrivals.deliver_due(now_ns)
        if slot % 10 == 0 and slot < frames * 10:
            message = str(slot // 10).encode()
            sent_ns[message] = now_ns
            way.send(message, now_ns)
    return delays, order, arrivals


def test_messages_are_late_as_on_a_carriers_network_and_in_order() -> None:
    delays, order, arrivals = deliver(Weather(stall_share=0.0), 20_000)
    assert order == list(range(20_000))
    assert arrivals.stalls == 0
    # Slots of 2 ms add 1 on average; waiting for a predecessor adds to the tail.
    assert 5 <= statistics.median(delays) <= 7.5
    assert 24 <= statistics.quantiles(delays, n=20)[-1] <= 34


def test_a_stall_holds_two_seconds_back_and_bursts() -> None:
    delays, order, arrivals = deliver(Weather(stall_share=0.02, seed=3), 5000)
    assert order == list(range(5000))
    assert arrivals.stalls > 0
    assert 2000 <= max(delays) <= 4200
    # A hundred frames of 20 ms stand behind each stall, and all of them arrive at once.
    assert sum(delay > 1000 for delay in delays) >= 40 * arrivals.stalls
    assert Arrivals(Weather())._stall_chance == pytest.approx(0.001 * 20 / 2000)


def test_what_is_on_its_way_arrives_before_the_end() -> None:
    got: list[bytes] = []
    way = Way(Arrivals(Weather()), got.append)
    for n in range(5):
        way.send(b"%d" % n, 0)
    way.deliver_all()
    assert got == [b"0", b"1", b"2", b"3", b"4"]


# ── recordings ───────────────────────────────────────────────────────────────────────────────────────────────────


def s16(pcmu: bytes) -> np.ndarray:
    return np.frombuffer(from_pcmu(pcmu), "<i2")


def silence(ms: int) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 12, ms * 8).astype("<i2")


def caller_channel() -> np.ndarray:
    """Noise of the line; turns of 600, 900 (with a pause of 240 inside) and, too short, 60 ms."""
    first, second, third, click = s16(tone(600, 300)), s16(tone(400, 500)), s16(tone(260, 700)), s16(tone(60, 900))
    parts = [silence(1000), first, silence(700), second, silence(240), third, silence(2000), click, silence(800)]
    return np.concatenate(parts)


def write_wav(path: Path, left: np.ndarray, right: np.ndarray, *, rate_hz: int = 8000, coding: int = 1) -> None:
    both = np.zeros((max(left.size, right.size), 2), "<i2")
    both[: left.size, 0], both[: right.size, 1] = left, right
    data = both.tobytes()
    if coding == clips.MULAW:
        data = audioop.lin2ulaw(data, 2)
    elif coding == clips.ALAW:
        data = audioop.lin2alaw(data, 2)
    bits = 16 if coding == 1 else 8
    form = struct.pack("<HHIIHH", coding, 2, rate_hz, rate_hz * bits // 4, bits // 4, bits)
    # A chunk that nobody needs stands before the data, and the size is that of an unfinished stream.
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(b"RIFF\xff\xff\xff\xff" + body + b"data\xff\xff\xff\xff" + data)


@pytest.mark.parametrize("coding", [clips.PCM, clips.MULAW, clips.ALAW])
def test_a_recording_is_split_into_the_callers_turns(tmp_path: Path, coding: int) -> None:
    path = tmp_path / "call.wav"
    write_wav(path, caller_channel(), s16(tone(5000, 440)), coding=coding)
    found = clips.from_recording(path)
    assert [round(clip.duration_ms, -1) for clip in found] == [pytest.approx(600, abs=80), pytest.approx(900, abs=80)]
    assert [one.text for one in clips.from_recording(path, "right")] == ["call.wav right 0.00 s"]


def test_a_recording_at_another_rate_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    write_wav(path, np.repeat(caller_channel(), 2), silence(100), rate_hz=16000)
    assert len(clips.from_recording(path)) == 2


def test_recordings_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    write_wav(path, silence(3000), silence(3000))
    with pytest.raises(clips.RecordingError, match="nobody speaks on the left channel"):
        clips.from_recording(path)
    path.write_bytes(b"ID3 something else")
    with pytest.raises(clips.RecordingError, match="not a WAV"):
        clips.from_recording(path)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    with pytest.raises(clips.RecordingError, match="1 channels"):
        clips.from_recording(path)


def test_a_long_monologue_is_cut_into_turns() -> None:
    found = clips.turns(s16(tone(50_000, 400)))
    assert len(found) == 3
    assert max(end - begin for begin, end in found) <= (clips.MAX_TURN_MS + 200) * 8


# ── noise and stale audio ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["babble", "white", "cough"])
def test_noise_is_so_far_below_speech(kind: Any) -> None:
    speech = [Clip.from_pcmu(tone(1000, 400), text="", source="test")]
    clip = noise_clip(kind, speech, 10.0)
    rms = float(np.sqrt((s16(clip.pcmu).astype(float) ** 2).mean()))
    # A cough is trimmed to where it is loud.
    assert 20 * np.log10(speech_rms(speech) / rms) == pytest.approx(10, abs=2.5)


def code(turn: int) -> bytes:
    return render(f"code 12 {turn} 4711, yes")


@pytest.mark.parametrize(
    ("audio", "frames"),
    [
        (b"", 0),
        (code(5), 0),
        (code(5)[:3000], 0),  # cut in its turn
        (tone(200) + code(5), 10),
        (b"\xff" * 1600 + code(5), 0),
        (tone(200), 10),
        (code(4)[:7520], 42),  # the answer that was cancelled, once more: gaps between its tones are no sound
    ],
)
def test_stale_frames_are_those_before_the_next_answer(audio: bytes, frames: int) -> None:
    ear = AfterClear()
    ear.arrived(tone(100))  # before any clear
    ear.cleared(4)
    for at in range(0, len(audio), 800):
        ear.arrived(audio[at : at + 800])
    assert ear.settle() == pytest.approx(frames, abs=5 if frames > 40 else 0)
    assert ear.settle() == 0


def test_decisions_are_read_from_captures_by_caller(tmp_path: Path) -> None:
    folder = tmp_path / "capture"
    folder.mkdir()
    head = {"capture": 1, "call_id": "x", "settings": {"name": "ClearPlayout"}}
    steps = [
        [100, "TranscriptFinal", {"utterance_no": 1, "text": "turn 1 of +15552000012"}, []],
        [5_000_000, "SpeechConfirmed", {}, [["CancelReply", {"reply_no": 1}], ["ClearPlayout", {}]]],
        [9_000_000, "PlayoutCleared", {"note": "ClearPlayout"}, []],
    ]

    whole = packed(("H", head), *(("S", one) for one in steps))
    # Still being written: the last block is half there.
    (folder / "one.capture").write_bytes(whole + whole[14:42])
    (folder / "two.capture").write_bytes(packed(("H", head)))
    (folder / "three.capture").write_bytes(b"no capture at all")
    said = clear_decisions(tmp_path)
    found = said.clears
    assert found == {"+15552000012": [5_000_000]}
    assert said.unreadable == ["three.capture: not a capture of a call"]
    assert since_decision_ms(5_400_000, found["+15552000012"]) == pytest.approx(0.4)
    assert since_decision_ms(4_000_000, found["+15552000012"]) is None
    assert since_decision_ms(9_000_000_000, found["+15552000012"]) is None
    assert clear_decisions(tmp_path / "elsewhere") == Decisions()


def test_damage_within_a_capture_is_said_and_a_cut_is_not(tmp_path: Path) -> None:
    """A block at whose end nothing follows may be one that a crash has cut; any other that is wrong is damage."""
    whole = (KEPT / "cough.capture").read_bytes()
    path = tmp_path / "capture" / "one.capture"
    path.parent.mkdir()
    ends = [len(MARK)]
    while ends[-1] < len(whole):
        ends.append(ends[-1] + 8 + (int.from_bytes(whole[ends[-1] : ends[-1] + 4], "little") & ~TAPE_BIT))
    last = ends[-2]
    for length in (*ends, last + 3, last + 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert clear_decisions(tmp_path).unreadable == []
    # Cut by a crash, then carried on in a second stream.
    path.write_bytes(whole[: last + 20] + whole)
    assert clear_decisions(tmp_path).unreadable == []
    middle = ends[len(ends) // 2]
    for at in (middle, middle + 1, middle + 4, middle + 9, ends[1] - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        (text,) = clear_decisions(tmp_path).unreadable
        assert text.startswith("one.capture: damaged: the block at byte ")
    # Nothing of a block is missing, but its length says more than is there.
    longer = int.from_bytes(whole[last : last + 4], "little") + 64
    path.write_bytes(whole[:last] + longer.to_bytes(4, "little") + whole[last + 4 :])
    assert "damaged" in clear_decisions(tmp_path).unreadable[0]


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────


CALLER = "+15552000012"


def answer(turn: int) -> bytes:
    hash16 = crc16(f"turn {turn} of {CALLER}".encode())
    return render(f"code 12 {turn % 256} {hash16}, this is the scripted reply that the generator takes apart")


@pytest.mark.parametrize(
    ("turns", "right"),
    [
        ((1, 2, 3), (True, True, True)),
        ((1, 2, 1, 2, 1, 2), (True, True, False, False, False, False)),
        ((2, 1, 3, 3), (True, False, True, False)),
        ((1, 128, 255, 256, 257, 300, 257), (True, True, True, True, True, True, False)),
    ],
)
def test_only_later_turns_are_answers(turns: tuple[int, ...], right: tuple[bool, ...]) -> None:
    record = LoadRecord()
    judge = TurnJudge(CALLER, record)
    assert tuple(judge.judge(answer(turn)) for turn in turns) == right
    assert (record.turns_completed, record.wrong) == (sum(right), len(right) - sum(right))


def test_an_answer_is_heard_to_its_end_unless_it_was_interrupted() -> None:
    record = LoadRecord()
    judge = TurnJudge(CALLER, record)
    assert not judge.judge(answer(1)[:8000])
    # Silence in the place of the rest is no answer either.
    assert not judge.judge(answer(2)[:8000] + b"\xff" * 20_000)
    assert judge.judge(answer(3)[:8000], was_interrupted=True)
    # The first one was cancelled by the caller's own words: the last one counts.
    assert judge.judge(answer(4)[:8000] + answer(5))
    assert not judge.judge(answer(6) + answer(7)[:8000])
    assert (record.turns_completed, record.broken_off) == (2, 3)


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────


GOOD: dict[str, Any] = {
    "calls": 10,
    "generator_late_ms": {"p99": 1.0},
    "generator_cpu": 0.1,
    "simulator_cpu": 0.0,
    "floor_us_per_frame": 5.0,
    "floor_after_us_per_frame": 5.4,
    "talk_share": 0.6,
    "callers": "clips",
    "turns_expected": 10,
    "turns_completed": 10,
    "turns_accounted": 10,
    "turn_latency_ms": {"p99": 1000.0},
    "proof": "tone codes",
    "jitter": False,
    "wrong_codes": 0,
    **dict.fromkeys(verdict.ANY_IS_TOO_MANY, 0),
    "frame_lateness_ms": {"p99": 3.0},
    "own_latency_ms": {"p50": 1.0, "p99": 9.0},
    "valid": True,
    "broken": [],
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"generator_late_ms": {"p99": 10.1}}, "generator was late"),
        ({"generator_late_ms": {"p99": None}}, "generator was late"),
        ({"generator_cpu": 0.95}, "generator used"),
        ({"simulator_cpu": 0.95}, "simulators used"),
        ({"floor_after_us_per_frame": 5.6}, "echo floor moved"),
        ({"floor_after_us_per_frame": 4.4}, "echo floor moved"),
        ({"turns_expected": 0}, "no turn was spoken"),
        ({"talk_share": 0.39}, "callers talked 39% of the time"),
        ({"talk_share": 0.61}, "callers talked 61% of the time"),
    ],
)
def test_a_run_is_invalid_when_the_machine_was_at_fault(change: dict[str, Any], reason: str) -> None:
    assert verdict.why_invalid(GOOD) == verdict.why_invalid(GOOD | {"talk_share": 0.4}) == []
    assert verdict.why_invalid(GOOD | {"talk_share": 0.1, "callers": "recording"}) == []
    (why,) = verdict.why_invalid(GOOD | change)
    assert reason in why


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"frame_lateness_ms": {"p99": None}}, "frames were late: p99 is not known"),
        ({"own_latency_ms": {"p50": None, "p99": 9.0}}, "own latency p50 is not known"),
        ({"own_latency_ms": {"p50": 1.0, "p99": None}}, "own latency p99 is not known"),
        ({"turns_completed": 9}, "1 of 10 turns"),
        ({"broken_off": 1}, "1 answers ended before their end"),
        ({"errors": 1}, "calls failed"),
        ({"dropped": 1}, "dropped"),
        ({"underruns": 1}, "ran dry"),
        ({"overfills": 1}, "overfilled"),
        ({"frame_lateness_ms": {"p99": 20.0}}, "frames were late"),
        ({"own_latency_ms": {"p50": 5.1, "p99": 9.0}}, "own latency p50"),
        ({"own_latency_ms": {"p50": 1.0, "p99": 20.1}}, "own latency p99"),
        ({"turns_unfinished": 1}, "1 turns were under way when the run had to be ended"),
        ({"ungreeted": 2}, "2 callers were not greeted"),
        ({"overlong": 1}, "1 answers went on after their end"),
        ({"foreign_codes": 1}, "1 answers to other callers were heard"),
        ({"unasked_clears": 1}, "1 clears came though nobody spoke"),
        ({"talked_over": 1}, "1 times the agent spoke into a caller's turn"),
        ({"wrong_codes": 1}, "1 answers were old, or to other words"),
        ({"wrong_codes": 2, "false_pauses": 1}, "2 answers were old"),
        ({"turns_accounted": 9}, "the server tells of 9 turns, 10 were completed"),
        ({"turn_latency_ms": {"p99": 1000.1}}, "turn latency p99 1000.1 ms, at most 1000"),
        ({"turn_latency_ms": {"p99": None}}, "turn latency p99 is not known"),
    ],
)
def test_a_server_is_broken_for_a_reason(change: dict[str, Any], reason: str) -> None:
    assert verdict.broken(GOOD) == []
    # Said again after a false pause; late by a network that stalls, or by providers that take their time.
    for fine in ({"wrong_codes": 1, "false_pauses": 1}, {"turns_accounted": 11}, {"jitter": True}, {"proof": "sound"}):
        slow = {"turn_latency_ms": {"p99": 3000.0}} if "jitter" in fine or "proof" in fine else {}
        assert verdict.broken(GOOD | fine | slow) == []
    (why,) = verdict.broken(GOOD | change)
    assert reason in why


INTERRUPTED: dict[str, Any] = {
    "barge_ins": 5,
    "barge_ins_cleared": 5,
    "time_to_clear_ms": {"p95": 200.0},
    "decision_to_clear_ms": {"p99": 20.0},
    "decisions_found": 5,
    "captures_unreadable": [],
    "stale_frames_after_clear": 0,
    "noise": "babble at 10 dB",
    "false_pauses": 5,
    "false_pauses_per_minute": 60.0,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"barge_ins_cleared": 4}, "1 of 5 interruptions were not cleared"),
        ({"time_to_clear_ms": {"p95": 200.1}}, "time to clear p95 200.1 ms"),
        ({"time_to_clear_ms": {"p95": None}}, "time to clear p95 is not known"),
        ({"decision_to_clear_ms": {"p99": 20.1}}, "decision to clear p99 20.1 ms"),
        ({"decision_to_clear_ms": {"p99": None}}, "decision to clear p99 is not known"),
        ({"decisions_found": 4}, "4 decisions found of 5 clears"),
        ({"captures_unreadable": ["x.capture: damaged: it is"]}, "x.capture: damaged: it is"),
        ({"stale_frames_after_clear": 1}, "1 frames of a cancelled answer"),
        ({"false_pauses_per_minute": 60.1}, "5 false pauses, 60.1 for a minute"),
        ({"false_pauses": 0, "false_pauses_per_minute": None}, "no answer was talked over by noise"),
    ],
)
def test_giving_way_is_broken_for_a_reason(change: dict[str, Any], reason: str) -> None:
    assert verdict.broken_barge_in(INTERRUPTED) == []
    assert verdict.broken_barge_in(INTERRUPTED | {"false_pauses": 4, "false_pauses_per_minute": 200.0}) == []
    quiet = {"noise": "none", "false_pauses": 0, "false_pauses_per_minute": None}
    assert verdict.broken_barge_in(INTERRUPTED | quiet) == []
    (why,) = verdict.broken_barge_in(INTERRUPTED | change)
    assert reason in why


@pytest.mark.parametrize("unknown", ["turn_latency_ms", "server_turn_latency_ms"])
def test_an_account_without_a_latency_explains_nothing(unknown: str) -> None:
    good = {
        "server_turns": 3,
        "stage_sum_error_ms": 0.0,
        "turn_latency_ms": {"p50": 510.0},
        "server_turn_latency_ms": {"p50": 500.0},
    }
    assert latency.unexplained(good) == []
    (why,) = latency.unexplained(good | {unknown: {"p50": None}})
    assert "None" in why


def of_calls(calls: int, *, passed: bool = True, valid: bool = True) -> dict[str, Any]:
    return GOOD | {"calls": calls, "valid": valid, "broken": [] if passed else ["late"]}


def test_the_knee_is_where_passing_ends() -> None:
    reached = knee([of_calls(10), of_calls(50), of_calls(100, passed=False)])
    assert (reached.calls, reached.is_reached, str(reached)) == (50, True, "50 calls")
    # What passes beyond a failure was luck.
    assert str(knee([of_calls(100), of_calls(50, passed=False), of_calls(10)])) == "10 calls"
    assert str(knee([of_calls(10, passed=False)])) == "less than all of these"


def test_a_knee_that_was_not_reached_says_so() -> None:
    found = knee([of_calls(10), of_calls(50)])
    text = ">= 50 calls (not reached)"
    assert str(found) == text
    assert found.as_dict() == {"calls": 50, "reached": False, "skipped": [], "text": text}


def test_an_invalid_run_is_no_failure_of_the_server() -> None:
    busy = of_calls(50, passed=False, valid=False)
    found = knee([of_calls(10), busy, of_calls(100), of_calls(200, passed=False)])
    assert (found.calls, found.is_reached, found.skipped) == (100, True, (50,))
    assert str(found) == "100 calls; skipped as invalid: 50"
    assert str(knee([of_calls(10), busy])) == ">= 10 calls (not reached); skipped as invalid: 50"
    assert str(knee([busy])) == "not known, no run was valid; skipped as invalid: 50"


def test_a_curve_measures_an_invalid_point_once_more(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    floors = dict.fromkeys(("picows_us_per_frame", "picows_after_us_per_frame"), 0)
    asked = options.parser("capacity", "", calls=1, seconds=1).parse_args(
        ["--curve", "10,50,100", "--json", str(tmp_path / "out.json")]
    )
    seen: list[int] = []

    async def run_once(given: options.Options, sound: Sound, bench: object) -> dict[str, Any]:
        seen.append(given.calls)
        # 10 is valid at the second time, 50 never.
        valid = given.calls == 100 or (given.calls == 10 and seen.count(10) == 2)
        why = [] if valid else ["the generator was late"]
        return floors | of_calls(given.calls, valid=valid) | {"why_invalid": why, "problems": []}

    assert run_bench(asked, run_once, {}, Bench()) == 1
    assert seen == [10, 10, 50, 50, 100]
    said = capsys.readouterr()
    assert said.err.count("measured again, for the knee") == 2
    assert "knee: >= 100 calls (not reached); skipped as invalid: 50\n" in said.out
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["valid"] for one in written["curve"]] == [True, False, True] and written["knee"]["skipped"] == [50]


def test_a_soak_compares_the_first_thousand_calls_with_all() -> None:
    assert soak.warming(10_000, 60) == soak.warming(1_000_000, 60) == soak.warming(10_000, 900) == 1000
    assert soak.warming(3000, 60) == 300
    # A tenth would not even take every place once.
    assert (soak.warming(300, 60), soak.warming(100, 60)) == (120, 50)


SOAKED: dict[str, Any] = {
    "turns_expected": 8,
    "turns_completed": 8,
    **dict.fromkeys(verdict.ANY_IS_TOO_MANY, 0),
    "rss_growth_percent": 2.0,
    "threads": {"first": 7, "last": 7},
    "fds": {"first": 33, "last": 33},
    "tasks": {"first": 9, "last": 8},
    "redis_keys": {"first": 3, "last": 0},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rss_growth_percent": 2.01}, "memory grew by 2.01 %, at most 2"),
        ({"threads": {"first": 7, "last": 8}}, "1 threads were left over"),
        ({"fds": {"first": 33, "last": 34}}, "1 fds were left over"),
        ({"tasks": {"first": 9, "last": 10}}, "1 tasks were left over"),
        ({"tasks": {"first": None, "last": None}}, "tasks could not be counted"),
        ({"redis_keys": {"first": 3, "last": 1}}, "1 redis keys were left over"),
        ({"redis_keys": {"first": 0, "last": None}}, "redis keys could not be counted"),
        ({"turns_completed": 7}, "1 of 8 turns"),
        ({"errors": 1}, "1 calls failed"),
        ({"ungreeted": 1}, "1 callers were not greeted"),
        ({"broken_off": 1}, "1 answers ended before their end"),
        ({"foreign_codes": 1}, "1 answers to other callers"),
        ({"overfills": 1}, "1 messages overfilled"),
        ({"dropped": 1}, "1 messages had to be dropped"),
    ],
)
def test_a_soak_leaves_nothing(change: dict[str, Any], reason: str) -> None:
    assert verdict.broken_soak(SOAKED) == []
    (why,) = verdict.broken_soak(SOAKED | change)
    assert reason in why


def test_theil_sen_is_not_moved_by_a_few() -> None:
    samples = [(n, 1000 + 2 * n) for n in range(0, 100, 5)]
    samples[3] = (samples[3][0], 90_000)
    assert theil_sen(samples) == pytest.approx(2000)
    assert theil_sen(samples[:1]) is None


# ── options and plots ────────────────────────────────────────────────────────────────────────────────────────────


def asked(*arguments: str) -> Any:
    return options.parser("capacity", "", calls=50, seconds=30).parse_args(arguments)


@pytest.mark.parametrize(
    ("main", "arguments", "otherwise"),
    [
        (capacity.main, [], []),
        (bargein.main, [], []),
        (soak.main, [], []),
        (capacity.main, ["--lead-ms", "2000", "--break", "vad"], ["lead_ms 2000", "breakage vad"]),
        (bargein.main, ["--max-clear-ms", "900", "--noise", "none"], ["noise none", "max_clear_ms 900.0"]),
        (soak.main, ["--max-growth-percent", "50"], ["max_growth_percent 50.0"]),
    ],
)
def test_a_result_tells_what_was_not_as_usual(
    main: Any, arguments: list[str], otherwise: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bound that was moved, above all: what passes with it passes nothing else."""
    out = tmp_path / "out.json"

    def no_floor(cores: object) -> Any:
        raise FloorFailed("not measured here")

    for pinned in (True, False):
        pin = [] if pinned else ["--no-pin"]
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        assert main([*arguments, *pin, "--json", str(out)], Bench(calibrate=no_floor)) == 2
        result = json.loads(out.read_text())
        assert result["pinned"] is pinned
        assert result["asked_otherwise"] == ([] if pinned else ["pin False"]) + otherwise
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    main([*arguments, "--json", str(out)], Bench(calibrate=no_floor))
    assert json.loads(out.read_text())["pinned"] is False


def test_what_cannot_be_done_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options.numbers_of_calls(asked("--curve", "10,50")) == [10, 50]
    for arguments in (("--curve", "10,x"), ("--calls", "0"), ("--calls", "9999"), ("--seconds", "0")):
        with pytest.raises(options.UsageError):
            options.numbers_of_calls(asked(*arguments))
    options.check(asked("--carrier", "telnyx"))
    assert options.options(asked("--carrier", "telnyx"), 10, 5.0).carrier == "telnyx"
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(options.UsageError, match="pip install"):
        options.check(asked("--plot", "x.png"))


def test_a_plot_has_a_line_for_each_percentile() -> None:
    def one(calls: int, value: float | None) -> dict[str, Any]:
        return {"calls": calls, "turn_latency_ms": {"p50": value, "p95": 2.0, "p99": 3.0}, "frame_lateness_ms": {}}

    assert plot.panels([one(100, 5.0), one(10, None)]) == [
        ("turn latency, ms", [("p50", [100], [5.0]), ("p95", [10, 100], [2.0, 2.0]), ("p99", [10, 100], [3.0, 3.0])])
    ]


# ── simulated providers ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_without_a_code_is_one_that_lasts() -> None:
    record = LoadRecord()
    judge = SoundJudge(record)
    assert not judge.judge(b"")
    assert not judge.judge(tone(400))
    assert judge.judge(b"\xff" * 1600 + tone(600))
    assert record.turns_completed == 1


def test_simulated_recognisers_are_given_what_callers_say(tmp_path: Path) -> None:
    said = Clip.from_pcmu(tone(2000, 400), text="these are words", source="test")
    path = tmp_path / "book.json"
    write_book([said], path)
    (clip,) = Clipbook.load(path).clips
    assert clip.text == "these are words"
    with pytest.raises(options.UsageError, match="providers sim"):
        write_book([Clip.from_pcmu(tone(100, 400), text="far too many words for so short a tone", source="test")], path)


def test_what_needs_tone_codes_refuses_simulated_providers(tmp_path: Path) -> None:
    sim = options.Options(calls=1, seconds=1.0, providers="sim", pin=False)
    sound = Sound([Clip.from_pcmu(tone(300), text="", source="test")] * 2, [])
    bench = bench_with(Behaviour(), tmp_path)
    with pytest.raises(options.UsageError, match="tone codes"):
        uvloop.run(bargein.run_with(None)(sim, sound, bench))
    with pytest.raises(options.UsageError, match="scripted"):
        uvloop.run(soak.run_once(sim, sound, bench, 20))
    assert soak.main(["--quiet-s", "4"]) == soak.main(["--quiet-s", "76"]) == 2
    with pytest.raises(options.UsageError, match="no words"):
        options.check(asked("--providers", "sim", "--recording", "x.wav"))


def test_connections_to_embedded_databases_are_told_from_what_is_left_over(database_url: str, redis_url: str) -> None:
    path = redis_url.removeprefix("unix://").partition("?")[0]
    servers = psutil.Process().children(recursive=True)

    async def main() -> None:
        before = open_connections(servers)
        clients = [redis.Redis(unix_socket_path=path) for _ in range(3)]
        for client in clients:
            client.ping()
        connection = await asyncpg.connect(database_url)
        # A connection to PostgreSQL is a process.
        assert open_connections(psutil.Process().children(recursive=True)) == before + 4
        await connection.close()
        for client in clients:
            client.close()

    uvloop.run(main())


def test_keys_are_counted_in_the_real_server(redis_url: str) -> None:
    path = Path(redis_url.removeprefix("unix://").partition("?")[0])
    assert soak.count_keys(path) == 0
    with redis.Redis(unix_socket_path=str(path)) as client:
        client.mset({f"key {n}": n for n in range(2500)})
        client.set("soon gone", "1", ex=60)
        client.set("not so soon", "1", ex=90)
    assert soak.count_keys(path) == 2502
    assert soak.count_keys(path, 70.0) == 2501
