"""Level and peak against audioop and the reference, on edges and at every length around a vector."""

import math

import numpy as np
import pytest

from audio_native import level, reference
from tests.audio_native.independent import audioop


def test_equals_audioop_and_the_reference_at_every_length(isa):
    rng = np.random.default_rng(5)
    for n in [*range(70), 160, 161, 4000]:
        samples = rng.integers(-32768, 32768, n).astype(np.int16)
        raw = samples.tobytes()
        assert (level.energy(raw), level.peak(raw)) == reference.level_peak(samples)
        assert level.peak(raw) == audioop.max(raw, 2)
        assert math.isqrt(level.energy(raw) // max(n, 1)) == audioop.rms(raw, 2)


@pytest.mark.parametrize("value", [-32768, 32767, -1, 1])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 4096])
def test_constant_samples_do_not_overflow(isa, value, n):
    raw = np.full(n, value, np.int16).tobytes()
    assert level.peak(raw) == abs(value)
    assert level.energy(raw) == n * value**2
    assert level.level_dbfs(raw) == pytest.approx(20 * math.log10(abs(value) / 32768))


@pytest.mark.parametrize("place", range(33))
def test_one_loud_sample_is_found_anywhere(isa, place):
    for value in (-32768, 32767):
        samples = np.zeros(33, np.int16)
        samples[place] = value
        assert level.peak(samples.tobytes()) == abs(value)


def test_silence_and_nothing_have_the_floor():
    assert level.level_dbfs(b"") == level.level_dbfs(bytes(320)) == level.SILENCE_DBFS == reference.SILENCE_DBFS
    assert level.peak(b"") == level.energy(b"") == 0


def test_a_full_scale_sine_reads_three_decibels_below_a_square():
    sine = np.round(32767 * np.sin(2 * np.pi * np.arange(8000) / 80)).astype(np.int16)
    assert level.level_dbfs(sine.tobytes()) == pytest.approx(-3.01, abs=0.01)
    assert level.level_dbfs(sine.tobytes()) == pytest.approx(reference.level_dbfs(sine))


def test_refuses_what_is_not_whole_samples():
    for bad in (bytes(3), memoryview(bytes(9))[1:]):
        with pytest.raises(ValueError, match="aligned"):
            level.peak(bad)
