"""Where passing ends, of runs with more and more calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Knee:
    """The most calls up to which every valid run passed: beyond it the server was not up to it.

    Attributes:
        calls: None where none passed.
        is_reached: a run with more calls failed; else the server may carry more than was asked of it.
        skipped: runs that were invalid, which say nothing about the server.
    """

    calls: int | None
    is_reached: bool
    skipped: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.calls is None:
            text = "less than all of these" if self.is_reached else "not known, no run was valid"
        else:
            text = f"{self.calls} calls" if self.is_reached else f">= {self.calls} calls (not reached)"
        return text + (f"; skipped as invalid: {', '.join(map(str, self.skipped))}" if self.skipped else "")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"calls": self.calls, "reached": self.is_reached, "skipped": list(self.skipped), "text": str(self)}


def knee(results: Sequence[Mapping[str, Any]]) -> Knee:
    ordered = sorted(results, key=lambda one: int(one["calls"]))
    skipped = tuple(int(one["calls"]) for one in ordered if not one["valid"])
    most = None
    for one in ordered:
        if not one["valid"]:
            continue
        if one["broken"]:
            return Knee(most, is_reached=True, skipped=skipped)
        most = int(one["calls"])
    return Knee(most, is_reached=False, skipped=skipped)
