"""A newcomer finds every command: what can be run stands in CONTRIBUTING.md, and what stands there can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.__main__ import BENCHES
from server.__main__ import main

ROOT = Path(__file__).parent.parent
NAMED = set(re.findall(r"`(make \w+|talkspurt \w+)", (ROOT / "CONTRIBUTING.md").read_text().partition("## Words")[0]))


def test_every_target_of_the_makefile_is_named() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert {one.removeprefix("make ") for one in NAMED if one.startswith("make ")} == set(phony.split())


def test_every_command_of_the_program_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = set(re.findall(r"^    (\w+) +\w", capsys.readouterr().out, re.MULTILINE))
    assert {one.removeprefix("talkspurt ") for one in NAMED if one.startswith("talkspurt ")} == offered


def test_every_benchmark_is_named_on_its_page() -> None:
    page = (ROOT / "bench" / "README.md").read_text()
    assert set(re.findall(r"^\| `python -m bench (\w+)", page, re.MULTILINE)) == set(BENCHES)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target
