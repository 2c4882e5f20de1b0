"""A media message's way in, whole and in its parts, beside what a Python server would do with it.

    python -m pytest bench/micro/bench_uplink.py --benchmark-enable --benchmark-only --benchmark-group-by=param:way

Both sides find the payload in the carrier's JSON, decode base64 and mu-law, measure the level, keep the audio, and
hand it out in chunks of 100 ms: as wire bytes, or as s16 at 16 kHz ("resampled"). Ours also matches stream, track and
numbers, orders by chunk and keeps 8 s. Neither side runs a voice detector. Each message is new bytes, as from a socket.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import orjson
import pybase64
import pytest
import soxr

from audio_native import media, ring
from audio_native.uplink import F_AUDIO, Uplink
from bench.micro.bench_kernels import speech, sweep
from server.wire.grammar import twilio_grammar

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

CHUNK_FRAMES = 5  # 100 ms, what recognisers are sent
Feed = Callable[[bytes], object]


def stream_id(call: int) -> str:
    return f"MZ{call:032x}"


def coded() -> list[bytes]:
    """Frames of 160 PCMU codes."""
    return [audioop.lin2ulaw(frame.tobytes(), 2) for frame in speech(8_000)]


PAYLOADS = [base64.b64encode(frame) for frame in coded()]


def message(call: int, chunk: int) -> bytes:
    """What Twilio sends for frame `chunk` (from 1) of `call`, 381 bytes and more; always a new object."""
    return (
        b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d",'
        b'"payload":"%b"},"streamSid":"MZ%032x"}'
        % (chunk + 1, chunk, chunk * 20 - 20, PAYLOADS[(chunk + call * 7) % len(PAYLOADS)], call)
    )


# ── ours ──────────────────────────────────────────────────────────────────────────────────────────────────────


def native(call: int, *, resampled: bool) -> Feed:
    out = "s16" if resampled else "wire"
    uplink = Uplink(grammar=twilio_grammar(stream_id(call)), codec="PCMU", out=out, chunk_ms=100)
    uplink.is_wanted = True
    feed, take = uplink.feed, uplink.take

    def on_message(text: bytes) -> object:
        return take() if feed(text) & F_AUDIO else None

    return on_message


# ── theirs ────────────────────────────────────────────────────────────────────────────────────────────────────


class TwilioMedia(msgspec.Struct):
    track: str
    payload: bytes  # base64 inside msgspec


class TwilioMessage(msgspec.Struct):
    event: str
    media: TwilioMedia


_decoder = msgspec.json.Decoder(TwilioMessage)


def by_orjson(text: bytes) -> bytes | None:
    parsed = orjson.loads(text)
    if parsed["event"] != "media" or parsed["media"]["track"] != "inbound":
        return None
    return base64.b64decode(parsed["media"]["payload"])


def by_msgspec(text: bytes) -> bytes | None:
    parsed = _decoder.decode(text)
    return parsed.media.payload if parsed.event == "media" and parsed.media.track == "inbound" else None


def idiom(parse: Callable[[bytes], bytes | None], *, resampled: bool, by_chunk: bool = False) -> Feed:
    """`by_chunk`: the resampler is called once in 100 ms instead of for each frame."""
    held = bytearray()
    stream = soxr.ResampleStream(8_000, 16_000, 1, dtype="int16", quality="HQ")
    full = CHUNK_FRAMES * (640 if resampled and not by_chunk else 320 if resampled else 160)
    rms = 0

    def on_message(text: bytes) -> object:
        nonlocal rms
        payload = parse(text)
        if payload is None:
            return None
        linear = audioop.ulaw2lin(payload, 2)
        rms = audioop.rms(linear, 2)
        if not resampled:
            held.extend(payload)
        elif by_chunk:
            held.extend(linear)
        else:
            held.extend(stream.resample_chunk(np.frombuffer(linear, np.int16)).tobytes())
        if len(held) < full:
            return None
        # soxr lets audio out in bursts; all that there is goes on.
        chunk = bytes(held)
        held.clear()
        return stream.resample_chunk(np.frombuffer(chunk, np.int16)).tobytes() if by_chunk else chunk

    return on_message


WIRE_WAYS: dict[str, Callable[[int], Feed]] = {
    "native": lambda call: native(call, resampled=False),
    "orjson + b64decode + audioop + bytearray": lambda call: idiom(by_orjson, resampled=False),
    "msgspec + audioop + bytearray": lambda call: idiom(by_msgspec, resampled=False),
}
RESAMPLED_WAYS: dict[str, Callable[[int], Feed]] = {
    "native": lambda call: native(call, resampled=True),
    "orjson + b64decode + audioop + soxr HQ + bytearray": lambda call: idiom(by_orjson, resampled=True),
    "msgspec + audioop + soxr HQ + bytearray": lambda call: idiom(by_msgspec, resampled=True),
    "msgspec + audioop + bytearray + soxr HQ once in 100 ms": lambda call: idiom(
        by_msgspec, resampled=True, by_chunk=True
    ),
}


class Calls:
    """`count` calls served in rotation; `turn` gives each one message. Their chunks end at different turns."""

    def __init__(self, make: Callable[[int], Feed], count: int) -> None:
        self._feeds = [make(call) for call in range(count)]
        self._chunks = [0] * count
        for call in range(count):
            for _ in range(call % CHUNK_FRAMES):
                self._feeds[call](self._next(call))

    def _next(self, call: int) -> bytes:
        self._chunks[call] += 1
        return message(call, self._chunks[call])

    def prepare(self, frames_per_call: int) -> list[tuple[Feed, bytes]]:
        """The next messages, not yet fed: what comes from the sockets."""
        return [
            (self._feeds[call], self._next(call)) for _ in range(frames_per_call) for call in range(len(self._feeds))
        ]

    @staticmethod
    def turn(prepared: list[tuple[Feed, bytes]]) -> None:
        for feed, text in prepared:
            feed(text)


# ── the parts ─────────────────────────────────────────────────────────────────────────────────────────────────


def trimmed(size: int) -> Callable[[bytes], None]:
    held = bytearray()

    def write(frame: bytes) -> None:
        held.extend(frame)
        if len(held) > size:
            del held[: len(held) - size]

    return write


def parts() -> Iterator[tuple[str, Callable[[], object], dict[str, Callable[[], object]]]]:
    """(kernel, ours, {alternative: theirs}); each call does every payload once."""
    frames = coded()
    texts = [message(1, chunk) for chunk in range(1, len(frames) + 1)]
    yield (
        "base64_decode",
        sweep(media.b64decode, PAYLOADS),
        {
            "base64.b64decode(validate)": sweep(lambda text: base64.b64decode(text, validate=True), PAYLOADS),
            "pybase64 (validate)": sweep(lambda text: pybase64.b64decode(text, validate=True), PAYLOADS),
        },
    )
    yield (
        "base64_encode",
        sweep(media.b64encode, frames),
        {
            "binascii.b2a_base64": sweep(lambda data: binascii.b2a_base64(data, newline=False), frames),
            "pybase64": sweep(pybase64.b64encode, frames),
        },
    )
    yield (
        "media_scan",
        sweep(twilio_grammar(stream_id(1)).fields, texts),
        {"orjson": sweep(orjson.loads, texts), "msgspec": sweep(_decoder.decode, texts)},
    )
    writer = media.MediaWriter(b'{"event":"media","streamSid":"MZ1","media":{"payload":"', b'"}}')
    yield (
        "media_write",
        sweep(writer.message, frames),
        {
            "orjson.dumps + b64encode": sweep(
                lambda data: orjson.dumps(
                    {"event": "media", "streamSid": "MZ1", "media": {"payload": base64.b64encode(data).decode()}}
                ),
                frames,
            )
        },
    )
    kept = ring.WireRing(64_000)
    yield "ring_write", sweep(kept.write, frames), {"bytearray, trimmed": sweep(trimmed(64_000), frames)}
    held = bytearray(64_000)
    kept.write(bytes(64_000))
    spans = range(len(frames))
    yield (
        "ring_view_100_ms",
        sweep(lambda at: kept.view(kept.oldest + at, kept.oldest + at + 800), spans),
        {"bytes of a bytearray": sweep(lambda at: bytes(held[at : at + 800]), spans)},
    )


@pytest.mark.parametrize("calls", [1, 1000])
@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("way", range(4))
def test_uplink(benchmark, way: int, resampled: bool, calls: int) -> None:
    ways = RESAMPLED_WAYS if resampled else WIRE_WAYS
    if way >= len(ways):
        pytest.skip("there are three ways without resampling")
    served = Calls(list(ways.values())[way], calls)
    benchmark.pedantic(served.turn, setup=lambda: ((served.prepare(1000 // calls),), {}), rounds=20)
