"""A voice that keeps every deadline and is still slower than it is listened to: audio against the time it took.

    delivered   ███ 300 ms      ▌20 ms      ▌20 ms      ▌20 ms
    listener    ▓▓▓▓▓▓▓ plays ──┤ dry: 1 s in which 40 ms came ├─► drips

Only time spent waiting for the voice counts, so a slow listener never makes it late. Pure: time comes in.
"""

from __future__ import annotations


class Drip:
    """One attempt to speak. `least_share`: of the time of a window in which the listener has nothing left to play."""

    __slots__ = ("_came_ms", "_dry_ms", "_lead_ms", "_least_share", "_waited_ms", "_window_ms")

    def __init__(self, window_ms: int, least_share: float) -> None:
        self._window_ms = window_ms
        self._least_share = least_share
        self._waited_ms = 0.0
        self._lead_ms: float | None = None  # what the listener still has to play; None before the first audio
        self._dry_ms: float | None = None  # of this window, since the listener had nothing left
        self._came_ms = 0.0  # in the same time

    def waited(self, ms: float) -> None:
        self._waited_ms += ms

    def is_dripping(self, audio_ms: float) -> bool:
        """Audio has come. Whether so little came that the voice cannot be listened to."""
        waited_ms, self._waited_ms = self._waited_ms, 0.0
        if self._lead_ms is None:
            self._lead_ms = audio_ms
            return False
        if self._dry_ms is None:
            if waited_ms <= self._lead_ms:
                self._lead_ms += audio_ms - waited_ms
                return False
            self._dry_ms, self._came_ms = waited_ms - self._lead_ms, 0.0
        else:
            self._dry_ms += waited_ms
        self._came_ms += audio_ms
        if self._came_ms >= self._dry_ms:
            self._lead_ms, self._dry_ms = self._came_ms - self._dry_ms, None
        elif self._dry_ms >= self._window_ms:
            if self._came_ms < self._least_share * self._dry_ms:
                return True
            self._dry_ms = self._came_ms = 0.0
        return False
