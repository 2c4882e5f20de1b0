"""Figures for tables and JSON: percentiles of what was measured, quantiles of Prometheus histograms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

Percentiles = dict[str, float | None]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0-1) of all do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles(values: Sequence[float], *, with_max: bool = False) -> Percentiles:
    """{"p50", "p95", "p99"} and, when asked, "max"; rounded to 1/100."""
    found: Percentiles = {f"p{n}": percentile(values, n / 100) for n in (50, 95, 99)}
    if with_max:
        found["max"] = max(values, default=None)
    return {name: None if value is None else round(value, 2) for name, value in found.items()}


_SAMPLE = re.compile(r"^(\w+?)_bucket\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_buckets(text: str, name: str, **labels: str) -> dict[float, float]:
    """Cumulative buckets of one Prometheus histogram, summed over the labels that are not given."""
    buckets: dict[float, float] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if not match or match[1] != name:
            continue
        found = dict(_LABEL.findall(match[2]))
        if all(found.get(key) == value for key, value in labels.items()):
            bound = float(found["le"].replace("+Inf", "inf"))
            buckets[bound] = buckets.get(bound, 0.0) + float(match[3])
    return buckets


def subtract(after: dict[float, float], before: dict[float, float]) -> dict[float, float]:
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def quantile(buckets: dict[float, float], share: float) -> float | None:
    """Prometheus' own estimate: linear inside the bucket; None of nothing."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if not total:
        return None
    wanted, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if math.isinf(bound):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1)
        lower, below = bound, buckets[bound]
    return lower


def table(rows: Iterable[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    listed = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
    lines = []
    for row in listed:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
