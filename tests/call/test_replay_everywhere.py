"""One hash wherever a capture is replayed: inside either event loop, and at every instruction set of the kernels.

The captures themselves were made on both loops (tests/data/captures/README.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

from audio_native import dispatch, silero
from server.call.replay import replay_capture
from tests.call.expectation import Expectation

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = sorted((ROOT / "tests" / "data" / "captures").glob("*.capture"))
# Replays every file plainly, then with its audio scored again, by the command that people use.
ALL_OF_THEM = """
import sys
from audio_native import dispatch, silero
from server.__main__ import main
print('["%s", "%s"]' % (dispatch.ISA, silero.LEVEL))
for options in ([], ["--recompute"]):
    for path in sys.argv[1:]:
        main(["replay", "--json", *options, path])
"""
# What the variable chooses: (of the kernels, of the network). Unset, each takes its best; the network has one more.
LEVELS = {"": (dispatch.AVAILABLE[0], silero.LEVELS[0])} | {
    one: (one, one if one in silero.LEVELS else silero.LEVELS[-1]) for one in dispatch.AVAILABLE
}
# Of 255. Scores are floating-point numbers: levels may round otherwise.
MOST_CHANGE = 1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_either_loop_gives_the_hash(run: Any) -> None:
    async def main() -> dict[str, str]:
        return {path.stem: replay_capture(path).decided_hash for path in CAPTURES}

    assert run(main()) == {path.stem: Expectation.load(path.with_suffix(".yaml")).hash for path in CAPTURES}


@pytest.mark.slow
@pytest.mark.parametrize("isa", LEVELS, ids=lambda isa: isa or "best")
def test_every_instruction_set_gives_the_hash_and_the_decisions(isa: str) -> None:
    names = [path.stem for path in CAPTURES]
    run = subprocess.run(
        [sys.executable, "-c", ALL_OF_THEM, *map(str, CAPTURES)],
        cwd=ROOT, env={**os.environ, "AUDIO_NATIVE_ISA": isa}, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    levels, *found = [json.loads(line) for line in run.stdout.splitlines()]
    assert tuple(levels) == LEVELS[isa]
    plain = dict(zip(names, found[: len(names)], strict=True))
    again = dict(zip(names, found[len(names) :], strict=True))
    for path in CAPTURES:
        assert plain[path.stem]["same"]
        assert plain[path.stem]["decided_hash"] == Expectation.load(path.with_suffix(".yaml")).hash
        # Heard by the network of this level: the same talkspurts, so the same decisions.
        assert again[path.stem]["differences"] == [] and again[path.stem]["same"], again[path.stem]["differences"]
        scores = again[path.stem]["scores"]
        assert scores["windows"] > 100 and scores["largest_change"] <= MOST_CHANGE, scores
