"""A media message's way in, whole and in its parts, beside what a Python server would do with it.

    python -m pytest bench/micro/bench_uplink.py --benchmark-enable --benchmark-only --benchmark-group-by=param:way

Both sides find the payload in the carrier's JSON, decode base64 and mu-law, measure the level, keep the audio, and
hand it out in chunks of 100 ms: as wire bytes, or as s16 at 16 kHz ("resampled"; ours makes it when it hands it out).
Ours also matches stream, track and numbers, orders by chunk and keeps 8 s. Neither side runs a voice detector. Each
message is new bytes, as from a socket.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

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
Messages = list[tuple[Any, bytes]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to serve calls: a call's state, and the loop over (state, message) that a server runs."""

    make: Callable[[int], Any]
    serve: Callable[[Messages], None]


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


def uplink(call: int, out: Literal["wire", "s16"]) -> Uplink:
    made = Uplink(grammar=twilio_grammar(stream_id(call)), codec="PCMU", out=out, chunk_ms=100)
    made.is_wanted = True
    return made


def serve_native(messages: Messages) -> None:
    for call, text in messages:
        if call.feed(text) & F_AUDIO:
            call.take()


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


class Idiom:
    """What a Python server keeps for a call."""

    __slots__ = ("held", "rms", "stream")

    def __init__(self, call: int) -> None:
        self.held = bytearray()
        self.stream = soxr.ResampleStream(8_000, 16_000, 1, dtype="int16", quality="HQ")
        self.rms = 0


def idiom(parse: Callable[[bytes], bytes | None], resample: Literal["no", "frame", "chunk"]) -> Way:
    """`resample`: never, for each frame as it comes (what libraries do), or once for the 100 ms that go out."""
    ulaw2lin, rms, frombuffer, int16 = audioop.ulaw2lin, audioop.rms, np.frombuffer, np.int16
    full = CHUNK_FRAMES * {"no": 160, "frame": 640, "chunk": 320}[resample]

    def serve(messages: Messages) -> None:
        for call, text in messages:
            payload = parse(text)
            if payload is None:
                continue
            linear = ulaw2lin(payload, 2)
            call.rms = rms(linear, 2)
            held = call.held
            if resample == "frame":
                # soxr lets audio out in bursts; all that there is goes on when there is enough.
                held += call.stream.resample_chunk(frombuffer(linear, int16)).tobytes()
            else:
                held += payload if resample == "no" else linear
            if len(held) >= full:
                chunk = bytes(held)
                held.clear()
                if resample == "chunk":
                    chunk = call.stream.resample_chunk(frombuffer(chunk, int16)).tobytes()

    return Way(Idiom, serve)


WIRE_WAYS = {
    "native": Way(lambda call: uplink(call, "wire"), serve_native),
    "orjson + b64decode + audioop + bytearray": idiom(by_orjson, "no"),
    "msgspec + audioop + bytearray": idiom(by_msgspec, "no"),
}
RESAMPLED_WAYS = {
    "native": Way(lambda call: uplink(call, "s16"), serve_native),
    "orjson + b64decode + audioop + soxr HQ + bytearray": idiom(by_orjson, "frame"),
    "msgspec + audioop + soxr HQ + bytearray": idiom(by_msgspec, "frame"),
    "msgspec + audioop + bytearray + soxr HQ once in 100 ms": idiom(by_msgspec, "chunk"),
}


class Calls:
    """`count` calls that are served one way, in rotation. Their chunks of 100 ms end at different times."""

    def __init__(self, way: Way, count: int) -> None:
        self.serve = way.serve
        self._calls = [way.make(call) for call in range(count)]
        self._chunks = [0] * count
        for call in range(count):
            way.serve([self._next(call) for _ in range(call % CHUNK_FRAMES)])

    def _next(self, call: int) -> tuple[Any, bytes]:
        self._chunks[call] += 1
        return self._calls[call], message(call, self._chunks[call])

    def prepare(self, frames_per_call: int) -> Messages:
        """The next messages, not yet served: what comes from the sockets."""
        return [self._next(call) for _ in range(frames_per_call) for call in range(len(self._calls))]


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
    written = ring.WireRing(64_000)
    yield "ring_write", sweep(written.write, frames), {"bytearray, trimmed": sweep(trimmed(64_000), frames)}
    kept, held = ring.WireRing(64_000), bytearray(64_000)
    kept.write(bytes(64_000))
    spans = range(len(frames))
    yield (
        "ring_view_100_ms",
        sweep(lambda at: kept.view(at, at + 800), spans),
        {"bytes of a bytearray": sweep(lambda at: bytes(held[at : at + 800]), spans)},
    )


@pytest.mark.parametrize("calls", [1, 1000])
@pytest.mark.parametrize(
    ("resampled", "way"), [(False, way) for way in WIRE_WAYS] + [(True, way) for way in RESAMPLED_WAYS]
)
def test_uplink(benchmark, way: str, resampled: bool, calls: int) -> None:
    served = Calls((RESAMPLED_WAYS if resampled else WIRE_WAYS)[way], calls)
    benchmark.pedantic(served.serve, setup=lambda: ((served.prepare(1000 // calls),), {}), rounds=20)
