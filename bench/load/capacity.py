"""How many calls a server carries: N simulated callers at real pace, judged by what they hear.

The generator is this process; everything it reports it measured outside the server, but `own_latency_ms`, which only
the server can know and is labelled so in the table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.load import verdict
from bench.load.crowd import Crowd
from bench.load.load_caller import LoadCaller
from bench.load.options import Options, parser
from bench.load.report import COMMON_ROWS, Sound, run_bench
from bench.load.rig import Bench, Floors, native_isa, raised
from bench.load.server_process import ServerProcess
from bench.load.stacks import flame
from bench.load.verdict import Result
from bench.out_file import out_file


class Sampled(ServerProcess):
    """The server, with its stacks written to `out` when it ends."""

    def __init__(self, out: Path, env: Mapping[str, str]) -> None:
        super().__init__(env)
        self._out = out

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "bench.load.stacks", "run", str(self._out.resolve()), "serve"]


async def run_once(options: Options, sound: Sound, bench: Bench) -> Result:
    """One whole run. Raises ServerFailed, FloorFailed, UsageError when there is nothing to measure."""
    floors = Floors()
    async with raised(options, bench, floors, sound.clips) as rig:
        crowd = Crowd(rig, lambda number, think: LoadCaller(number, sound.clips, think, options.proof))
        result = crowd.figures(await crowd.watch())
    return verdict.concluded(result, floors, rig.problems, rig.failures + verdict.broken(result))


def main(argv: list[str], bench: Bench | None = None) -> int:
    """Returns 0 for valid runs in which nothing was broken, 1 for others, 2 when nothing could be measured."""
    made = parser("capacity", __doc__.splitlines()[0], calls=50, seconds=30)
    made.add_argument("--stacks", type=out_file, metavar="FILE", help="where the server's CPU went (load/stacks.py)")
    made.add_argument("--flame", type=out_file, metavar="SVG", help="the same as a flame graph")
    asked = made.parse_args(argv)
    stacks = asked.stacks or (asked.flame and asked.flame.with_suffix(".stacks"))
    if stacks is not None:
        bench = replace(bench or Bench(isa=native_isa()), serve=partial(Sampled, stacks))
    code = run_bench(asked, run_once, COMMON_ROWS, bench)
    if asked.flame and stacks.exists():
        asked.flame.write_text(flame([stacks]))
    return code
