"""What a value of a form is, and what was found of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOT_TYPES = ("number", "digits", "date", "time", "name", "choice", "text")


@dataclass(frozen=True, slots=True)
class Found:
    """`value` is for the agent's mouth; `start`, `end` are the words used. Not `is_sure`: better ask once more."""

    value: str
    start: int
    end: int
    is_sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """What the script says about one value. Compared by identity.

    `choices` maps the value to the plain words for it; `cues` are words beside which a number is this one; `labels` are
    what callers call it ("no, the day").
    """

    name: str
    type: str
    ask: tuple[str, ...]
    reask: tuple[str, ...] = ()
    invalid: str = ""
    low: int = 0
    high: int = 10**9
    refuse: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep: bool = False
    cues: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
