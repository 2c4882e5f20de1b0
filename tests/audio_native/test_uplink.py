"""A call's way in: order, gaps, time, speech and the recogniser's audio."""

from __future__ import annotations

import base64
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_native.g711 import bytes_to_pcma, bytes_to_pcmu, pcmu_to_bytes
from audio_native.resample import Resampler
from audio_native.silero import SileroStream
from audio_native.uplink import F_AUDIO, F_BAD, F_CONFIRMED, F_OFFSET, F_ONSET, F_SLOW, Uplink
from audio_native.vad import WebRtcDetector
from server.wire.grammar import twilio_grammar
from tests.audio_native.test_media import twilio_message

FRAME = 160


def frame(number: int) -> bytes:
    """160 PCMU codes that name their number."""
    return bytes([number % 251, number // 251 % 251]) * (FRAME // 2)


def message(number: int, payload: bytes | None = None) -> bytes:
    coded = base64.b64encode(frame(number) if payload is None else payload).decode()
    return twilio_message(number + 1, number, (number - 1) * 20, coded)


def make(**settings: object) -> Uplink:
    return Uplink(**{"grammar": twilio_grammar("MZ1"), "codec": "PCMU", "out": "wire", **settings})  # type: ignore[arg-type]


def test_frames_in_order_cost_no_flag() -> None:
    uplink = make()
    assert [uplink.feed(message(n)) for n in range(1, 50)] == [0] * 49
    assert uplink.position_samples == 49 * FRAME and uplink.frames == 49
    assert uplink.take() == b"".join(map(frame, range(1, 50)))
    assert uplink.take() == b""


def test_memoryview_and_first_chunk_of_any_number() -> None:
    uplink = make()
    assert uplink.feed(memoryview(message(17))) == 0
    assert uplink.feed(message(18)) == 0
    assert uplink.gap_samples == 0


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 12), max_size=6))
def test_any_order_within_the_window_is_the_sorted_stream(order: list[int], repeats: list[int]) -> None:
    # A message may be at most three places late: sort by a jittered key keeps that bound.
    jittered = sorted(range(2, 14), key=lambda n: n + (order.index(n - 1) % 3))
    uplink = make(may_reorder=True)
    uplink.feed(message(1))
    sent = []
    for number in jittered:
        uplink.feed(message(number))
        sent.append(number)
        for again in repeats:
            if again in sent:
                uplink.feed(message(again))
    uplink.flush()
    assert uplink.take() == b"".join(map(frame, range(1, 14)))
    assert uplink.gap_samples == 0


def test_lost_frames_become_silence_of_the_same_length() -> None:
    uplink = make()
    for number in (1, 2, 5):
        uplink.feed(message(number))
    assert uplink.take() == frame(1) + frame(2) + b"\xff" * 320 + frame(5)
    assert (uplink.gap_samples, uplink.given_up) == (320, 2)


@pytest.mark.parametrize("loss", [0.01, 0.1])
def test_media_time_is_true_after_ten_minutes_of_loss(loss: float) -> None:
    chance = random.Random(7)
    uplink = make(history_ms=1000)
    for number in range(1, 30_001):
        if number == 1 or chance.random() > loss:
            uplink.feed(message(number))
    uplink.flush()
    assert abs(uplink.position_samples - 30_000 * FRAME) <= FRAME * 4
    assert uplink.gap_samples > 0


def test_gap_is_bounded_and_timestamps_that_do_not_tell_are_not_believed() -> None:
    uplink = make()
    uplink.feed(message(1))
    for number in range(100_000, 100_004):
        uplink.feed(message(number))
    assert uplink.gap_samples == 80_000  # ten seconds, whatever the peer says
    uplink = make()
    payload = base64.b64encode(frame(1)).decode()
    uplink.feed(twilio_message(2, 1, 0, payload))
    for number in (4, 5, 6, 7):
        uplink.feed(twilio_message(number, number, 0, payload))
    assert uplink.gap_samples == 2 * FRAME


