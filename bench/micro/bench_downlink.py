"""An answer's way out beside what a Python server would do with it, on 20 ms frames of a synthesiser's usual 24 kHz.

    python -m pytest bench/micro/bench_downlink.py --benchmark-enable --benchmark-only

Both sides bring the frame to 8 kHz, code it as PCMU and write the carrier's message; filters keep their state.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import orjson
import pytest
import soxr

from audio_native import fir, g711, media
from bench.micro.bench_kernels import speech, sweep

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

IN_HZ, OUT_HZ = 24_000, 8_000
STREAM_ID = "MZ1"


def native() -> Callable[[bytes], bytes]:
    """What `server.call.downlink.Converter` and `server.wire.twilio` do with a frame."""
    head = b'{"event":"media","streamSid":"%b","media":{"payload":"' % STREAM_ID.encode()
    slower, writer = fir.Fir(IN_HZ, OUT_HZ), media.MediaWriter(head, b'"}}')
    process, encode, message = slower.process, g711.bytes_to_pcmu, writer.message
    return lambda frame: message(encode(process(frame)))


def usual() -> Callable[[bytes], bytes]:
    stream = soxr.ResampleStream(IN_HZ, OUT_HZ, 1, dtype="int16", quality="HQ")

    def build(frame: bytes) -> bytes:
        coded = audioop.lin2ulaw(stream.resample_chunk(np.frombuffer(frame, np.int16)).tobytes(), 2)
        payload = base64.b64encode(coded).decode()
        return orjson.dumps({"event": "media", "streamSid": STREAM_ID, "media": {"payload": payload}})

    return build


WAYS = {"native": native, "soxr HQ + audioop + b64encode + orjson": usual}


def frames() -> list[bytes]:
    return [frame.tobytes() for frame in speech(IN_HZ)]


def parts() -> Iterator[tuple[str, Callable[[], object], dict[str, Callable[[], object]]]]:
    """(kernel, ours, {alternative: theirs}), as those of the uplink; each call does every frame once."""
    spoken = frames()
    ways = {name: sweep(make(), spoken) for name, make in WAYS.items()}
    yield "downlink_build", ways.pop("native"), ways


@pytest.mark.parametrize("way", WAYS)
def test_downlink(benchmark, way: str) -> None:
    benchmark(sweep(WAYS[way](), frames()))
