"""The settings as the table that operators read, made from the schema so that the two cannot differ.

    python -m server.agent.describe docs/agents.md docs/replay.md

rewrites what stands between `<!-- settings -->` (or `<!-- settings capture -->`: one group) and `<!-- end -->`. The
functions are pure; only this command touches files, and no server runs it.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from server.agent.settings import AgentSettings

HEAD = ("setting", "type", "default", "range", "unit", "meaning")
UNITS: Mapping[str, str] = {"ms": "ms", "percent": "%", "dbfs": "dBFS", "bytes": "bytes", "tokens": "tokens"}
"""Last word of a name -> unit, as everywhere in the code."""
NONE = "—"

_PLACE = re.compile(r"(<!-- settings ?(\w*) -->\n).*?(<!-- end -->\n)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Description:
    """One row: the path of a setting and what is said of it, each a text."""

    path: str
    type: str
    default: str
    range: str
    unit: str
    meaning: str


def describe(cls: type[Any] = AgentSettings, path: str = "") -> Iterator[Description]:
    """Every setting of `cls` and of its groups, in the order of the schema."""
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        hint, name = hints[spec.name], f"{path}{spec.name}"
        if dataclasses.is_dataclass(hint):
            yield from describe(typing.cast(type[Any], hint), f"{name}.")
            continue
        if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(record := typing.get_args(hint)[0]):
            yield Description(name, "list", NONE, f"at most {spec.metadata['max_items']}", NONE, spec.metadata["doc"])
            yield from describe(typing.cast(type[Any], record), f"{name}[].")
            continue
        kind, extent = _kind(hint, spec.metadata)
        unit = UNITS.get(spec.name.rpartition("_")[2], NONE) if hint in (int, float) else NONE
        yield Description(name, kind, _shown(spec.default), extent, unit, spec.metadata["doc"])


def table(group: str = "") -> str:
    """All settings, or those of `group`, as a Markdown table that ends with a line feed."""
    rows = [HEAD, tuple("---" for _ in HEAD)]
    for one in describe():
        if not group or one.path.startswith(f"{group}."):
            rows.append((f"`{one.path}`", one.type, one.default, one.range, one.unit, one.meaning))
    lines = ("|" + "|".join(row) + "|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in rows)
    return "\n".join(lines) + "\n"


def rewritten(page: str) -> str:
    """`page` with each of its tables of settings as the schema has it."""
    return _PLACE.sub(lambda place: f"{place[1]}{table(place[2])}{place[3]}", page)


def _kind(hint: Any, meta: Mapping[str, Any]) -> tuple[str, str]:
    """(type, range) in words."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of", ", ".join(f"`{one}`" if one else "empty" for one in typing.get_args(hint))
    if origin is tuple:
        return "list of texts", f"at most {meta['max_items']}, of {meta['max_chars']} characters"
    if origin is not None:
        return "mapping", NONE
    if hint is bool:
        return "flag", "`true`, `false`"
    if hint is str:
        if "pattern" in meta:
            return "text", meta["form"] or f"`{meta['pattern']}`"
        return "text", f"at most {meta['max_chars']} characters"
    return "whole number" if hint is int else "number", f"{meta['low']:.12g} to {meta['high']:.12g}"


def _shown(default: Any) -> str:
    if default is dataclasses.MISSING or default in ("", ()):
        return NONE
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if isinstance(default, str) else f"{default:.12g}"


def main(paths: Sequence[str]) -> int:
    """Rewrite the pages; without any, print the table. Returns the exit status."""
    for path in map(Path, paths):
        path.write_text(rewritten(path.read_text()))
    if not paths:
        sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