@pytest.mark.parametrize("payload", ["", "A", "fn5", "fn5?", "=AAA"])
def test_bad_payload_is_counted_and_dropped(payload: str) -> None:
    uplink = make()
    uplink.feed(message(1))
    assert uplink.feed(message(2).replace(base64.b64encode(frame(2)), payload.encode())) == F_BAD
    assert (uplink.bad, uplink.position_samples) == (1, FRAME)
    uplink.feed(message(2))
    assert uplink.position_samples == 2 * FRAME


@pytest.mark.parametrize("payload", ["fn5+\\n", "fn5\\/", 'fn5+","codec":"PCMU'])
def test_escapes_and_further_keys_are_left_to_the_parser(payload: str) -> None:
    uplink = make()
    uplink.feed(message(1))
    assert uplink.feed(message(2).replace(base64.b64encode(frame(2)), payload.encode())) == F_SLOW
    assert uplink.bad == 0


def test_half_a_sample_in_a_message_is_bad() -> None:
    uplink = make(codec="L16")
    assert uplink.feed(message(1, b"abc")) == F_BAD
    assert (uplink.bad, uplink.position_samples) == (1, 0)


def test_other_messages_take_the_slow_path() -> None:
    uplink = make()
    for text in (b'{"event":"mark"}', message(1).replace(b"inbound", b"outbound"), b"\xff" * 40, b"x" * 70_000):
        assert uplink.feed(text) == F_SLOW
    assert Uplink(grammar=None, codec="PCMU").feed(message(1)) == F_SLOW
    assert uplink.position_samples == 0


@given(st.lists(st.integers(1, 30_000), max_size=12), st.sampled_from(["PCMU", "PCMA", "L16", "S16"]))
def test_payloads_of_any_length_and_both_paths_agree(sizes: list[int], codec: str) -> None:
    width = 1 if codec.startswith("PCM") else 2
    fast, slow = make(codec=codec, history_ms=60_000), make(codec=codec, history_ms=60_000)
    expected = b""
    for number, size in enumerate(sizes, 1):
        payload = bytes((size + i) % 256 for i in range(size * width))[:48_000]
        slow.feed_payload(payload, number, 0)
        text = twilio_message(number + 1, number, 0, base64.b64encode(payload).decode())
        if len(text) <= 65536:
            fast.feed(text)
        else:
            fast.feed_payload(payload, number, 0)
        expected += payload
    kept = expected[-60 * 8000 * width :]
    assert fast.take() == slow.take() == kept


def test_half_a_sample_is_bad() -> None:
    uplink = make(codec="L16")
    assert uplink.feed_payload(b"abc", 1, 0) == F_BAD
    assert uplink.feed_payload(b"", 1, 0) == F_BAD
    assert uplink.feed_payload(b"ab", 0, 0) == F_BAD
    assert uplink.bad == 3


def speech(seconds: float) -> np.ndarray:
    """Voiced-like sound: a 120 Hz pulse train with formants, which WebRTC's detector takes for speech."""
    n = int(seconds * 8000)
    t = np.arange(n) / 8000
    tone = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 25))
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    return (tone * envelope * 3000).astype(np.int16)


def call_of(parts: list[tuple[str, float]], noise: int = 8) -> np.ndarray:
    chance = np.random.default_rng(3)
    pieces = [speech(s) if kind == "speech" else np.zeros(int(s * 8000), np.int16) for kind, s in parts]
    audio = np.concatenate(pieces)
    return (audio + chance.integers(-noise, noise + 1, audio.size)).astype(np.int16)


