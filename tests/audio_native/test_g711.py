"""G.711 on every code and every sample, against audioop and against the tables of the reference."""

import numpy as np
import pytest

from audio_native import g711, reference
from tests.audio_native.independent import audioop

CODES = np.arange(256, dtype=np.uint8)
SAMPLES = np.arange(-32768, 32768).astype(np.int16)

DECODERS = [
    (g711.decode_pcmu, g711.pcmu_to_bytes, reference.pcmu_to_s16, audioop.ulaw2lin),
    (g711.decode_pcma, g711.pcma_to_bytes, reference.pcma_to_s16, audioop.alaw2lin),
]
ENCODERS = [
    (g711.encode_pcmu, g711.bytes_to_pcmu, reference.s16_to_pcmu, audioop.lin2ulaw),
    (g711.encode_pcma, g711.bytes_to_pcma, reference.s16_to_pcma, audioop.lin2alaw),
]
LAWS = ["pcmu", "pcma"]


@pytest.mark.parametrize("decoder", DECODERS, ids=LAWS)
def test_every_code_expands_as_audioop_and_the_reference_say(isa, decoder):
    into, to_bytes, definition, independent = decoder
    expected = independent(CODES.tobytes(), 2)
    out = bytearray(512)
    assert into(CODES.tobytes(), out) == 256
    assert out == expected
    assert to_bytes(CODES.tobytes()) == expected
    assert definition(CODES).tobytes() == expected


@pytest.mark.parametrize("encoder", ENCODERS, ids=LAWS)
def test_every_sample_compresses_as_audioop_and_the_reference_say(isa, encoder):
    into, to_bytes, definition, independent = encoder
    expected = independent(SAMPLES.tobytes(), 2)
    out = bytearray(65536)
    assert into(SAMPLES.tobytes(), out) == 65536
    assert out == expected
    assert to_bytes(SAMPLES.tobytes()) == expected
    assert definition(SAMPLES).tobytes() == expected


@pytest.mark.parametrize("decoder", DECODERS, ids=LAWS)
@pytest.mark.parametrize("encoder", ENCODERS, ids=LAWS)
def test_every_length_writes_its_samples_and_no_more(isa, decoder, encoder):
    rng = np.random.default_rng(7)
    for n in [*range(70), 159, 160, 161]:
        codes = rng.integers(0, 256, n).astype(np.uint8)
        samples = rng.integers(-32768, 32768, n).astype(np.int16)
        expanded, compressed = bytearray(b"\xa5" * (2 * n + 64)), bytearray(b"\xa5" * (n + 64))
        assert decoder[0](codes.tobytes(), expanded) == n
        assert encoder[0](samples.tobytes(), compressed) == n
        assert expanded == decoder[2](codes).tobytes() + b"\xa5" * 64
        assert compressed == encoder[2](samples).tobytes() + b"\xa5" * 64


def test_silence_is_silence():
    assert g711.pcmu_to_bytes(b"\xff") == b"\0\0" and g711.bytes_to_pcmu(b"\0\0") == b"\xff"
    assert g711.bytes_to_pcma(b"\0\0") == b"\xd5"


@pytest.mark.parametrize("decode", [g711.decode_pcmu, g711.decode_pcma])
def test_a_refused_decode_leaves_out_untouched(decode):
    short = bytearray(b"\xa5" * 7)
    with pytest.raises(ValueError, match="need 8 bytes"):
        decode(bytes(4), short)
    odd = bytearray(b"\xa5" * 17)
    with pytest.raises(ValueError, match="aligned"):
        decode(bytes(4), memoryview(odd)[1:])
    shared = bytearray(b"\xa5" * 16)
    with pytest.raises(ValueError, match="overlaps"):
        decode(memoryview(shared)[4:8], shared)
    with pytest.raises(BufferError):
        decode(bytes(4), bytes(8))
    with pytest.raises(TypeError):
        decode("text", shared)
    assert {*short, *odd, *shared} == {0xA5}


@pytest.mark.parametrize("encode", [g711.encode_pcmu, g711.encode_pcma])
def test_a_refused_encode_leaves_out_untouched(encode):
    out = bytearray(b"\xa5" * 16)
    with pytest.raises(ValueError, match="whole"):
        encode(bytes(3), out)
    with pytest.raises(ValueError, match="aligned"):
        encode(memoryview(bytes(9))[1:], out)
    with pytest.raises(ValueError, match="need 17 bytes"):
        encode(bytes(34), out)
    with pytest.raises(ValueError, match="overlaps"):
        encode(memoryview(out)[:8], out)
    with pytest.raises(TypeError):
        encode(None, out)
    assert set(out) == {0xA5}


@pytest.mark.parametrize("convert", [g711.bytes_to_pcmu, g711.bytes_to_pcma])
def test_half_a_sample_is_refused(convert):
    with pytest.raises(ValueError, match="3 bytes"):
        convert(bytes(3))
