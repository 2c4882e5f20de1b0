"""The demo's callers as a book, for simulated recognisers: every clip that is said in its calls."""

from __future__ import annotations

from collections.abc import Iterable

from bench.demo.script import PlannedCall
from bench.sim.clipbook import BookClip, Clipbook


def book_of(calls: Iterable[PlannedCall]) -> Clipbook:
    """Equal sounds once; named by the call and the turn. `Clipbook.save` gives it to another process."""
    clips: dict[bytes, BookClip] = {}
    for call in calls:
        for no, turn in enumerate(call.turns, 1):
            if turn.clip is not None and turn.clip.pcmu not in clips:
                clips[turn.clip.pcmu] = BookClip.of_clip(f"{call.name} {no}", turn.clip)
    return Clipbook(clips.values())
