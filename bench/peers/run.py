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
from pathlib import Path
from typing import Any

import uvloop

from bench.load import bargein
from bench.load.clips import interrupting, spoken
from bench.load.floor import EchoFloor, FloorFailed
from bench.load.options import Options, UsageError
from bench.load.report import COMMON_ROWS, Rows, Sound, show, trio
from bench.load.rig import Bench, native_isa
from bench.load.server_process import ROOT, ServerFailed, ServerProcess, one_line
from bench.load.verdict import Result
from bench.out_file import out_file
from bench.peers.environment import PeerMissing, prepare

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


ROWS: Rows = {
    "CPU per call-second, ms": COMMON_ROWS["CPU per call-second, ms"],
    "memory per call, KiB (from idle)": lambda one: str(one["server_rss_kib_per_call_from_idle"]),
    "own latency p50/p95/p99, ms": lambda one: trio(one["own_latency_ms"]),
    "turn latency p50/p95/p99, ms": COMMON_ROWS["turn latency p50/p95/p99, ms"],
    "time to clear p50/p95/p99, ms": lambda one: trio(one["time_to_clear_ms"]),
    "interruptions cleared": lambda one: f"{one['barge_ins_cleared']} of {one['barge_ins']}",
    "stale frames after clear": lambda one: str(one["stale_frames_after_clear"]),
    "underruns": lambda one: str(one["underruns"]),
    "turns completed of expected": COMMON_ROWS["turns completed of expected"],
    "calls failed, complaints": lambda one: str(one["errors"]),
    "generator: core, late p99 ms": COMMON_ROWS["generator: core, late p99 ms"],
}


def measure(name: str, options: Options, bench: Bench) -> Result:
    """One server under the callers; what is wrong with it is part of the comparison, not a reason to stop."""
    result = uvloop.run(bargein.run_with(None)(options, Sound(spoken(), interrupting()), bench))  # type: ignore[arg-type]
    result["server"] = name
    for text in result["broken"] + [f"invalid: {why}" for why in result["why_invalid"]]:
        print(f"  {name}: {text}", file=sys.stderr)
    return result


def main(argv: list[str]) -> int:
    """Returns 0 when both runs are valid, 1 when one is not, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=8, help="calls at the same time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="length of the steady window (default: %(default)s)")
    parser.add_argument("--vad", default="silero", choices=["webrtc", "silero"], help="of our server")
    parser.add_argument("--peer-turn", default="silence", choices=["silence", "smart"], help="how the peer ends a turn")
    parser.add_argument("--pin", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=out_file, metavar="FILE")
    asked = parser.parse_args(argv)
    options = Options(calls=asked.calls, seconds=asked.seconds, vad=asked.vad, pin=asked.pin)
    isa = native_isa()
    try:
        python = prepare(FOLDER, PIPECAT / "requirements.txt")
        results: list[dict[str, Any]] = [
            measure("talkspurt", options, Bench(isa=isa)),
            measure("pipecat", options, Bench(serve=pipecat_at(python, asked.peer_turn), calibrate=EchoFloor)),
        ]
    except (PeerMissing, ServerFailed, FloorFailed, UsageError, OSError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    print(f"{asked.calls} calls at the same time, {asked.seconds:g} s; the peer ends a turn by {asked.peer_turn}")
    print(show(results, ROWS))
    if asked.json:
        asked.json.write_text(json.dumps({"peers": results}, indent=2) + "\n")
    return int(not all(one["valid"] for one in results))
