"""The generator's decoder: the published examples, and what the product's own encoder makes of any code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.tone import ToneCode, crc8, crc16, find_codes
from bench.sim.sound import to_pcmu
from providers.offline import scripted


def read_codes(pcmu: bytes) -> tuple[list[ToneCode], int]:
    """All codes in heard audio, and how many were damaged or cut."""
    found = [code for _, code in find_codes(pcmu)]
    return [code for code in found if code is not None], found.count(None)


def spoken(call: int, turn: int, hash16: int) -> bytes:
    return scripted.render(f"code {call} {turn} {hash16}")


def test_checksums_have_their_published_check_values() -> None:
    assert crc16(b"123456789") == 0x29B1
    assert crc8(b"123456789") == 0xF4
    assert crc16(b"turn 3 of +15552000012") == 4210


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9999), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 700))
def test_any_code_is_read_at_any_place(call: int, turn: int, hash16: int, offset: int) -> None:
    audio = b"\xff" * offset + spoken(call, turn, hash16) + b"\xff" * 500
    assert read_codes(audio) == ([ToneCode(call, turn, hash16)], 0)


def test_two_codes_and_filler_between() -> None:
    noise = np.random.default_rng(1).normal(0, 1600, 4000).astype("<i2").tobytes()
    audio = to_pcmu(noise) + spoken(1, 2, 3) + to_pcmu(noise) + spoken(4, 5, 6) + to_pcmu(noise)
    assert read_codes(audio) == ([ToneCode(1, 2, 3), ToneCode(4, 5, 6)], 0)


@pytest.mark.parametrize("lost", [(3000, 400), (1500, 500)])
def test_a_hole_in_the_audio_is_damage_not_another_code(lost: tuple[int, int]) -> None:
    at, count = lost
    audio = spoken(12, 3, 4210)
    codes, damaged = read_codes(audio[:at] + audio[at + count :] + b"\xff" * 500)
    assert codes == []
    assert damaged == 1


def test_silence_noise_and_a_cut_code_hold_nothing() -> None:
    noise = np.random.default_rng(2).normal(0, 3000, 16000).astype("<i2").tobytes()
    assert read_codes(b"") == ([], 0)
    assert read_codes(b"\xff" * 8000) == ([], 0)
    assert read_codes(to_pcmu(noise)) == ([], 0)
    assert read_codes(spoken(1, 1, 1)[:4000]) == ([], 1)
