"""What each kernel computes, in NumPy and by definition: the tests' yardstick, never on a call's path.

Written for clearness and from other formulas than the kernels: G.711 by segment and interval, the resamplers as
zero-stuffing, one convolution and a stride. Samples are int16 arrays, codes uint8 arrays, both of shape (n,).
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from audio_native import fir_taps

__all__ = ["gain_ramp", "level_dbfs", "level_peak", "mix_q15", "pcma_to_s16", "pcmu_to_s16", "resample"]
__all__ += ["s16_to_pcma", "s16_to_pcmu", "silero"]

Samples: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int16]]"
Codes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"

SILENCE_DBFS = -100.0

# Taps, unity of the taps, common grid as multiple of the input and of the output rate, lead in grid samples.
FILTERS: dict[tuple[int, int], tuple[tuple[int, ...], int, int, int, int]] = {
    (8_000, 16_000): (fir_taps.HALFBAND, 32_768, 2, 1, 0),
    (16_000, 8_000): (fir_taps.HALFBAND, 65_536, 1, 2, 1),
    (24_000, 8_000): (fir_taps.NARROW_DOWN, 65_536, 1, 3, 2),
    (8_000, 24_000): (fir_taps.NARROW_UP, 32_768, 3, 1, 0),
    (48_000, 16_000): (fir_taps.WIDE, 65_536, 1, 3, 2),
    (24_000, 16_000): (fir_taps.WIDE, 32_768, 2, 3, 2),
    (16_000, 24_000): (fir_taps.WIDE_UP, 32_768, 3, 2, 0),
    (16_000, 48_000): (fir_taps.WIDE_UP, 32_768, 3, 1, 0),
}


def pcmu_to_s16(codes: Codes) -> Samples:
    """ITU-T G.711 table 2: the middle of the interval, 33 x 2^segment steps of 4 from the origin, less the bias."""
    inverted = ~codes
    segment, interval = (inverted >> 4 & 7).astype(np.int32), (inverted & 15).astype(np.int32)
    magnitude = 4 * ((2 * interval + 33) * 2**segment - 33)
    return np.where(inverted & 0x80, -magnitude, magnitude).astype(np.int16)


def pcma_to_s16(codes: Codes) -> Samples:
    """ITU-T G.711 table 1: segments 0 and 1 have the same step; even bits are inverted on the line."""
    plain = codes ^ np.uint8(0x55)
    segment, interval = (plain >> 4 & 7).astype(np.int32), (plain & 15).astype(np.int32)
    magnitude = 8 * np.where(segment == 0, 2 * interval + 1, (2 * interval + 33) * 2 ** np.maximum(segment - 1, 0))
    return np.where(plain & 0x80, magnitude, -magnitude).astype(np.int16)


def s16_to_pcmu(samples: Samples) -> Codes:
    """The upper 14 bits, clipped to 8158, biased by 33; the segment is the place of the leading one."""
    upper = samples.astype(np.int32) >> 2
    biased = np.minimum(np.abs(upper), 8158) + 33
    segment = np.digitize(biased, [64, 128, 256, 512, 1024, 2048, 4096])
    code = segment << 4 | biased >> (segment + 1) & 15
    signed: Codes = np.where(upper < 0, code ^ 0x7F, code ^ 0xFF).astype(np.uint8)
    return signed


def s16_to_pcma(samples: Samples) -> Codes:
    """The upper 13 bits, negative ones complemented; segment 0 reaches to 31 and steps like segment 1."""
    upper = samples.astype(np.int32) >> 3
    magnitude = np.where(upper < 0, -upper - 1, upper)
    segment = np.digitize(magnitude, [32, 64, 128, 256, 512, 1024, 2048])
    code = segment << 4 | magnitude >> np.maximum(segment, 1) & 15
    return np.where(upper < 0, code ^ 0x55, code ^ 0xD5).astype(np.uint8)


def resample(samples: Samples, in_hz: int, out_hz: int) -> Samples:
    """A whole stream and its tail: every group of outputs that a sample reaches.

    y[t] = saturate(floor(sum over k of taps[k] * grid[down * t + lead - k] / unity + 1/2)), where grid is the input
    with up - 1 zeros after each sample and zero elsewhere. Groups hold `down` samples in, `up` samples out.
    """
    taps, unity, up, down, lead = FILTERS[in_hz, out_hz]
    if not len(samples):
        return np.zeros(0, np.int16)
    # How far behind its group a row reads, in samples: what the taps that meet a sample of the grid need.
    behind = [
        (k - lead - down * u) // up
        for u in range(up)
        for k, tap in enumerate(taps)
        if tap and (k - lead - down * u) % up == 0
    ]
    groups = -(-len(samples) // down) + max(-(-samples_behind // down) for samples_behind in behind)
    grid = np.zeros(groups * down * up + lead, np.int64)
    grid[: len(samples) * up : up] = samples
    total = np.convolve(grid, np.array(taps, np.int64))[lead:]
    rounded = (2 * total[: groups * up * down : down] + unity) // (2 * unity)
    return np.clip(rounded, -32768, 32767).astype(np.int16)


def level_peak(samples: Samples) -> tuple[int, int]:
    """Sum of squares; largest magnitude, 0 to 32768."""
    wide = samples.astype(np.int64)
    return int((wide**2).sum()), int(np.abs(wide).max(initial=0))


def level_dbfs(samples: Samples) -> float:
    """10 log10 of the mean square over 32768^2, not below SILENCE_DBFS."""
    total, _ = level_peak(samples)
    return max(SILENCE_DBFS, float(10 * np.log10(total / len(samples) / 32768**2))) if total else SILENCE_DBFS


def mix_q15(target: Samples, source: Samples, gain_q15: int) -> Samples:
    """saturate(target + floor(source * gain / 32768)); samples of target beyond source stay."""
    total = target.astype(np.int64)
    total[: len(source)] += source.astype(np.int64) * gain_q15 // 32768
    return np.clip(total, -32768, 32767).astype(np.int16)


def gain_ramp(samples: Samples, from_q15: int, to_q15: int) -> Samples:
    """floor(sample * gain / 32768), the gain on a line of 30-bit steps from from_q15 towards to_q15."""
    n = len(samples)
    rise = (to_q15 - from_q15) * 32768
    step = abs(rise) // n * (1 if rise >= 0 else -1) if n else 0
    gain = (from_q15 * 32768 + np.arange(n, dtype=np.int64) * step) // 32768
    return (samples.astype(np.int64) * gain // 32768).astype(np.int16)


def silero(weights: Mapping[str, np.ndarray], audio: Samples) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Probability of speech in each whole window of 512 samples of one stream at 16 kHz, in float64.

    The graph of silero_vad.onnx (MIT), branch for 16 kHz: 64 samples of context, reflected by 64 at the end; four
    frames of a Hann-windowed DFT of 256 at a hop of 128; four convolutions with ReLU; an LSTM cell; one neuron.
    """
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    past, hidden, cell = np.zeros(64), np.zeros(128), np.zeros(128)
    scores = []
    for at in range(0, len(audio) - 511, 512):
        window = np.concatenate([past, audio[at : at + 512] / 32768])
        past = window[-64:]
        padded = np.concatenate([window, window[-2:-66:-1]])
        x = np.abs([np.fft.rfft(padded[i : i + 256] * taper) for i in (0, 128, 256, 384)]).T
        for i, stride in enumerate((1, 2, 2, 1)):
            tensor = weights[f"encoder.{i}.reparam_conv.weight"].astype(np.float64)
            wide = np.pad(x, ((0, 0), (1, 1)))
            frames = [np.tensordot(tensor, wide[:, t : t + 3], 2) for t in range(0, x.shape[1], stride)]
            x = np.maximum(np.stack(frames, axis=1) + weights[f"encoder.{i}.reparam_conv.bias"][:, None], 0)
        gates = weights["decoder.rnn.weight_ih"] @ x[:, 0] + weights["decoder.rnn.weight_hh"] @ hidden
        gates += weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
        enter, keep, new, out = gates.reshape(4, 128)
        cell = _sigmoid(keep) * cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(out) * np.tanh(cell)
        neuron = weights["decoder.decoder.2.weight"].reshape(128)
        scores.append(_sigmoid(np.maximum(hidden, 0) @ neuron + weights["decoder.decoder.2.bias"][0]))
    return np.array(scores)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))
