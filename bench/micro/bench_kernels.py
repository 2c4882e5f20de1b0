"""The kernels of audio_native beside what a Python program would use instead, on 20 ms frames of speech-like audio.

    python -m pytest bench/micro/bench_kernels.py --benchmark-enable --benchmark-only --benchmark-group-by=param:kernel

AUDIO_NATIVE_ISA chooses the level. CASES is the same table for other runners: one row a kernel, each call does FRAMES
different frames one after the other (so that no branch predictor learns the one it sees) and keeps its streaming
state; divide by FRAMES. The times include the call from Python, which is 35 to 60 ns of each.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soxr

from audio_native import fir, g711, level, mix, reference, silero
from audio_native.silero_weights import packaged_file, read_weights

if TYPE_CHECKING:
    import onnxruntime

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

FRAMES = 256  # in rotation: 80 KB of s16 at 8 kHz: more than a first-level cache holds
FRAME_MS = 20
GAIN_Q15 = 9_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kernel: three ways to do the same FRAMES frames; `alternative` names what the third one is."""

    kernel: str
    native: Callable[[], object]
    reference: Callable[[], object]
    alternative: str
    instead: Callable[[], object]


@functools.cache
def speech(rate_hz: int) -> list[np.ndarray]:
    """FRAMES frames of 20 ms: harmonics of a gliding pitch under a syllable envelope, with a little noise; seeded.

    The same list each time: not to be written to.
    """
    n = rate_hz * FRAME_MS // 1000
    time = np.arange(FRAMES * n) / rate_hz
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / rate_hz
    voice = harmonics(pitch, 19)
    envelope = np.maximum(0, np.sin(2 * np.pi * 3 * time)) ** 2
    noise = np.random.default_rng(1).normal(0, 20, len(time))
    return list(np.round(4000 * voice * envelope + noise).astype(np.int16).reshape(FRAMES, n))


def harmonics(phase: np.ndarray, count: int) -> np.ndarray:
    """The sum of sin(k * phase) / k, k from 1 to `count`, each from the two before it: where instructions are counted a
    sine is dear."""
    below, sine, twice = np.zeros_like(phase), np.sin(phase), 2 * np.cos(phase)
    total = sine
    for k in range(2, count + 1):
        below, sine = sine, twice * sine - below
        total = total + sine / k
    return total


def sweep(function: Callable[..., object], frames: list) -> Callable[[], object]:
    def every() -> None:
        for frame in frames:
            function(frame)

    return every


def code_cases() -> list[Case]:
    samples = speech(8_000)
    raw = [frame.tobytes() for frame in samples]
    cases = []
    for law, expand, compress, define_out, define_in, theirs_out, theirs_in in (
        ("pcmu", g711.pcmu_to_bytes, g711.bytes_to_pcmu, reference.pcmu_to_s16, reference.s16_to_pcmu,
         audioop.ulaw2lin, audioop.lin2ulaw),
        ("pcma", g711.pcma_to_bytes, g711.bytes_to_pcma, reference.pcma_to_s16, reference.s16_to_pcma,
         audioop.alaw2lin, audioop.lin2alaw),
    ):  # fmt: skip
        codes = [theirs_in(frame, 2) for frame in raw]
        arrays = [np.frombuffer(frame, np.uint8) for frame in codes]
        cases.append(
            Case(
                kernel=f"{law}_decode",
                native=sweep(expand, codes),
                reference=sweep(define_out, arrays),
                alternative="audioop",
                instead=sweep(lambda frame, f=theirs_out: f(frame, 2), codes),
            )
        )
        cases.append(
            Case(
                kernel=f"{law}_encode",
                native=sweep(compress, raw),
                reference=sweep(define_in, samples),
                alternative="audioop",
                instead=sweep(lambda frame, f=theirs_in: f(frame, 2), raw),
            )
        )
    return cases


