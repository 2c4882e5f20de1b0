"""Callers made of captured calls: their audio as the server received it, in turns; and what cannot be used says why."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from audio_native.tape import TAPE_MEDIA, Tape, read_tape
from audio_native.uplink import Uplink
from bench.load import captured, clips
from bench.load.capture import CaptureUnreadable
from bench.load.captured import Line, from_captures, is_captured, lines, media
from bench.sim.sound import audioop, from_pcmu, write_stereo
from server.call import capture_file
from server.wire.grammar import twilio_grammar
from tests.bench.stand_in import tone

KEPT = Path(__file__).parents[1] / "data" / "captures"
HEAD = {
    "capture": 2, "call_id": "c", "carrier": "twilio", "stream_id": "MZ", "codec": "PCMU", "rate_hz": 8000,
    "has_audio": True, "scored": False, "resumed": False, "settings": {}, "opening": [],
}  # fmt: skip


def part(payloads: dict[int, bytes], **head: object) -> bytes:
    """One part of a capture, by the product's own writers: `payloads` by chunk number, 20 ms each."""
    made = {**HEAD, **head}
    tape = Tape(keeps_audio=made["has_audio"] is True)
    uplink = Uplink(grammar=twilio_grammar("MZ" + "0" * 32), codec=str(made["codec"]), tape=tape)
    for chunk, payload in payloads.items():
        uplink.feed_payload(payload, chunk, chunk * 20)
    block = tape.take()
    deflate = capture_file.compressor()
    records = capture_file.frame(capture_file.HEAD, json.dumps(made).encode()) + capture_file.of_tape(len(block))
    deflated = deflate.compress(records) + deflate.flush(2)
    return capture_file.MAGIC + capture_file.tape_block(block) + capture_file.block(deflated)


def frames(coded: bytes, size: int = 160) -> dict[int, bytes]:
    return {n: coded[at : at + size] for n, at in enumerate(range(0, len(coded), size), 1)}


TWO_TURNS = b"\xff" * 4000 + tone(600, 300) + b"\xff" * 8000 + tone(400, 500) + b"\xff" * 4000


# ── what real calls left ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.capture")), ids=lambda path: path.stem)
def test_the_bench_reads_the_audio_that_the_server_wrote(path: Path) -> None:
    written: list[dict[int, tuple[int, bytes]]] = []
    for record in capture_file.read(path):
        if isinstance(record, capture_file.Head):
            written.append({})
        for entry in record.entries if isinstance(record, capture_file.Tape) else []:
            if entry[0] == TAPE_MEDIA:
                written[-1].setdefault(entry[2], (entry[3], entry[5]))
    assert len(written) == (2 if path.stem == "stream_broken" else 1) and len(written[0]) > 200
    assert [line.messages for line in lines(path.read_bytes())] == written


@pytest.mark.parametrize(
    ("name", "turns_ms"),
    [
        ("barge_in_sentence", [922, 1347]),
        # Messages that came twice, swapped, or late and all at once: the sound is whole.
        ("duplicate_reordered", [1636, 1134]),
        ("burst_after_stall", [1636]),
        ("keys_in_speech", [1636]),
    ],
)
def test_a_captured_caller_has_the_turns_of_the_call(name: str, turns_ms: list[int]) -> None:
    found = from_captures(KEPT / f"{name}.capture")
    assert [clip.duration_ms for clip in found] == [pytest.approx(ms, abs=20) for ms in turns_ms]
    assert all(clip.text.startswith(f"{name}.capture stream 1 ") for clip in found)


def test_a_folder_of_captures_is_all_their_callers() -> None:
    assert is_captured(KEPT) and is_captured(KEPT / "cough.capture")
    found = from_captures(KEPT)
    assert len(found) == sum(len(from_captures(path)) for path in KEPT.glob("*.capture")) > 20


