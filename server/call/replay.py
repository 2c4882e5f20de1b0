"""Steps the journal of a call again: are its decisions still the same, and what would other settings have decided?

    journal ─► (instant, event) ─► Conversation.step ─► decisions ─► SHA-256, compared with what was decided then

The hash is over the decisions alone, in order, as canonical JSON: the same on every machine, since nothing here reads a
clock, draws a number or depends on the order of a set. With other settings the events stay those of the recorded call,
which the other agent would not have had in all of its parts: the first difference says most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from server.agent.settings import AgentSettings
from server.call.journal import replay

MAX_DIFFERENCES = 50


@dataclass(frozen=True, slots=True)
class Difference:
    """Step `number` (from 1) decided otherwise than then. Actions are [name, fields]."""

    number: int
    now_ns: int
    event: str
    recorded: tuple[Any, ...]
    decided: tuple[Any, ...]


@dataclass(slots=True)
class Replayed:
    """`recorded_hash` and `decided_hash` are equal when every decision is."""

    steps: int = 0
    recorded_hash: str = ""
    decided_hash: str = ""
    differences: list[Difference] = field(default_factory=list)
    dropped: int = 0

    @property
    def is_same(self) -> bool:
        return self.recorded_hash == self.decided_hash

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "steps": self.steps,
            "recorded_hash": self.recorded_hash,
            "decided_hash": self.decided_hash,
            "same": self.is_same,
            "differences": [
                {
                    "step": one.number,
                    "now_ns": one.now_ns,
                    "event": one.event,
                    "recorded": list(one.recorded),
                    "decided": list(one.decided),
                }
                for one in self.differences
            ],
            "more_differences": self.dropped,
        }


def replay_journal(path: Path, against: AgentSettings | None = None) -> Replayed:
    """Step `path` again, with the settings that it holds or with others.

    Raises:
        JournalError: not a journal, or of another version. OSError: it cannot be read.
        UnexpectedEvent: other settings brought the conversation where a recorded event cannot happen.
    """
    result = Replayed()
    then, now = hashlib.sha256(), hashlib.sha256()
    for now_ns, event, recorded, decided in replay(path, against):
        result.steps += 1
        then.update(_canonical(recorded))
        now.update(_canonical(decided))
        if recorded != decided:
            if len(result.differences) < MAX_DIFFERENCES:
                name = type(event).__name__
                result.differences.append(Difference(result.steps, now_ns, name, tuple(recorded), tuple(decided)))
            else:
                result.dropped += 1
    result.recorded_hash, result.decided_hash = then.hexdigest(), now.hexdigest()
    return result


def lines(result: Replayed) -> Iterator[str]:
    """For people: the verdict, then the differences."""
    yield f"{result.steps} steps, decisions {result.decided_hash[:16]}"
    if result.is_same:
        yield "the same as recorded"
        return
    yield f"recorded {result.recorded_hash[:16]}: {len(result.differences) + result.dropped} steps differ"
    for one in result.differences:
        yield f"  step {one.number} {one.event}: recorded {_short(one.recorded)}"
        yield f"  {'':>{len(str(one.number)) + len(one.event) + 6}} now      {_short(one.decided)}"
    if result.dropped:
        yield f"  and {result.dropped} more"


def _short(actions: tuple[Any, ...]) -> str:
    return "; ".join(f"{name} {orjson.dumps(values).decode()}" for name, values in actions)[:160] or "nothing"


def _canonical(actions: list[Any]) -> bytes:
    return orjson.dumps(actions, option=orjson.OPT_SORT_KEYS) + b"\n"
