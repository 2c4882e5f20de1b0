"""Mix and gain ramp against audioop and the reference; refused input leaves dst untouched."""

import numpy as np
import pytest

from audio_native import mix, reference
from tests.audio_native.independent import audioop

GAINS = [0, 1, 3, 16384, 20000, 32767, 32768]


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32768, n).astype(np.int16)


@pytest.mark.parametrize("gain_q15", GAINS)
def test_mix_equals_audioop_and_the_reference_at_every_length(isa, gain_q15):
    for n in [*range(40), 160, 161]:
        target, source = noise(n, 1), noise(n, 2)
        out = bytearray(target.tobytes())
        mix.mix_q15(out, source.tobytes(), gain_q15)
        assert out == reference.mix_q15(target, source, gain_q15).tobytes()
        scaled = audioop.mul(source.tobytes(), 2, gain_q15 / 32768)
        assert out == audioop.add(target.tobytes(), scaled, 2)


@pytest.mark.parametrize("gain_q15", GAINS)
def test_every_sample_is_scaled_as_audioop_scales_it(isa, gain_q15):
    every = np.arange(-32768, 32768).astype(np.int16).tobytes()
    out = bytearray(len(every))
    mix.mix_q15(out, every, gain_q15)
    assert out == audioop.mul(every, 2, gain_q15 / 32768)


def test_sums_saturate(isa):
    loud = np.array([32767, -32768] * 20, np.int16).tobytes()
    out = bytearray(loud)
    mix.mix_q15(out, loud, 32768)
    assert out == loud
    same = bytearray(loud)
    mix.mix_q15(same, same, 32768)
    assert same == loud


def test_a_shorter_source_leaves_the_rest(isa):
    target, source = noise(50, 1), noise(19, 2)
    out = bytearray(target.tobytes())
    mix.mix_q15(out, source.tobytes(), 9000)
    assert out == reference.mix_q15(target, source, 9000).tobytes()
    assert out[38:] == target.tobytes()[38:]


@pytest.mark.parametrize("gains", [(0, 32768), (32768, 0), (32768, 32768), (0, 0), (100, 99), (12345, 23456)])
def test_ramp_equals_the_reference_at_every_length(isa, gains):
    for n in [*range(40), 160, 161, 4001]:
        samples = noise(n, n)
        out = bytearray(samples.tobytes())
        mix.gain_ramp(out, *gains)
        assert out == reference.gain_ramp(samples, *gains).tobytes()


def test_a_level_ramp_is_audioop_mul_and_pieces_join(isa):
    samples = noise(320, 9).tobytes()
    even = bytearray(samples)
    mix.gain_ramp(even, 11111, 11111)
    assert even == audioop.mul(samples, 2, 11111 / 32768)
    ones = bytearray(np.full(320, -32768, np.int16).tobytes())
    mix.gain_ramp(memoryview(ones)[:320], 0, 16384)
    mix.gain_ramp(memoryview(ones)[320:], 16384, 32768)
    steps = np.diff(np.frombuffer(ones, np.int16).astype(int))
    assert steps.max() <= -102 and steps.min() >= -104


def test_refused_input_leaves_dst_untouched():
    dst = bytearray(b"\xa5" * 16)
    for bad in (-1, 32769, 2**40):
        with pytest.raises(ValueError, match="0 to 32768"):
            mix.mix_q15(dst, bytes(16), bad)
        with pytest.raises(ValueError, match="0 to 32768"):
            mix.gain_ramp(dst, 0, bad)
    with pytest.raises(ValueError, match="need 18 bytes"):
        mix.mix_q15(dst, bytes(18), 1)
    with pytest.raises(ValueError, match="whole"):
        mix.mix_q15(dst, bytes(3), 1)
    with pytest.raises(ValueError, match="overlaps"):
        mix.mix_q15(dst, memoryview(dst)[2:6], 1)
    with pytest.raises(ValueError, match="aligned"):
        mix.gain_ramp(memoryview(dst)[1:15], 0, 1)
    with pytest.raises(BufferError):
        mix.gain_ramp(bytes(16), 0, 1)
    assert set(dst) == {0xA5}
