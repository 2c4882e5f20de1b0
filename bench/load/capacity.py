"""How many calls a server carries: N simulated callers at real pace, judged by what they hear.

The generator is this process; everything it reports it measured outside the server, but `own_latency_ms`, which only
the server can know and is labelled so in the table.
"""

from __future__ import annotations

from bench.load import verdict
from bench.load.crowd import Crowd
from bench.load.load_caller import LoadCaller
from bench.load.options import Options, parser
from bench.load.report import COMMON_ROWS, Sound, run_bench
from bench.load.rig import Bench, Floors, raised
from bench.load.verdict import Result


async def run_once(options: Options, sound: Sound, bench: Bench) -> Result:
    """One whole run. Raises ServerFailed, FloorFailed, UsageError when there is nothing to measure."""
    floors = Floors()
    async with raised(options, bench, floors, sound.clips) as rig:
        crowd = Crowd(rig, lambda number, think: LoadCaller(number, sound.clips, think, options.proof))
        result = crowd.figures(await crowd.watch())
    return verdict.concluded(result, floors, rig.problems, verdict.broken(result))


def main(argv: list[str], bench: Bench | None = None) -> int:
    """Returns 0 for valid runs in which nothing was broken, 1 for others, 2 when nothing could be measured."""
    made = parser("capacity", __doc__.splitlines()[0], calls=50, seconds=30)
    return run_bench(made.parse_args(argv), run_once, COMMON_ROWS, bench)
