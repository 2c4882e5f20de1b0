"""A file that cannot be written is refused before a bench runs for minutes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import micro
from bench.load import bargein, capacity, capture_cost, check, latency, soak
from bench.out_file import out_file
from bench.peers import run as peers
from bench.sdk import run as sdk

MAINS = (
    capacity.main,
    latency.main,
    bargein.main,
    soak.main,
    check.main,
    capture_cost.main,
    micro.main,
    peers.main,
    sdk.main,
)


@pytest.mark.parametrize("main", MAINS)
def test_a_missing_folder_is_noticed_before_the_run(
    main: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plotting = main in (capacity.main, latency.main, bargein.main)
    for option in ("--json", *(["--plot"] if plotting else []), *(["--stacks"] if main == capacity.main else [])):
        with pytest.raises(SystemExit) as left:
            main([option, str(tmp_path / "none" / "out")])
        said = capsys.readouterr()
        assert left.value.code == 2 and said.out == ""
        assert f"argument {option}: there is no folder {tmp_path / 'none'}" in said.err


def test_what_can_be_written_is_taken_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    assert out_file(str(tmp_path / "old.json")).read_text() == "{}"
    assert not out_file(str(tmp_path / "new.json")).exists()
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder"):
        out_file(str(tmp_path))
