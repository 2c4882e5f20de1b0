"""p50, p95 and p99 against the number of calls, as an image. Needs matplotlib (the extra `bench`), and says so."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.load.knee import Knee

PANELS = (
    ("frame_lateness_ms", "frame lateness, ms"),
    ("turn_latency_ms", "turn latency, ms"),
    ("own_latency_ms", "own latency, ms"),
    ("time_to_clear_ms", "time to clear, ms"),
)
SHARES = ("p50", "p95", "p99")
Line = tuple[str, list[int], list[float]]
"""(label, numbers of calls, values)"""
Panel = tuple[str, list[Line]]
"""(title, lines)"""


class PlotMissing(Exception):
    """matplotlib is not installed."""


def require_matplotlib() -> None:
    """Raises PlotMissing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotMissing("--plot needs matplotlib: pip install 'talkspurt[bench]' (or: pip install matplotlib)")


def panels(results: Sequence[dict[str, Any]]) -> list[Panel]:
    """Each panel that has something to show, with a line for each share."""
    ordered = sorted(results, key=lambda one: int(one["calls"]))
    found = []
    for name, title in PANELS:
        lines: list[Line] = []
        for share in SHARES:
            points = [(one["calls"], one[name][share]) for one in ordered if one.get(name)]
            known = [(calls, value) for calls, value in points if value is not None]
            if known:
                lines.append((share, [calls for calls, _ in known], [value for _, value in known]))
        if lines:
            found.append((title, lines))
    return found


def draw(shown: Sequence[Panel], knees: Mapping[str, Knee], path: Path, title: str, *, log: bool = False) -> None:
    """Write the image, with a dotted line for each of `knees` (by label), on logarithmic axes where `log` is set.

    Raises PlotMissing, and OSError or ValueError for the file.
    """
    require_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(shown) or 1, 1, figsize=(8, 3 * max(1, len(shown))), squeeze=False)
    for axis, (label, lines) in zip(axes[:, 0], shown, strict=False):
        for name, calls, values in lines:
            axis.plot(calls, values, marker="o", label=name)
        for at, (name, knee) in enumerate(knees.items()):
            if knee.calls is not None:
                color = f"C{at}" if name else "grey"
                axis.axvline(knee.calls, linestyle=":", color=color, label=f"{name} knee: {knee}".strip())
        axis.set_ylabel(label)
        if log:
            axis.set_xscale("log")
            axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    axes[-1, 0].set_xlabel("calls at the same time")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
