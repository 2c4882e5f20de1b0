"""Profiles of simulated providers: their delays have the median and the p95 that they name, and repeat."""

from __future__ import annotations

import random
from statistics import quantiles

import pytest

from bench.sim.profile import PROFILES, Delay, profile


def test_delays_have_their_median_and_p95() -> None:
    dice = random.Random(1)
    cuts = quantiles([Delay(120, 250).sample_ms(dice) for _ in range(20_000)], n=20)
    assert cuts[9] == pytest.approx(120, rel=0.03)
    assert cuts[18] == pytest.approx(250, rel=0.04)


def test_equal_seeds_give_equal_delays() -> None:
    one, other = random.Random(7), random.Random(7)
    assert [Delay(5, 10).sample_s(one) for _ in range(9)] == [Delay(5, 10).sample_s(other) for _ in range(9)]


def test_a_final_comes_after_the_services_own_segmentation() -> None:
    usual = PROFILES["azure-groq"]
    cuts = quantiles(
        [usual.segmentation_ms + usual.final_after_silence_ms(random.Random(n)) for n in range(4000)], n=20
    )
    assert cuts[9] == pytest.approx(1016, rel=0.03)
    assert cuts[18] == pytest.approx(1345, rel=0.04)


def test_brownout_has_its_shares() -> None:
    dice, brownout = random.Random(3), PROFILES["brownout"]
    assert sum(brownout.is_slow(dice) for _ in range(20_000)) == pytest.approx(1000, rel=0.15)
    assert sum(brownout.is_hung(dice) for _ in range(20_000)) == pytest.approx(400, rel=0.2)
    assert sum(brownout.stalls(dice) for _ in range(20_000)) == pytest.approx(200, rel=0.3)
    assert not any(PROFILES["azure-groq"].stalls(dice) for _ in range(100))


def test_unknown_names_and_impossible_delays_are_refused() -> None:
    with pytest.raises(ValueError, match="azure-groq"):
        profile("quick")
    with pytest.raises(ValueError, match="median"):
        Delay(10, 5)
