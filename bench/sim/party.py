"""Who is at the far end of a simulated call, as the carrier sees them: twenty milliseconds out for twenty in."""

from __future__ import annotations

from typing import Protocol


class Line(Protocol):
    """What a party can do besides speaking."""

    def send_dtmf(self, digit: str) -> None:
        """Press a key: one of 0-9, *, #, A-D."""

    def end_utterance(self) -> None:
        """The caller takes the floor: what the agent says next is another utterance, for the underrun count."""


class Party(Protocol):
    """A caller. All methods are called by the carrier's tick or socket and must return at once.

    Instants are monotonic nanoseconds. `heard` and `pcmu` are mu-law at 8000 Hz.
    """

    def on_start(self, line: Line, now_ns: int) -> None:
        """The stream is open."""

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        """The last 20 ms of what was played (None: silence); returns base64 of 160 codes, None to hang up."""

    def on_media(self, pcmu: bytes, now_ns: int) -> None:
        """Audio arrived from the server; it will be heard later."""

    def on_clear(self, now_ns: int) -> None:
        """The server dropped what was not heard yet."""

    def on_end(self, now_ns: int) -> None:
        """The stream is over."""