def rate_case(in_hz: int, out_hz: int) -> Case:
    samples = speech(in_hz)
    stream = soxr.ResampleStream(in_hz, out_hz, 1, dtype="int16", quality="HQ")
    return Case(
        kernel=f"fir_{in_hz // 1000}_{out_hz // 1000}",
        native=sweep(fir.Fir(in_hz, out_hz).process, [frame.tobytes() for frame in samples]),
        reference=sweep(lambda frame: reference.resample(frame, in_hz, out_hz), samples),
        alternative="soxr HQ",
        instead=sweep(lambda frame: stream.resample_chunk(frame).tobytes(), samples),
    )


def level_case() -> Case:
    samples = speech(8_000)
    raw = [frame.tobytes() for frame in samples]
    return Case(
        kernel="level",
        native=sweep(level.level_dbfs, raw),
        reference=sweep(reference.level_dbfs, samples),
        alternative="audioop.rms",
        instead=sweep(lambda frame: audioop.rms(frame, 2), raw),
    )


def mix_case() -> Case:
    samples = speech(8_000)
    raw = [frame.tobytes() for frame in samples]
    target = bytearray(raw[7])
    return Case(
        kernel="mix",
        native=sweep(lambda frame: mix.mix_q15(target, frame, GAIN_Q15), raw),
        reference=sweep(lambda frame: reference.mix_q15(samples[7], frame, GAIN_Q15), samples),
        alternative="audioop.mul + add",
        instead=sweep(lambda frame: audioop.add(raw[7], audioop.mul(frame, 2, GAIN_Q15 / 32768), 2), raw),
    )


def ramp_case() -> Case:
    samples = speech(8_000)
    rise = np.linspace(0, 1, 160, endpoint=False, dtype=np.float32)
    target = bytearray(320)

    def native(frame: bytes) -> None:
        target[:] = frame
        mix.gain_ramp(target, 0, 32768)

    return Case(
        kernel="gain_ramp",
        native=sweep(native, [frame.tobytes() for frame in samples]),
        reference=sweep(lambda frame: reference.gain_ramp(frame, 0, 32768), samples),
        alternative="numpy",
        instead=sweep(lambda frame: (frame * rise).astype(np.int16), samples),
    )


def silero_case() -> Case:
    """FRAMES windows of 32 ms: batches of 32 calls, against onnxruntime one call at a time as its package does it."""
    weights = read_weights(packaged_file())
    net, streams = silero.SileroNet(weights), [silero.SileroStream() for _ in range(32)]
    line = np.concatenate(speech(16_000))[: FRAMES // 32 * 512]
    windows = line.reshape(-1, 512)
    raw = [window.tobytes() for window in windows]
    blank = {"state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16_000)}
    rows = [{"input": np.pad(one / 32768, (64, 0)).astype(np.float32)[None], **blank} for one in windows]

    def native() -> None:
        for window in raw:
            for stream in streams:
                stream.push(window)
            net.score(streams)

    @functools.cache
    def session() -> onnxruntime.InferenceSession:
        import onnxruntime  # seconds, where instructions are counted: for those who run it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(packaged_file()), options)

    def instead() -> None:
        run = session().run
        for row in rows:
            for _ in streams:
                run(None, row)

    return Case(
        kernel="silero_32",
        native=native,
        reference=lambda: [reference.silero(weights, line) for _ in streams],
        alternative="onnxruntime",
        instead=instead,
    )


CASES: list[Case] = [
    *code_cases(),
    *(rate_case(*pair) for pair in [(8_000, 16_000), (16_000, 8_000), (24_000, 8_000), (24_000, 16_000)]),
    *(rate_case(*pair) for pair in [(48_000, 16_000), (8_000, 24_000)]),
    level_case(),
    mix_case(),
    ramp_case(),
    silero_case(),
]


@pytest.mark.parametrize("way", ["native", "reference", "instead"])
@pytest.mark.parametrize("kernel", [case.kernel for case in CASES])
def test_kernel(benchmark, kernel: str, way: str) -> None:
    case = next(case for case in CASES if case.kernel == kernel)
    benchmark(getattr(case, way))
