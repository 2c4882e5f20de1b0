"""The usual choice beside ours: the same callers, the same stub providers, the same machine, one after the other.

    callers (every second answer is interrupted) ──Twilio's protocol──→ talkspurt, on one core
                                                 ──────────────────────→ pipecat 1.14, on the same core

Both end a turn after half a second of silence and decide speech by Silero; pipecat's pipeline runs at 8 kHz, so that it
resamples nothing, and its stub providers answer at once, as ours do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvloop

from bench.load import bargein
from bench.load.clips import interrupting, spoken
from bench.load.floor import EchoFloor, FloorFailed
from bench.load.options import Options, UsageError, numbers_of_calls
from bench.load.plot import PlotMissing, draw, require_matplotlib
from bench.load.report import Sound
from bench.load.rig import Bench, native_isa
from bench.load.server_process import ROOT, ServerFailed, ServerProcess, one_line
from bench.load.verdict import Result, not_measured
from bench.out_file import out_file
from bench.peers.curve import knees, machine, noticed, panels, shown
from bench.peers.environment import PeerMissing, prepare

SERVERS = ("talkspurt", "pipecat")
PIPECAT = Path(__file__).parent / "pipecat"
FOLDER = ROOT / "var" / "peers" / "pipecat"


class PipecatProcess(ServerProcess):
    """The bot of bench/peers/pipecat, as `ServerProcess` runs ours. `python` and `turn` are set by `pipecat_at`."""

    python = Path()
    turn = "silence"

    def _command(self) -> list[str]:
        return [str(self.python), str(PIPECAT / "bot.py"), "--port", str(self.port), "--turn", self.turn]

    def _environment(self) -> dict[str, str]:
        # One thread for each model, as on a core of its own; caches of compiled code stay in the environment.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(FOLDER)}
        return super()._environment() | threads


def pipecat_at(python: Path, turn: str) -> type[PipecatProcess]:
    return type("Pipecat", (PipecatProcess,), {"python": python, "turn": turn})


def measure(name: str, options: Options, bench: Bench) -> Result:
    """One server under the callers; what is wrong with it is part of the comparison, not a reason to stop."""
    sound = Sound(spoken(), interrupting())
    try:
        result = uvloop.run(bargein.run_with(None)(options, sound, bench))  # type: ignore[arg-type]
    except (ServerFailed, FloorFailed) as error:
        result = not_measured(options.calls, error)
    result["server"] = name
    result["noticed"] = noticed(result)
    for text in [*result["noticed"], *(f"invalid: {why}" for why in result["why_invalid"])]:
        print(f"  {name}, {options.calls} calls: {text}", file=sys.stderr)
    return result


def climbed(numbers: Sequence[int], once: Callable[[int], Result]) -> list[Result]:
    """One server with more and more calls, until its callers notice: what comes after that tells nothing new.

    An invalid run is measured once more, and so is one in which they noticed: it may have been the machine.
    """
    results = []
    for calls in numbers:
        result = once(calls)
        results.append(result)
        if len(numbers) > 1 and (not result["valid"] or result["noticed"]):
            result = once(calls)
            results.append(result)
        if result["valid"] and result["noticed"]:
            break
    return results


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=8, help="calls at the same time (default: %(default)s)")
    parser.add_argument("--curve", metavar="N,N,…", help="more and more calls, until callers notice; names each knee")
    parser.add_argument("--seconds", type=float, default=20, help="length of the steady window (default: %(default)s)")
    parser.add_argument("--only", choices=SERVERS, help="one of the two")
    parser.add_argument("--vad", default="silero", choices=["webrtc", "silero"], help="of our server")
    parser.add_argument("--peer-turn", default="silence", choices=["silence", "smart"], help="how the peer ends a turn")
    parser.add_argument("--pin", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=out_file, metavar="FILE")
    parser.add_argument("--plot", type=out_file, metavar="FILE", help="figures against calls, by matplotlib")
    parser.add_argument(
        "--show", type=Path, nargs="+", metavar="FILE", help="measure nothing: the runs of these --json files, pooled"
    )
    return parser.parse_args(argv)


def measured(asked: argparse.Namespace) -> list[Result]:
    """All runs. Raises UsageError, PeerMissing."""
    numbers = numbers_of_calls(asked)
    benches = {}
    if asked.only != "pipecat":
        benches["talkspurt"] = Bench(isa=native_isa())
    if asked.only != "talkspurt":
        python = prepare(FOLDER, PIPECAT / "requirements.txt")
        benches["pipecat"] = Bench(serve=pipecat_at(python, asked.peer_turn), calibrate=EchoFloor)

    def once(name: str, bench: Bench, calls: int) -> Result:
        return measure(name, Options(calls=calls, seconds=asked.seconds, vad=asked.vad, pin=asked.pin), bench)

    return [one for name, bench in benches.items() for one in climbed(numbers, partial(once, name, bench))]


def main(argv: list[str]) -> int:
    """Returns 0 when all runs are valid, 1 when one is not, 2 when nothing could be measured."""
    asked = parsed(argv)
    about = {"command": " ".join(argv), "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    try:
        if asked.plot:
            require_matplotlib()
        results = pooled(asked.show) if asked.show else measured(asked)
    except (PeerMissing, PlotMissing, UsageError, OSError, ValueError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    print(shown(results))
    found = knees(results)
    if asked.json:
        knees_found = {name: one.as_dict() for name, one in found.items()}
        asked.json.write_text(json.dumps({**about, "peers": results, "knee": knees_found}, indent=2) + "\n")
    if asked.plot:
        draw(panels(results), found, asked.plot, "The same callers, one core", log=True)
    if all("failed" in one for one in results):
        return 2
    return int(not all(one["valid"] for one in results))


def pooled(files: Sequence[Path]) -> list[Result]:
    """The runs of files that `--json` wrote. Raises OSError, ValueError: one cannot be read, or is something else."""
    runs: list[Result] = []
    for path in files:
        try:
            runs += json.loads(path.read_text())["peers"]
        except (KeyError, TypeError, json.JSONDecodeError):
            raise ValueError(f"{path}: not written by `python -m bench peers --json`") from None
    return [{**one, "noticed": noticed(one)} for one in runs]
