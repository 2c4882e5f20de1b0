"""What must be decided in a captured call: expectations as data, checked on the steps as they are decided now.

    expectation (YAML) ─┐
                        ├─► one sentence for each that is not met, with what was decided instead
    steps of a replay ──┘

A *pattern* is the name of an event or action, alone or with fields: `{RecordSegment: {speaker: agent}}`. A text is a
regular expression for the whole field, `{min, max}` a range, anything else must be equal. SpeechStopped has one field
more, `duration_ms`. An expectation `says` what it is in words and is one of

    times: N        so many of `what`; with at_least, no fewer
    within_ms: N    each of `from` is followed by `what` so soon, its own step included; and there is one of `from`
    order: […]      these one after the other, others in between

in the steps `after` the first of one pattern and `until` the first of another, both steps left out; `until` counts from
`after`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from server.call.recompute import Decided
from server.dialogue import event as ev

NAMES = {kind.__name__ for kind in (*ev.Event.__args__, *ev.Action.__args__)}
KEYS = {"says", "times", "at_least", "within_ms", "order", "what", "from", "after", "until"}
# Of each decision, in a message.
MOST_CHARS = 150
UNINTERESTING = ("SetTimer", "CancelTimer")


@dataclass(frozen=True, slots=True)
class Item:
    """An event or an action. `step` counts from 0, `at_ns` is its step's instant."""

    step: int
    at_ns: int
    name: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Expectation:
    """The file beside a capture."""

    name: str
    hash: str
    decided: list[dict[str, Any]]

    @classmethod
    def load(cls, path: Path) -> Expectation:
        """Raises ValueError for a key or a name that means nothing: it would expect nothing."""
        raw = yaml.safe_load(path.read_text())
        for one in raw["decided"]:
            kinds = {"times", "within_ms", "order"} & one.keys()
            patterns = [one[key] for key in ("what", "from", "after", "until") if key in one] + one.get("order", [])
            unknown = {_name(pattern) for pattern in patterns} - NAMES
            if len(kinds) != 1 or one.keys() - KEYS or unknown or "says" not in one:
                raise ValueError(f"{path.name}: {one.get('says')}: {sorted(kinds)} {sorted(unknown)}")
        return cls(path.stem, str(raw["hash"]), raw["decided"])

    def unmet(self, log: Sequence[Decided]) -> list[str]:
        """One text for each expectation that these steps do not meet."""
        items = list(_items(log))
        problems = ((one, _problem(one, _region(one, items))) for one in self.decided)
        return [f"{self.name}: {one['says']}: {text}" for one, text in problems if text]


def told(log: Sequence[Decided]) -> str:
    """The steps in which something was decided, for people."""
    lines = []
    for one in log:
        made = [f"{name} {values}"[:MOST_CHARS] for name, values in one.actions if name not in UNINTERESTING]
        if made:
            at_ms = (one.now_ns - log[0].now_ns) / 1e6
            lines.append(f"  {at_ms:9.1f} ms  {type(one.event).__name__}: " + "; ".join(made))
    return "\n".join(lines)


def _items(log: Sequence[Decided]) -> Iterator[Item]:
    for step, one in enumerate(log):
        values = asdict(one.event)
        if isinstance(one.event, ev.SpeechStopped):
            values["duration_ms"] = one.event.end_ms - one.event.start_ms
        yield Item(step, one.now_ns, type(one.event).__name__, values)
        for name, values in one.actions:
            yield Item(step, one.now_ns, name, values)


def _region(one: dict[str, Any], items: list[Item]) -> list[Item]:
    if "after" in one:
        begin = next((item.step for item in items if _fits(one["after"], item)), None)
        items = [item for item in items if begin is not None and item.step > begin]
    if "until" in one:
        end = next((item.step for item in items if _fits(one["until"], item)), None)
        items = [item for item in items if end is None or item.step < end]
    return items


def _problem(one: dict[str, Any], items: list[Item]) -> str:
    if "order" in one:
        return _out_of_order(one["order"], items)
    found = [item for item in items if _fits(one["what"], item)]
    if "within_ms" in one:
        return _late(one, items, found)
    times = len(found)
    if times == one["times"] or (one.get("at_least") and times > one["times"]):
        return ""
    least = "at least " if one.get("at_least") else ""
    return f"expected {least}{one['times']} × {_text(one['what'])}, got {times}"


def _late(one: dict[str, Any], items: list[Item], found: list[Item]) -> str:
    begins = [item for item in items if _fits(one["from"], item)]
    if not begins:
        return f"there is no {_text(one['from'])}"
    for begin in begins:
        after_ms = min((item.at_ns - begin.at_ns for item in found if item.step >= begin.step), default=None)
        if after_ms is None or after_ms > one["within_ms"] * 1_000_000:
            when = "never came" if after_ms is None else f"came after {after_ms / 1e6:.1f} ms"
            return f"{_text(one['what'])} is due within {one['within_ms']} ms of {_text(one['from'])} and {when}"
    return ""


def _out_of_order(patterns: list[Any], items: list[Item]) -> str:
    left = iter(items)
    for at, pattern in enumerate(patterns):
        if not any(_fits(pattern, item) for item in left):
            before = f" after {_text(patterns[at - 1])}" if at else ""
            return f"there is no {_text(pattern)}{before}"
    return ""


def _name(pattern: Any) -> str:
    return pattern if isinstance(pattern, str) else str(next(iter(pattern)))


def _text(pattern: Any) -> str:
    if isinstance(pattern, str):
        return pattern
    ((name, fields),) = pattern.items()
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in fields.items())})" if fields else str(name)


def _fits(pattern: Any, item: Item) -> bool:
    if item.name != _name(pattern):
        return False
    fields = {} if isinstance(pattern, str) else pattern[item.name]
    return all(_equal(wanted, item.values[key]) for key, wanted in fields.items())


def _equal(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(value, str) and re.fullmatch(wanted, value, re.DOTALL) is not None
    if isinstance(wanted, dict):
        return value is not None and wanted.get("min", value) <= value <= wanted.get("max", value)
    return bool(wanted == value)
