"""What the tape notes is what came in, whatever the numbers, and what is no tape is refused."""

from __future__ import annotations

import base64
import random

import numpy as np
import pytest

from audio_native.silero import WINDOW_SAMPLES, SileroNet, SileroStream
from audio_native.silero_weights import packaged_file, read_weights
from audio_native.tape import TAPE_BAD, TAPE_MEDIA, TAPE_SCORE, Tape, read_tape
from audio_native.uplink import F_BAD, Uplink
from server.wire.grammar import twilio_grammar

STREAM = "MZ" + "0" * 32


def made(tape: Tape, codec: str = "PCMU", scorer: SileroStream | None = None) -> Uplink:
    return Uplink(grammar=twilio_grammar(STREAM), codec=codec, tape=tape, scorer=scorer)


def message(chunk: int, timestamp_ms: int, payload: bytes) -> bytes:
    return (
        f'{{"event":"media","sequenceNumber":"{chunk}","media":{{"track":"inbound","chunk":"{chunk}",'
        f'"timestamp":"{timestamp_ms}","payload":"{base64.b64encode(payload).decode()}"}},"streamSid":"{STREAM}"}}'
    ).encode()


@pytest.mark.parametrize("keeps_audio", [True, False])
def test_messages_come_back_as_they_came(keeps_audio: bool) -> None:
    dice = random.Random(1)
    tape = Tape(keeps_audio=keeps_audio)
    uplink = made(tape)
    expected = []
    blocks = []
    for _ in range(3000):
        chunk, timestamp_ms = dice.choice([(dice.randrange(1, 400), 20), (dice.randrange(1, 10**17), 10**17)])
        payload = dice.randbytes(dice.choice([1, 160, 160, 800]))
        tape.now_ns = dice.randrange(-(2**62), 2**62)
        if dice.random() < 0.5:
            uplink.feed(message(chunk, timestamp_ms, payload))
        else:
            uplink.feed_payload(payload, chunk, timestamp_ms)
        kept = payload if keeps_audio else b""
        expected.append((TAPE_MEDIA, tape.now_ns, chunk, timestamp_ms, len(payload), kept))
        if dice.random() < 0.02:
            blocks.append(tape.take())
    blocks.append(tape.take())
    assert [one for block in blocks for one in read_tape(block, has_audio=keeps_audio)] == expected
    assert tape.take() == b"" and tape.lost == 0


@pytest.mark.parametrize("keeps_audio", [True, False])
def test_a_running_stream_comes_back_with_its_faults_and_silences(keeps_audio: bool) -> None:
    """Mostly the next chunk, now and then lost, doubled, swapped, longer or of another step; speech and silence."""
    dice = random.Random(4)
    tape = Tape(keeps_audio=keeps_audio)
    uplink = made(tape)
    expected, blocks, chunk, now_ns = [], [], 0, 10**12
    for _ in range(4000):
        chunk += dice.choices((1, 2, 0, -1), (94, 2, 2, 2))[0]
        step_ms = dice.choices((20, 19, 40), (94, 3, 3))[0]
        payload = dice.choice((dice.randbytes(160), b"\xff" * 160, b"\xff" * 159 + b"\x7f", b"\x00" * 320, b"\xff"))
        now_ns += dice.randrange(40_000_000)
        tape.now_ns = now_ns
        uplink.feed_payload(payload, max(1, chunk), max(1, chunk) * step_ms)
        kept = payload if keeps_audio else b""
        expected.append((TAPE_MEDIA, now_ns, max(1, chunk), max(1, chunk) * step_ms, len(payload), kept))
        if dice.random() < 0.1:
            blocks.append(tape.take())
    blocks.append(tape.take())
    assert [one for block in blocks for one in read_tape(block, has_audio=keeps_audio)] == expected


def test_a_message_of_a_running_stream_takes_five_bytes_and_silence_one_more() -> None:
    for keeps_audio, each in ((False, 5), (True, 6)):
        tape = Tape(keeps_audio=keeps_audio)
        uplink = made(tape)
        for chunk in range(1, 101):
            tape.now_ns = 5_000_000_000 + chunk * 20_000_000
            uplink.feed(message(1000 + chunk, (1000 + chunk) * 20, b"\xff" * 160))
        assert len(tape) <= each * 100 + 10


