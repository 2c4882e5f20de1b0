"""One face for three engines: which is chosen, and that each keeps the stream whole."""

import numpy as np
import pytest
import soxr

from audio_native import fir, reference
from audio_native.resample import SOXR_QUALITY, Resampler

NOISE = np.random.default_rng(2).integers(-20000, 20000, 44100).astype(np.int16)


def in_pieces(one: Resampler, samples: np.ndarray, size: int) -> bytes:
    raw = samples.tobytes()
    return b"".join(one.process(raw[i : i + 2 * size]) for i in range(0, len(raw), 2 * size)) + one.flush()


@pytest.mark.parametrize("pair", sorted(fir.RATES))
def test_the_rates_of_the_live_path_take_the_fir(pair):
    one = Resampler(*pair)
    assert one.engine == "fir" and one.delay_samples == fir.Fir(*pair).delay_samples > 0
    assert in_pieces(one, NOISE[:4000], 160) == reference.resample(NOISE[:4000], *pair).tobytes()


@pytest.mark.parametrize("pair", [(44100, 8000), (22050, 16000), (8000, 48000), (11025, 8000)])
def test_other_rates_take_soxr_and_keep_their_tail(pair):
    one = Resampler(*pair)
    assert one.engine == "soxr" and one.delay_samples == 0
    out = np.frombuffer(in_pieces(one, NOISE, 441), np.int16)
    once = np.clip(soxr.resample(NOISE.astype(np.float64), *pair, quality=SOXR_QUALITY), -32768, 32767)
    assert abs(len(out) - len(NOISE) * pair[1] / pair[0]) < 2
    n = min(len(out), len(once))
    assert np.abs(out[:n] - once[:n]).max() <= 1
    assert in_pieces(one, NOISE, 997) == out.tobytes()


def test_equal_rates_copy():
    one = Resampler(16000, 16000)
    assert one.engine == "copy" and one.process(NOISE.tobytes()) == NOISE.tobytes() and one.flush() == b""


@pytest.mark.parametrize("pair", [(8000, 16000), (44100, 8000), (8000, 8000)])
def test_reset_forgets_and_bad_buffers_change_nothing(pair):
    one = Resampler(*pair)
    expected = in_pieces(one, NOISE[:9000], 100)
    one.process(NOISE[:777].tobytes())
    one.reset()
    one.process(b"")
    for bad in (bytes(3), memoryview(bytes(9))[1:]):
        with pytest.raises(ValueError, match="aligned"):
            one.process(bad)
    assert in_pieces(one, NOISE[:9000], 100) == expected


def test_rates_outside_the_range_are_refused():
    for pair in [(0, 8000), (8000, 999), (8000, 192_001), (-8000, 8000)]:
        with pytest.raises(ValueError, match="Hz"):
            Resampler(*pair)
    with pytest.raises(TypeError):
        Resampler(8000.0, 16000)