# ── the format ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tape_with_faults_and_silences_is_read_as_the_product_does() -> None:
    dice = random.Random(3)
    tape = Tape(keeps_audio=True)
    uplink = Uplink(grammar=twilio_grammar("MZ" + "0" * 32), codec="PCMU", tape=tape)
    seen = 0
    for _ in range(20):
        chunk = dice.randrange(1, 1000)
        timestamp_ms = dice.randrange(1, 100_000)
        for _ in range(100):
            if dice.random() < 0.2:
                chunk = max(1, chunk + dice.randrange(-3, 4))
                timestamp_ms += dice.randrange(0, 90)
            payload = dice.choice([dice.randbytes(160), b"\xff" * 160, b"\xff" * 800, dice.randbytes(1)])
            uplink.feed_payload(payload, chunk, timestamp_ms)
            chunk, timestamp_ms = chunk + 1, timestamp_ms + 20
        block = tape.take()
        expected = [(one[2], one[3], one[5]) for one in read_tape(block, has_audio=True) if one[0] == TAPE_MEDIA]
        assert list(media(block)) == expected
        seen += len(expected)
    assert seen == 2000


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "L16", "S16"])
def test_every_codec_gives_the_same_turns(codec: str, tmp_path: Path) -> None:
    s16 = from_pcmu(TWO_TURNS)
    rate_hz, coded = 8000, TWO_TURNS
    if codec == "PCMA":
        coded = audioop.lin2alaw(s16, 2)
    elif codec != "PCMU":
        rate_hz = 16000
        wide = np.repeat(np.frombuffer(s16, "<i2"), 2)
        coded = wide.astype(">i2" if codec == "L16" else "<i2").tobytes()
    path = tmp_path / "one.capture"
    path.write_bytes(part(frames(coded, len(coded) * 160 // len(TWO_TURNS)), codec=codec, rate_hz=rate_hz))
    assert [clip.duration_ms for clip in from_captures(path)] == [pytest.approx(ms, abs=25) for ms in (600, 400)]


def test_what_never_came_is_silence_and_a_second_stream_is_another_line(tmp_path: Path) -> None:
    lost = {n: one for n, one in frames(tone(2000, 300)).items() if not 30 <= n < 60}
    path = tmp_path / "one.capture"
    path.write_bytes(part(lost) + part(frames(tone(500, 300)), resumed=True))
    found = from_captures(path)
    # 580 ms, 600 ms that are missing, 820 ms; then the stream that took over.
    assert [clip.duration_ms for clip in found] == [pytest.approx(ms, abs=25) for ms in (580, 820, 500)]
    assert [clip.text.split(" stream ")[1][0] for clip in found] == ["1", "1", "2"]
    (line, _) = lines(path.read_bytes())
    assert len(line.s16()) == 2 * 16_000


def test_a_timestamp_far_away_makes_no_silence_without_end() -> None:
    line = Line("PCMU", 8000)
    line.add(1, 0, b"\x20" * 160)
    line.add(2, 10**15, b"\x20" * 160)
    assert len(line.s16()) == 2 * (320 + captured.MAX_GAP_MS * 8)


def test_a_capture_that_is_still_written_is_read_up_to_there(tmp_path: Path) -> None:
    whole = part(frames(TWO_TURNS))
    path = tmp_path / "one.capture"
    path.write_bytes(whole + struct.pack("<II", 5000, 1) + b"half a block")
    assert len(from_captures(path)) == 2


# ── what cannot be used ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (part(frames(TWO_TURNS), has_audio=False), "no audio in it: the agent's capture.audio was off"),
        (part(frames(TWO_TURNS), capture=3), "of version 3; expected 1 or 2"),
        (part(frames(TWO_TURNS), rate_hz=4000), "'PCMU' at 4000 Hz"),
        (part(frames(b"\xff" * 16000)), "the caller does not speak"),
        (part({}), "the caller does not speak"),
        (b"RIFF and something else", "not a capture of a call"),
        (capture_file.MAGIC, "nothing of it can be read"),
        (capture_file.MAGIC + capture_file.block(b"\xff" * 20), "damaged"),
    ],
)
def test_captures_that_cannot_be_used_say_why(tmp_path: Path, raw: bytes, reason: str) -> None:
    path = tmp_path / "one.capture"
    path.write_bytes(raw)
    with pytest.raises(clips.RecordingError) as caught:
        from_captures(path)
    assert reason in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_capture_without_audio_refuses_its_folder_by_name(tmp_path: Path) -> None:
    with pytest.raises(clips.RecordingError, match=r"no \*\.capture in this folder"):
        from_captures(tmp_path)
    (tmp_path / "a.capture").write_bytes(part(frames(TWO_TURNS)))
    (tmp_path / "b.capture").write_bytes(part(frames(TWO_TURNS), has_audio=False))
    with pytest.raises(clips.RecordingError, match=r"b\.capture: no audio"):
        from_captures(tmp_path)


@pytest.mark.parametrize(
    "tape", [b"\x01\x00\x02", b"\x01\x00\x02\x28\xa0\x01short", b"\x04\x00", b"\x07\x00", b"\x01" * 40]
)
def test_what_is_no_tape_is_refused(tape: bytes) -> None:
    with pytest.raises(CaptureUnreadable):
        list(media(tape))


def test_a_wav_stays_a_wav(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    write_stereo(path, TWO_TURNS, TWO_TURNS)
    assert not is_captured(path)
    # By its first bytes, whatever its name.
    (tmp_path / "renamed").write_bytes(part(frames(TWO_TURNS)))
    assert is_captured(tmp_path / "renamed")
