"""How sure a figure is: 95 % intervals of shares, rates and percentiles."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.load.figure import percentile

Z95 = 1.96
DRAWS = 1000
SEED = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval; None is not known. `of`: how many it stands on."""

    value: float | None
    low: float | None
    high: float | None
    of: float

    def as_dict(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "of": self.of}


def share(hits: int, of: int) -> Figure:
    """A share by Wilson's score interval, which is right for few hits too; 0-1."""
    if not of:
        return Figure(None, None, None, 0)
    p, z2 = hits / of, Z95**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z95 / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2))
    return Figure(round(p, 4), round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4), of)


def rate(hits: int, minutes: float) -> Figure:
    """Events a minute, by Byar's approximation of the Poisson interval."""
    if minutes <= 0:
        return Figure(None, None, None, 0)
    low = hits * (1 - 1 / (9 * hits) - Z95 / (3 * math.sqrt(hits))) ** 3 if hits else 0.0
    more = hits + 1
    high = more * (1 - 1 / (9 * more) + Z95 / (3 * math.sqrt(more))) ** 3
    return Figure(round(hits / minutes, 3), round(low / minutes, 3), round(high / minutes, 3), round(minutes, 2))


def quantile(values: Sequence[float], at: float) -> Figure:
    """The percentile `at` (0-1) by percentile bootstrap with a fixed seed."""
    found = percentile(values, at)
    if found is None:
        return Figure(None, None, None, 0)
    dice = random.Random(SEED)
    drawn = sorted(percentile(dice.choices(values, k=len(values)), at) or 0.0 for _ in range(DRAWS))
    low, high = drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1]
    return Figure(round(found, 1), round(low, 1), round(high, 1), len(values))
