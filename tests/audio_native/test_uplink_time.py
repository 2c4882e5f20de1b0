"""Order and media time of the uplink under everything a carrier, or somebody in its place, may send."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_native.g711 import bytes_to_pcmu
from audio_native.uplink import F_BAD, F_OFFSET, F_SLOW, Uplink
from audio_native.vad import WebRtcDetector
from server.wire.grammar import telnyx_grammar, twilio_grammar
from tests.audio_native.test_media import telnyx_message, twilio_message
from tests.audio_native.test_uplink import FRAME, call_of, frame, make, message

FRAME_MS = 20


def fed(uplink: Uplink, numbers: list[int]) -> bytes:
    for number in numbers:
        assert uplink.feed(message(number)) == 0
    uplink.flush()
    return uplink.take()


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.data())
def test_messages_up_to_three_places_late_come_out_sorted(delays: list[int], data: st.DataObject) -> None:
    """Also the first one; and doubled at will."""
    count = len(delays)
    order = sorted(range(1, count + 1), key=lambda number: (number + delays[number - 1], number))
    for again in data.draw(st.lists(st.integers(1, count), max_size=8)):
        order.insert(data.draw(st.integers(order.index(again) + 1, len(order))), again)
    uplink = make(history_ms=2000, may_reorder=True)
    assert fed(uplink, order) == b"".join(map(frame, range(1, count + 1)))
    assert uplink.gap_samples == 0 and uplink.given_up == uplink.late == 0
    assert uplink.duplicates == len(order) - count


def test_stream_that_begins_in_the_middle_is_not_filled() -> None:
    assert fed(make(), [3, 4, 5, 6, 7]) == b"".join(map(frame, range(3, 8)))
    uplink = make()
    assert fed(uplink, [900, 901]) == frame(900) + frame(901)
    assert uplink.gap_samples == 0 and uplink.given_up == 0


def test_without_a_window_nothing_waits() -> None:
    uplink = make(reorder_frames=0)
    for number in (2, 1, 4):
        uplink.feed(message(number))
    assert uplink.take() == frame(2) + b"\xff" * FRAME + frame(4)


def test_numbers_that_begin_anew_do_not_make_the_call_deaf() -> None:
    uplink = make()
    for number in range(1000, 1010):
        uplink.feed(message(number))
    for number in range(1, 21):
        uplink.feed(message(number))
    # Four are lost until five in a row have told.
    assert uplink.take() == b"".join(map(frame, range(1000, 1010))) + b"".join(map(frame, range(5, 21)))
    assert uplink.duplicates == 4 and uplink.gap_samples == 0


def test_one_number_out_of_nowhere_is_dropped() -> None:
    uplink = make()
    for number in [1, 2, 10**15, 3, 4, 5, 10**16, 6, 7]:
        uplink.feed(message(number))
    assert uplink.take() == b"".join(map(frame, range(1, 8)))
    assert uplink.bad == 2


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("jitter_ms", [0, 7])
def test_media_time_is_within_a_frame_after_ten_minutes(loss: float, jitter_ms: int) -> None:
    chance = random.Random(f"{loss} {jitter_ms}")
    uplink = make(history_ms=1000)
    kept = [number for number in range(1, 30_001) if number in (1, 30_000) or chance.random() > loss]
    for number in kept:
        at_ms = max(0, (number - 1) * FRAME_MS + chance.randint(-jitter_ms, jitter_ms) * (number > 1))
        uplink.feed_payload(frame(number), number, at_ms)
    uplink.flush()
    assert abs(uplink.position_samples - 30_000 * FRAME) <= FRAME
    assert uplink.gap_samples > 0 and uplink.frames == len(kept)


@pytest.mark.parametrize(("pause_ms", "filled_ms"), [(40, 0), (60, 0), (80, 80), (2000, 2000), (60_000, 10_000)])
def test_pause_without_a_missing_number_is_filled(pause_ms: int, filled_ms: int) -> None:
    """A carrier that sends nothing in silence goes on with the next number and a later time."""
    uplink = make(history_ms=20_000)
    for number in range(1, 21):
        uplink.feed_payload(frame(number), number, (number - 1) * FRAME_MS + (pause_ms if number > 10 else 0))
    assert uplink.gap_samples == filled_ms * 8
    assert uplink.position_samples == 20 * FRAME + filled_ms * 8
    assert uplink.take()[10 * FRAME :][: filled_ms * 8] == b"\xff" * (filled_ms * 8)


@pytest.mark.parametrize("times", [[0] * 30, [10**18] * 30, [2**64 - 1, 0] * 15, list(range(600, 0, -20))])
def test_times_that_make_no_sense_change_nothing(times: list[int]) -> None:
    uplink = make()
    for number, at_ms in enumerate(times, 1):
        uplink.feed_payload(frame(number), number, at_ms)
    assert uplink.position_samples == 30 * FRAME


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 40) | st.integers(1, 2**64 - 1),
            st.integers(0, 2000) | st.integers(0, 2**64 - 1),
            st.integers(1, 400),
        ),
        max_size=30,
    )
)
def test_any_numbers_keep_the_bounds(messages: list[tuple[int, int, int]]) -> None:
    uplink = make(history_ms=500)
    for chunk, at_ms, size in messages:
        before = uplink.position_samples
        assert uplink.feed_payload(b"\x00" * size, chunk, at_ms) & (F_SLOW | F_BAD) == 0
        # A message brings at most what was held, itself, and ten seconds of silence before each.
        assert before <= uplink.position_samples <= before + 5 * (400 + 80_000)
        assert len(uplink.history(0, uplink.position_samples)) <= 4000
    uplink.flush()
    assert len(uplink.take()) <= 4000


def test_refused_payload_of_many_kilobytes_costs_no_history() -> None:
    """It once slid the ring's kept bytes out before it was found to be bad."""
    uplink = make(history_ms=8000)
    for number in range(1, 601):
        uplink.feed(message(number))
    bad = base64.b64encode(bytes(45_000)).decode()[:-4] + "A?AA"
    for _ in range(5):
        assert uplink.feed(twilio_message(602, 601, 12_000, bad)) == F_BAD
    assert uplink.history(0, uplink.position_samples) == b"".join(map(frame, range(201, 601)))