def listen(audio: np.ndarray, chunk: int = FRAME, codec: str = "PCMU", **settings: object) -> list[tuple[int, int]]:
    encode = {"PCMU": bytes_to_pcmu, "PCMA": bytes_to_pcma, "S16": bytes}[codec]
    uplink = make(detector=WebRtcDetector(2), codec=codec, **settings)
    coded = encode(audio.tobytes())
    width = 2 if codec == "S16" else 1
    seen = []
    for number, at in enumerate(range(0, len(coded), chunk * width), 1):
        flags = uplink.feed_payload(coded[at : at + chunk * width], number, 0)
        if flags & F_ONSET:
            seen.append((F_ONSET, uplink.onset_samples))
        if flags & F_CONFIRMED:
            seen.append((F_CONFIRMED, uplink.position_samples))
        if flags & F_OFFSET:
            seen.append((F_OFFSET, uplink.offset_samples))
    return seen


@pytest.mark.parametrize(("gap_s", "leads"), [(0.3, True), (0.8, False)])
def test_a_word_that_the_network_let_pass_leads_the_talkspurt_that_follows(gap_s: float, leads: bool) -> None:
    """Speech that scores nothing, a gap, and speech that scores."""
    scorer = SileroStream()
    uplink = make(detector=WebRtcDetector(2), scorer=scorer)
    parts = [("silence", 0.5), ("speech", 0.4), ("silence", gap_s), ("speech", 0.5)]
    coded = bytes_to_pcmu(call_of(parts).tobytes())
    second = round((0.9 + gap_s) * 8000)
    for number, at in enumerate(range(0, len(coded), FRAME), 1):
        scorer.put_score(255 if at >= second else 0)
        if uplink.feed_payload(coded[at : at + FRAME], number, 0) & F_ONSET:
            break
    assert abs(uplink.onset_samples - second) <= 800
    assert abs(uplink.lead_samples - (4000 if leads else second)) <= 800
    assert uplink.lead_samples <= uplink.onset_samples


def test_talkspurt_opens_is_confirmed_and_closes() -> None:
    seen = listen(call_of([("silence", 1), ("speech", 1), ("silence", 1)]))
    assert [kind for kind, _ in seen] == [F_ONSET, F_CONFIRMED, F_OFFSET]
    assert seen[0][1] == pytest.approx(8000, abs=480)
    assert seen[1][1] == pytest.approx(8000 + 1600, abs=640)
    assert seen[2][1] == pytest.approx(16000, abs=1600)


def test_short_noise_opens_nothing_and_short_word_is_not_confirmed() -> None:
    assert listen(call_of([("silence", 1), ("speech", 0.02), ("silence", 1)])) == []
    kinds = [kind for kind, _ in listen(call_of([("silence", 1), ("speech", 0.1), ("silence", 1)]), confirm_ms=400)]
    assert kinds == [F_ONSET, F_OFFSET]


def test_pause_shorter_than_the_hangover_is_bridged() -> None:
    parts = [("silence", 0.5), ("speech", 0.6), ("silence", 0.1), ("speech", 0.6), ("silence", 1)]
    kinds = [kind for kind, _ in listen(call_of(parts), hangover_ms=400)]
    assert kinds == [F_ONSET, F_CONFIRMED, F_OFFSET]


