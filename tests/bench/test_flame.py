"""Flame graphs: widths are shares, frames lie on their callers, names cannot break the image."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.load.flame import OURS, ROW, WIDTH, svg, tree
from bench.load.stacks import flame

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    "Runner.run@asyncio/runners.py;Pacer.tick@server/call/pacer.py 30",
    "Runner.run@asyncio/runners.py;Pacer.tick@server/call/pacer.py;<lambda>@server/a&b.py 10",
    "Runner.run@asyncio/runners.py 60",
]


def boxes(text: str) -> dict[str, tuple[float, float, float]]:
    """(x, y, width) by title."""
    found = {}
    for group in ElementTree.fromstring(text).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and box is not None
        found[str(title.text)] = (float(box.get("x", "")), float(box.get("y", "")), float(box.get("width", "")))
    return found


def test_widths_are_shares_and_callers_lie_below() -> None:
    drawn = boxes(svg(LINES, "what <is> seen"))
    runner = drawn["Runner.run (asyncio/runners.py) 100.0%"]
    pacer = drawn["Pacer.tick (server/call/pacer.py) 40.0%"]
    inner = drawn["<lambda> (server/a&b.py) 10.0%"]
    assert [one[2] for one in (runner, pacer, inner)] == [WIDTH, WIDTH * 0.4, WIDTH * 0.1]
    assert [one[1] for one in (pacer, inner)] == [runner[1] - ROW, runner[1] - 2 * ROW]


def test_what_is_too_narrow_is_counted_and_not_drawn() -> None:
    lines = ["a@server/a.py 99999", "b@server/b.py 1"]
    assert tree(lines).samples == 100_000
    assert list(boxes(svg(lines, ""))) == ["a (server/a.py) 100.0%"]
    with pytest.raises(ValueError, match="invalid literal"):
        svg(["no stack"], "")


def test_files_of_stacks_become_one_image(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        path.write_text("".join(f"{line}\n" for line in LINES))
    assert "200 samples" in flame(files)
    assert svg([], "nothing").startswith("<svg") and all(one.endswith("/") for one in OURS)
