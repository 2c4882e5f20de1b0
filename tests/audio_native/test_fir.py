"""The FIR resamplers: exact against their definition, and good against tones, soxr and an impulse."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_native import fir, fir_taps, reference
from audio_native.fir import Fir

PAIRS = sorted(fir.RATES)
TELEPHONE = [pair for pair in PAIRS if 8_000 in pair]
WIDEBAND = [pair for pair in PAIRS if 8_000 not in pair]


def whole(pair: tuple[int, int], samples: np.ndarray) -> np.ndarray:
    one = Fir(*pair)
    return np.frombuffer(one.process(samples.tobytes()) + one.flush(), np.int16)


def noise(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32768, n).astype(np.int16)


def pass_edge_hz(pair: tuple[int, int]) -> int:
    return 3_400 if 8_000 in pair else 7_000


@pytest.mark.parametrize("pair", PAIRS)
def test_equals_its_definition_at_every_short_length_and_over_blocks(isa, pair):
    for n in [*range(1, 110), 319, 320, 321, 959, 960, 961, 4001]:
        samples = noise(n, seed=n)
        assert np.array_equal(whole(pair, samples), reference.resample(samples, *pair)), n


@pytest.mark.parametrize("pair", PAIRS)
def test_the_worst_input_saturates_and_does_not_wrap(isa, pair):
    taps = np.array(reference.FILTERS[pair][0])
    up = reference.FILTERS[pair][2]
    for row in range(up):
        signs = np.where(taps[row::up] > 0, 32767, -32768).astype(np.int16)
        for samples in (signs[::-1], -1 - signs[::-1], np.full(400, -32768, np.int16), np.full(400, 32767, np.int16)):
            assert np.array_equal(whole(pair, samples), reference.resample(samples, *pair))


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 700), max_size=40))
def test_any_cut_gives_the_same_bytes_and_holds_nothing_back(pair, sizes):
    _, _, up, down, _ = reference.FILTERS[pair]
    samples = noise(sum(sizes))
    one, out, pushed = Fir(*pair), b"", 0
    for size in sizes:
        out += one.process(samples[pushed : pushed + size].tobytes())
        pushed += size
        assert len(out) // 2 == pushed // down * up
    assert out + one.flush() == reference.resample(samples, *pair).tobytes()


@pytest.mark.parametrize("pair", PAIRS)
def test_one_sample_at_a_time(isa, pair):
    samples = noise(301)
    one = Fir(*pair)
    out = b"".join(one.process(samples[i : i + 1].tobytes()) for i in range(len(samples))) + one.flush()
    assert out == reference.resample(samples, *pair).tobytes()


@pytest.mark.parametrize("pair", PAIRS)
def test_flush_and_reset_begin_a_new_stream(pair):
    one, samples = Fir(*pair), noise(500)
    assert one.flush() == b""
    first = one.process(samples.tobytes()) + one.flush()
    assert one.flush() == b"" and one.process(samples.tobytes()) + one.flush() == first
    one.process(noise(77).tobytes())
    one.reset()
    assert one.process(samples.tobytes()) + one.flush() == first


@pytest.mark.parametrize("pair", PAIRS)
def test_the_delay_is_constant_stated_and_short(pair):
    """An impulse comes out symmetric around delay_samples; to and from 8 kHz that is under 2 ms."""
    in_hz, out_hz = pair
    impulse = np.zeros(3 * 100, np.int16)
    impulse[120] = 16384
    response = whole(pair, impulse).astype(float)
    centre = np.sum(np.arange(len(response)) * response) / np.sum(response)
    delay_samples = Fir(*pair).delay_samples
    assert centre - 120 * out_hz / in_hz == pytest.approx(delay_samples, abs=0.05)
    assert np.abs(response).argmax() == delay_samples + 120 * out_hz // in_hz
    assert delay_samples / out_hz <= 0.002


def spectrum(pair: tuple[int, int], tone_hz: float) -> tuple[np.ndarray, float]:
    """Amplitudes in dB relative to the tone, for one second at -1 dBFS after the filter has settled, and gain in dB."""
    in_hz, out_hz = pair
    time = np.arange(in_hz * 5 // 4) / in_hz
    amplitude = 29_200.0
    samples = np.round(amplitude * np.sin(2 * np.pi * tone_hz * time)).astype(np.int16)
    settled = whole(pair, samples)[out_hz // 8 : out_hz // 8 + out_hz].astype(float)
    lines = np.abs(np.fft.rfft(settled)) * 2 / out_hz / amplitude
    return 20 * np.log10(np.maximum(lines, 1e-9)), tone_hz


@pytest.mark.parametrize("pair", PAIRS)
def test_the_pass_band_is_flat_and_everything_else_is_far_below(pair):
    """Tones up to the pass edge: gain within 0.01 dB, every other line (images, noise of rounding) <= -75 dB."""
    for tone_hz in np.linspace(50, pass_edge_hz(pair), 24).astype(int):
        lines, _ = spectrum(pair, int(tone_hz))
        assert abs(lines[tone_hz]) <= 0.01, tone_hz
        lines[tone_hz] = -200
        assert lines.max() <= -75, (tone_hz, lines.argmax(), lines.max())


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1] < pair[0]])
def test_what_would_alias_into_the_pass_band_is_stopped(pair):
    in_hz, out_hz = pair
    edge_hz = pass_edge_hz(pair)
    for tone_hz in np.linspace(out_hz - edge_hz, in_hz // 2 - 10, 40).astype(int):
        lines, _ = spectrum(pair, int(tone_hz))
        assert lines[: edge_hz + 1].max() <= -75, tone_hz


@pytest.mark.parametrize("pair", PAIRS)
def test_agrees_with_soxr_on_a_signal_in_the_pass_band(pair):
    """soxr at its highest quality, delay taken out: what differs is below -60 dB of a full-band signal."""
    in_hz, out_hz = pair
    rng = np.random.default_rng(3)
    freq = np.fft.rfftfreq(in_hz, 1 / in_hz)
    shape = np.where((freq > 100) & (freq < pass_edge_hz(pair) - 100), 1.0, 0.0)
    wave = np.fft.irfft(shape * np.exp(2j * np.pi * rng.random(len(freq))))
    samples = np.round(wave / np.abs(wave).max() * 20_000).astype(np.int16)
    ours = whole(pair, samples)[Fir(*pair).delay_samples :].astype(float)
    theirs = soxr.resample(samples.astype(np.float64), in_hz, out_hz, quality="VHQ")
    middle = slice(out_hz // 8, out_hz * 7 // 8)
    error = np.sqrt(np.mean((ours[middle] - theirs[middle]) ** 2) / np.mean(theirs[middle] ** 2))
    assert 20 * np.log10(error) <= -60


def test_the_taps_are_symmetric_and_pass_a_constant():
    for taps, unity in [
        (fir_taps.HALFBAND, 65536),
        (fir_taps.NARROW_DOWN, 65536),
        (fir_taps.NARROW_UP, 98304),
        (fir_taps.WIDE, 65536),
        (fir_taps.WIDE_UP, 98304),
    ]:
        assert taps == taps[::-1] and abs(20 * np.log10(sum(taps) / unity)) < 0.01


def test_refuses_rates_and_buffers_that_it_does_not_know():
    with pytest.raises(ValueError, match="44100->8000"):
        Fir(44100, 8000)
    one = Fir(8000, 16000)
    before = one.process(noise(50).tobytes())
    with pytest.raises(ValueError, match="whole"):
        one.process(bytes(3))
    with pytest.raises(ValueError, match="aligned"):
        one.process(memoryview(bytes(9))[1:])
    with pytest.raises(TypeError):
        one.process("text")
    again = Fir(8000, 16000)
    assert before + one.flush() == again.process(noise(50).tobytes()) + again.flush()