def test_quiet_speech_is_below_the_gate() -> None:
    audio = (call_of([("silence", 1), ("speech", 1), ("silence", 1)], noise=1) // 64).astype(np.int16)
    assert listen(audio, level_gate_dbfs=-40) == []


@pytest.mark.parametrize("chunk", [40, 80, 160, 161, 240, 1600, 8000])
def test_decisions_do_not_depend_on_how_audio_is_cut(chunk: int) -> None:
    audio = call_of([("silence", 0.5), ("speech", 0.8), ("silence", 0.6), ("speech", 0.3), ("silence", 0.6)])
    whole = [(kind, at) for kind, at in listen(audio) if kind != F_CONFIRMED]
    cut = [(kind, at) for kind, at in listen(audio, chunk) if kind != F_CONFIRMED]
    if chunk <= 240:
        assert cut == whole
    else:
        # Several things happen in one message: the last onset and offset are what is known after it.
        assert cut[-1] == whole[-1]


def test_burst_after_a_stall_is_heard_in_media_time() -> None:
    audio = call_of([("silence", 0.3), ("speech", 0.15), ("silence", 1.5)])
    one_by_one = listen(audio, confirm_ms=300)
    assert F_CONFIRMED not in [kind for kind, _ in one_by_one]
    # Two seconds at once: what lasted 150 ms has still lasted 150 ms.
    assert F_CONFIRMED not in [kind for kind, _ in listen(audio, 16_000, confirm_ms=300)]


def test_second_detector_has_the_last_word() -> None:
    class Never:
        rate_hz, frame_ms = 8000, 20
        asked = 0

        def is_speech(self, pcm: bytes) -> bool:
            assert len(pcm) == 320
            Never.asked += 1
            return False

    assert listen(call_of([("silence", 0.5), ("speech", 1)]), decider=Never()) == []
    assert Never.asked > 10


@pytest.mark.parametrize(("codec", "rate_hz"), [("PCMU", 8000), ("PCMA", 8000), ("S16", 16000)])
def test_output_is_the_resampled_stream_whatever_the_cut(codec: str, rate_hz: int) -> None:
    chance = random.Random(5)
    s16 = np.random.default_rng(1).integers(-8000, 8000, 16_000).astype(np.int16).tobytes()
    coded = {"PCMU": bytes_to_pcmu, "PCMA": bytes_to_pcma, "S16": bytes}[codec](s16)
    uplink = Uplink(grammar=None, codec=codec, rate_hz=rate_hz, out="s16", out_rate_hz=16000)
    got, at, number = b"", 0, 0
    while at < len(coded):
        size = chance.choice([2, 160, 320, 1600])
        number += 1
        uplink.feed_payload(coded[at : at + size], number, 0)
        at += size
        if chance.random() < 0.3:
            got += uplink.take()
    got += uplink.take()
    linear = pcmu_to_bytes(coded) if codec == "PCMU" else s16
    if codec == "PCMA":
        from audio_native.g711 import pcma_to_bytes

        linear = pcma_to_bytes(coded)
    expected = Resampler(8000, 16000).process(linear) if rate_hz == 8000 else linear
    assert got == expected
    whole = uplink.history(0, uplink.position_samples)
    assert whole == expected


def test_audio_is_announced_only_while_wanted_and_seek_goes_back() -> None:
    uplink = make(chunk_ms=40)
    flags = [uplink.feed(message(n)) for n in range(1, 11)]
    assert not any(flags)
    uplink.is_wanted = True
    assert uplink.feed(message(11)) == F_AUDIO
    uplink.seek(8 * FRAME)
    assert uplink.take() == frame(9) + frame(10) + frame(11)
    assert uplink.feed(message(12)) == 0
    assert uplink.feed(message(13)) == F_AUDIO
    with pytest.raises(ValueError, match="at most"):
        uplink.seek(14 * FRAME)
    with pytest.raises(ValueError, match="from <= to"):
        uplink.history(0, 14 * FRAME)


def test_what_is_taken_too_late_is_counted() -> None:
    uplink = make(history_ms=500)
    for number in range(1, 101):
        uplink.feed(message(number))
    assert len(uplink.take()) == 4000
    assert uplink.overruns == 100 * FRAME - 4000
    assert uplink.history(0, uplink.position_samples)[:FRAME] == frame(76)


@pytest.mark.parametrize(
    "wrong",
    [
        {"codec": "OPUS"},
        {"out": "float"},
        {"rate_hz": 4000},
        {"onset_ms": 0},
        {"confirm_ms": 20},
        {"history_ms": 10},
        {"reorder_frames": 99},
        {"detector": WebRtcDetector(2, 16000)},
        {"level_gate_dbfs": 3},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        make(**wrong)


def test_level_is_that_of_the_last_frame() -> None:
    uplink = make(codec="S16", rate_hz=8000)
    uplink.feed_payload(np.full(FRAME, 16384, np.int16).tobytes(), 1, 0)
    assert uplink.level_dbfs == pytest.approx(-6.02, abs=0.01)