def test_tapes_of_the_first_version_are_read() -> None:
    # Arrival 1 ns, chunk 1, timestamp 20 ms, two codes; then everything the same again, and a score.
    old = bytes((1, 2, 2, 40, 2, 7, 7, 1, 2, 2, 40, 2, 7, 8, 3, 2, 255))
    assert read_tape(old, has_audio=True) == [
        (TAPE_MEDIA, 1, 1, 20, 2, b"\x07\x07"), (TAPE_MEDIA, 2, 2, 40, 2, b"\x07\x08"), (TAPE_SCORE, 3, 255),
    ]  # fmt: skip


def test_payloads_that_are_none_are_noted_as_bad() -> None:
    tape = Tape(keeps_audio=True)
    uplink = made(tape)
    tape.now_ns = 7
    assert uplink.feed(message(1, 20, b"").replace(b'"payload":""', b'"payload":"A"')) == F_BAD
    assert uplink.feed_payload(b"", 1, 20) == F_BAD
    assert made(tape, "L16").feed_payload(b"abc", 1, 20) == F_BAD
    assert read_tape(tape.take(), has_audio=True) == [(TAPE_BAD, 7)] * 3


def test_scores_are_noted_with_the_instant_at_which_they_became_known() -> None:
    net = SileroNet(read_weights(packaged_file()))
    first, second, untaped = SileroStream(), SileroStream(), SileroStream()
    first.tape, second.tape = Tape(), Tape()
    sound = (np.random.default_rng(1).normal(0, 5000, WINDOW_SAMPLES)).astype("<i2").tobytes()
    for stream in (first, untaped):
        stream.push(sound)
    net.score([first, second, untaped], 123)
    first.push(sound)
    net.score([first], 456)
    assert [one[:2] for one in read_tape(first.tape.take())] == [(TAPE_SCORE, 123), (TAPE_SCORE, 456)]
    assert second.tape.take() == b""
    again = SileroStream()
    again.put_score(200)
    assert again.score == 200 and again.probability == pytest.approx(200 / 255)
    with pytest.raises(ValueError):
        again.put_score(256)


def test_a_silence_that_is_made_up_is_refused() -> None:
    first = bytes((9, 2, 2, 40, *b"\x80\x80\x04", 255))  # 65,536 codes
    assert len(read_tape(first, has_audio=True)[0][5]) == 65_536
    with pytest.raises(ValueError, match="silence"):
        read_tape(bytes((9, 2, 2, 40, *b"\x81\x80\x04", 255)), has_audio=True)
    with pytest.raises(ValueError, match="silence"):
        read_tape(first + bytes((12, 2, 255)) * 256, has_audio=True)  # 16 MiB from 777 bytes


def test_a_tape_that_nobody_takes_loses_what_comes_and_counts_it() -> None:
    tape = Tape(keeps_audio=True)
    uplink = made(tape)
    speech = random.Random(6).randbytes(20_000)
    for chunk in range(1, 100):
        uplink.feed_payload(speech, chunk, chunk * 2500)
    assert tape.lost == 99 - len(read_tape(tape.take(), has_audio=True)) > 40
    tape.close()
    uplink.feed_payload(bytes(160), 100, 250_000)
    assert tape.is_closed and tape.take() == b""


def test_what_is_no_tape_is_refused() -> None:
    tape = Tape(keeps_audio=True)
    uplink = made(tape)
    for chunk in range(1, 20):
        tape.now_ns = chunk * 20_000_000
        uplink.feed_payload(bytes([chunk]) * 159 + bytes([chunk % 2]), chunk, chunk * 20)
    block = tape.take()
    whole = read_tape(block, has_audio=True)
    for cut in range(len(block)):
        try:
            found = read_tape(block[:cut], has_audio=True)
        except ValueError:
            continue
        assert found == whole[: len(found)]
    dice = random.Random(2)
    refused = 0
    for _ in range(3000):
        try:
            read_tape(dice.randbytes(dice.randrange(1, 60)), has_audio=dice.random() < 0.5)
        except ValueError:
            refused += 1
    assert refused > 2500
