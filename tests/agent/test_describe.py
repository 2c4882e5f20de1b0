"""The pages that operators read have the settings as the schema has them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from server.agent.describe import NONE, Description, describe, main, rewritten, table
from server.agent.tool_settings import ToolSettings
from tests.agent.test_settings import LEAVES

ROOT = Path(__file__).parents[2]
COMMAND = "python -m server.agent.describe docs/agents.md docs/replay.md"


@pytest.mark.parametrize(("name", "group"), [("agents.md", ""), ("replay.md", "capture")])
def test_a_page_has_the_table_that_the_schema_gives(name: str, group: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    assert page == rewritten(page), f"run {COMMAND}"
    assert page.count(table(group)) == 1


def test_every_setting_has_a_row_that_says_something_of_all() -> None:
    rows = list(describe())
    tools = ["tools", *(f"tools[].{one.name}" for one in dataclasses.fields(ToolSettings))]
    assert [one.path for one in rows] == [".".join(path) for path, _, _ in LEAVES] + tools + ["script", "channels"]
    for one in rows:
        cells = (one.type, one.default, one.range, one.unit, one.meaning)
        assert all(cells) and not any("|" in cell or "\n" in cell for cell in cells), one
        assert len(one.meaning.split()) > 1 and "TODO" not in one.meaning, one
    # A number is a number of something, or its meaning says of what.
    unitless = {one.path for one in rows if one.type.endswith("number") and one.unit == NONE}
    assert unitless == {
        "stt.phrase_weight", "stt.stable_words",
        "llm.temperature", "llm.frequency_penalty", "llm.presence_penalty", "tts.style_degree",
        "turn.vad_mode", "tools[].retries",
    }  # fmt: skip


@dataclass(frozen=True)
class Inner:
    wait_ms: int = field(default=5, metadata={"low": 1, "high": 2_000_000, "doc": "how long"})
    hurry: bool = field(default=True, metadata={"doc": "at once"})


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    mode: Literal["", "a"] = field(default="", metadata={"doc": "which"})
    words: tuple[str, ...] = field(default=(), metadata={"max_items": 3, "max_chars": 9, "doc": "some"})


def test_each_kind_of_setting_is_described() -> None:
    assert list(describe(Outer)) == [
        Description("inner.wait_ms", "whole number", "5", "1 to 2000000", "ms", "how long"),
        Description("inner.hurry", "flag", "`true`", "`true`, `false`", NONE, "at once"),
        Description("mode", "one of", NONE, "empty, `a`", NONE, "which"),
        Description("words", "list of texts", NONE, "at most 3, of 9 characters", NONE, "some"),
    ]


def test_the_command_mends_a_page_and_nothing_else_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- settings capture -->\nold\n<!-- end -->\nb\n<!-- settings -->\n<!-- end -->\nc\n")
    assert main([str(page)]) == 0
    first, second = table("capture"), table()
    assert page.read_text() == (
        f"a\n<!-- settings capture -->\n{first}<!-- end -->\nb\n<!-- settings -->\n{second}<!-- end -->\nc\n"
    )
    assert main([]) == 0 and capsys.readouterr().out == second
