"""Faults of the network between carrier and server, by a plan or by a seeded dice; deterministic either way.

The sender hands over each media message with its chunk number and sends what comes back, in that order. A lost
message leaves a gap in `chunk`, as it does at the carrier.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Chunk numbers (from 1) that suffer; `*_rate` adds random ones. Nothing set: a perfect network.

    swap: the message goes out after its successor. stall: (chunk, frames): that chunk and the ones after it are
    held back and go out in one burst. abort_at: the TCP connection is dropped before this chunk. lose_marks: those of
    the server's marks, by their number (from 1), that do not come back.
    """

    drop: Collection[int] = ()
    duplicate: Collection[int] = ()
    swap: Collection[int] = ()
    stalls: Collection[tuple[int, int]] = ()
    abort_at: int | None = None
    swallow_marks: bool = False
    lose_marks: Collection[int] = ()
    drop_rate: float = 0.0
    duplicate_rate: float = 0.0
    swap_rate: float = 0.0
    seed: int = 1


class FaultyPath:
    """One stream's way through the network."""

    __slots__ = (
        "_dice", "_held", "_marks", "_plan", "_release_at", "_swapped", "bursts", "dropped", "duplicated", "swapped",
    )  # fmt: skip

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self._held: list[bytes] = []
        self._swapped: bytes | None = None
        self._release_at = 0
        self._marks = 0
        self.dropped = self.duplicated = self.swapped = self.bursts = 0

    def wants_abort(self, chunk: int) -> bool:
        return self._plan.abort_at is not None and chunk >= self._plan.abort_at

    def loses_mark(self) -> bool:
        """Whether the mark that comes back now is lost; to be asked once for each."""
        self._marks += 1
        return self._plan.swallow_marks or self._marks in self._plan.lose_marks

    def pass_on(self, chunk: int, message: bytes) -> list[bytes]:
        """What reaches the server now that `message` was sent."""
        out = self._lose_and_double(chunk, message)
        if out and self._swapped is None and self._wants_swap(chunk):
            self._swapped = out.pop()
            self.swapped += 1
        elif self._swapped is not None:
            out.append(self._swapped)
            self._swapped = None
        return self._stall(chunk, out)

    def _wants_swap(self, chunk: int) -> bool:
        plan = self._plan
        return chunk in plan.swap or bool(plan.swap_rate and self._dice.random() < plan.swap_rate)

    def _lose_and_double(self, chunk: int, message: bytes) -> list[bytes]:
        plan = self._plan
        if chunk in plan.drop or (plan.drop_rate and self._dice.random() < plan.drop_rate):
            self.dropped += 1
            return []
        if chunk in plan.duplicate or (plan.duplicate_rate and self._dice.random() < plan.duplicate_rate):
            self.duplicated += 1
            return [message, message]
        return [message]

    def _stall(self, chunk: int, out: list[bytes]) -> list[bytes]:
        for begin, frames in self._plan.stalls:
            if chunk == begin:
                self._release_at = chunk + frames
        if chunk < self._release_at:
            self._held += out
            return []
        if self._held:
            out = self._held + out
            self._held = []
            self.bursts += 1
        return out
