"""Where the milliseconds of a turn go: the server's account by stage, beside the stop watch at the caller's end.

`turn_latency_ms` is the caller's: last speech sample sent to first audible sample received. `stages` and
`server_turn_latency_ms` are the server's records of the same turns; the difference of the two medians is the way
between caller and server, and must stay small.
"""

from __future__ import annotations

from bench.load import verdict
from bench.load.crowd import Crowd, stages
from bench.load.figure import percentiles
from bench.load.load_caller import LoadCaller
from bench.load.options import Options, parser
from bench.load.report import COMMON_ROWS, Rows, Sound, run_bench, trio
from bench.load.rig import Bench, Floors, raised
from bench.load.verdict import Result

STAGES = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own", "playout")
MAX_UNEXPLAINED_MS = 50.0
"""Two frames and what a busy loop adds; more means that the server's account leaves something out."""
MAX_SUM_ERROR_MS = 1.0


async def run_once(options: Options, sound: Sound, bench: Bench) -> Result:
    """One whole run. Raises ServerFailed, FloorFailed, UsageError when there is nothing to measure."""
    floors = Floors()
    async with raised(options, bench, floors, sound.clips) as rig:
        crowd = Crowd(rig, lambda number, think: LoadCaller(number, sound.clips, think, options.proof))
        seen = await crowd.watch()
        result = crowd.figures(seen)
    answered = [turn for turn in seen.turns if turn.get("latency_ms") is not None]
    result["stages"] = stages(answered)
    result["server_turn_latency_ms"] = percentiles([turn["latency_ms"] for turn in answered])
    result["server_turns"] = len(answered)
    result["stage_sum_error_ms"] = round(max((sum_error_ms(turn) for turn in answered), default=0.0), 3)
    return verdict.concluded(result, floors, rig.problems, rig.failures + verdict.broken(result) + unexplained(result))


def sum_error_ms(turn: Result) -> float:
    """How far the stages are from the turn's latency; playout comes after it."""
    spent = sum(ms for name, ms in turn["stages"].items() if name != "playout")
    return abs(float(turn["latency_ms"]) - spent)


def unexplained(result: Result) -> list[str]:
    """What is wrong with the server's account."""
    if not result["server_turns"]:
        return ["the server gave no account of any turn"]
    reasons = []
    if result["stage_sum_error_ms"] > MAX_SUM_ERROR_MS:
        reasons.append(f"the stages do not add up to the latency: {result['stage_sum_error_ms']} ms are missing")
    heard, told = result["turn_latency_ms"]["p50"], result["server_turn_latency_ms"]["p50"]
    if heard is None or told is None or abs(heard - told) > MAX_UNEXPLAINED_MS:
        reasons.append(f"callers wait {heard} ms at the median, the server tells of {told}")
    return reasons


def rows() -> Rows:
    found: Rows = {**COMMON_ROWS, "turn latency, the server says": lambda one: trio(one["server_turn_latency_ms"])}
    for name in STAGES:
        found[f"  {name}"] = lambda one, name=name: trio(one["stages"].get(name, {"": None}))
    return found


def main(argv: list[str], bench: Bench | None = None) -> int:
    """Returns 0 for valid runs in which nothing was broken, 1 for others, 2 when nothing could be measured."""
    made = parser("latency", __doc__.splitlines()[0], calls=10, seconds=30)
    return run_bench(made.parse_args(argv), run_once, rows(), bench)