# ── one meaning on both paths ─────────────────────────────────────────────────────────────────────────────────

SPELLINGS: list[Any] = [
    lambda text: text,
    lambda text: text.replace(b"/", b"\\/"),
    lambda text: text.replace(b":", b": "),
    lambda text: text.replace(b",", b", "),
    lambda text: b" " + text + b"\n",
    lambda text: text.replace(b"inbound", b"outbound"),
    lambda text: text.replace(b'"inbound"', b'"in\\u0062ound"'),
    lambda text: text.replace(b"u-1", b"u-2").replace(b"MZ1", b"MZ2"),
    lambda text: text.replace(b'"event":"media",', b"")[:-1] + b',"event":"media"}',
    lambda text: text[:-1] + b',"more":{"payload":"AAAA"}}',
    lambda text: text.replace(b'"payload"', b'"payload":"AAAA","payload"'),
    lambda text: text.replace(b'"media":{', b'"media":{"more":"\xc3\xa9",'),
    lambda text: text.replace(b"=", b""),
    lambda text: text[: len(text) // 2],
]


def by_parser(uplink: Uplink, text: bytes, stream_key: str, stream_id: str) -> int:
    """What the slow path does, with a parser that shares nothing with ours."""
    try:
        parsed = orjson.loads(text)
        inner = parsed["media"]
        if parsed["event"] != "media" or parsed[stream_key] != stream_id or inner["track"] != "inbound":
            return 0
        if len(inner["payload"]) % 4:
            return F_BAD  # Python 3.11 takes some of these
        payload = base64.b64decode(inner["payload"], validate=True)
        return uplink.feed_payload(payload, int(inner["chunk"]), int(inner["timestamp"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return F_BAD


@settings(max_examples=150)
@given(
    st.sampled_from(["twilio", "telnyx"]),
    st.lists(
        st.tuples(
            st.integers(1, 12), st.integers(1, 320), st.sampled_from(SPELLINGS), st.integers(0, 2**32), st.booleans()
        ),
        max_size=25,
    ),
)
def test_fast_path_and_parser_leave_the_same_call(carrier: str, sent: list[tuple[int, int, Any, int, bool]]) -> None:
    write, stream = {
        "twilio": (twilio_message, ("streamSid", "MZ1")),
        "telnyx": (telnyx_message, ("stream_id", "u-1")),
    }[carrier]
    grammar = twilio_grammar("MZ1") if carrier == "twilio" else telnyx_grammar("u-1")
    both, slow = make(grammar=grammar), make(grammar=None)
    for number, size, spell, seed, damage in sent:
        payload = base64.b64encode(random.Random(seed).randbytes(size)).decode()
        text = spell(write(number + 1, number, number * 20, payload))
        if damage:
            at = seed % len(text)
            text = text[:at] + bytes([seed // 7 % 256]) + text[at + 1 :]
        flags = both.feed(text)
        if flags & F_SLOW:
            flags = by_parser(both, text, *stream)
        assert flags == by_parser(slow, text, *stream), text
        assert both.position_samples == slow.position_samples
        assert (both.frames, both.duplicates, both.reordered) == (slow.frames, slow.duplicates, slow.reordered)
    both.flush(), slow.flush()
    assert both.take() == slow.take()


# ── sound out ─────────────────────────────────────────────────────────────────────────────────────────────────


def resampled() -> tuple[Uplink, bytes]:
    noise = np.random.default_rng(3).integers(-9000, 9000, 12_000).astype(np.int16).tobytes()
    uplink = make(grammar=None, codec="PCMU", out="s16")
    for number in range(75):
        uplink.feed_payload(bytes_to_pcmu(noise)[number * 160 :][:160], number + 1, number * 20)
    return uplink, uplink.take()


@pytest.mark.parametrize(("start", "stop"), [(0, 12_000), (1, 2), (239, 900), (241, 242), (5000, 9001)])
def test_history_is_what_was_taken(start: int, stop: int) -> None:
    uplink, taken = resampled()
    assert uplink.history(start, stop) == taken[start * 4 : stop * 4]


def test_seek_goes_on_as_if_nothing_had_been_skipped() -> None:
    uplink, taken = resampled()
    uplink.seek(4321)
    assert uplink.take() == taken[4321 * 4 :]


def test_the_filter_rings_out_after_the_end() -> None:
    uplink, _ = resampled()
    uplink.flush()
    tail = uplink.take()
    assert 0 < len(tail) <= 4 * 32 * 2  # two milliseconds
    assert uplink.take() == b""


def test_the_end_closes_the_talkspurt() -> None:
    uplink = make(codec="S16", detector=WebRtcDetector())
    audio = call_of([("silence", 0.5), ("speech", 1)]).tobytes()
    for number in range(len(audio) // 320):
        uplink.feed_payload(audio[number * 320 :][:320], number + 1, number * 20)
    assert uplink.is_speaking
    assert uplink.flush() & F_OFFSET and not uplink.is_speaking
    assert uplink.onset_samples < uplink.offset_samples <= uplink.position_samples


def test_silence_that_we_filled_in_does_not_open_the_gate_for_noise() -> None:
    """The gate has risen above steady noise; lost messages must not make it fall to the level of our silence."""

    class Always:
        rate_hz, frame_ms = 8000, 20
        asked = 0

        def is_speech(self, pcm: bytes) -> bool:
            Always.asked += 1
            return False

    uplink = make(codec="S16", detector=Always(), reorder_frames=0)
    noise = np.random.default_rng(5).normal(0, 300, (3000, FRAME)).astype(np.int16)
    number = 0
    for samples in noise[:1500]:
        number += 1
        uplink.feed_payload(samples.tobytes(), number, number * 20)
    Always.asked = 0
    for samples in noise[1500:]:
        number += 2 if number % 50 == 0 else 1
        uplink.feed_payload(samples.tobytes(), number, number * 20)
    assert uplink.gap_samples > 0 and Always.asked == 0
