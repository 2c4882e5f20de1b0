"""A caller who listens: says a turn again that was not answered, and corrects what is read back wrong.

Like a person, and unlike a script, such a caller does not say yes to a wrong date. What the agent said is read in the
server's transcript, which stands for the caller's ear. Each thing that is said is a turn and is judged as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.demo.score import has_keyword
from bench.demo.talk import Talk
from bench.sim.caller import Say, TurnRecord

SLACK_MS = 700
"""The server's media clock begins with the first frame that it received, the caller's when the socket opened."""
MAX_CORRECTIONS = 2
"""So often a caller corrects one value, and then lets it be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A value that the caller wants: the ways to write it, and what is said when it was read back wrong."""

    ways: tuple[str, ...]
    correction: Say


class Ear:
    """What to say instead of the next turn, given how the last one was answered.

    Args:
        wishes: the values of the call.
        again: what is said when a turn was not answered, by the turn.
        talk: the call as the server tells it.
    """

    def __init__(self, wishes: Mapping[str, Wish], again: Mapping[Say, Say], talk: Callable[[], Talk]) -> None:
        self._wishes = wishes
        self._again = again
        self._talk = talk
        self._corrected: dict[str, int] = {}
        self._repeated: set[Say] = set()

    def __call__(self, records: Sequence[TurnRecord]) -> Say | None:
        last = records[-1]
        if last.said_to_ms is None:
            return None
        since_ms = last.said_to_ms - SLACK_MS
        said = " ".join(s.text for s in self._talk().segments if s.speaker == "agent" and s.start_ms > since_ms)
        if not has_keyword(said, last.say.expect):
            # Twice at most, also where the words are the same both times.
            again = self._again.get(last.say) if last.say not in self._repeated else None
            self._repeated.add(last.say)
            return again
        for name in wrong(said, last.say.holds):
            if self._corrected.get(name, 0) < MAX_CORRECTIONS:
                self._corrected[name] = self._corrected.get(name, 0) + 1
                # The answer to the correction is judged as the one that it mends.
                return replace(self._wishes[name].correction, expect=last.say.expect, holds=last.say.holds)
        return None


def wrong(answer: str, holds: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The names of the values that `answer` should hold and does not."""
    return [name for name, ways in holds if not has_keyword(answer, ways)]
