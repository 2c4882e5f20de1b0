"""A simulated language service as a process of its own.

python -m bench.sim.openai --flavour groq --port 8101 --profile azure-groq --brain clinic

Prints one line of JSON with its addresses, then serves until SIGTERM or SIGINT; with `--until-stdin` also until its
standard input, a pipe, is closed, so that it does not outlive who started it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from bench.sim.clipbook import Clipbook
from bench.sim.openai.answer import Brain, ScriptedBrain
from bench.sim.openai.audio import hears
from bench.sim.openai.chunk import Style
from bench.sim.openai.clinic import ClinicBrain
from bench.sim.openai.control import Control
from bench.sim.openai.flavour import Flavour, Model
from bench.sim.openai.server import OpenAiSim
from bench.sim.openai.talk import TalkBrain
from bench.sim.profile import PROFILES

BRAINS: dict[str, type[Brain]] = {"clinic": ClinicBrain, "scripted": ScriptedBrain, "talk": TalkBrain}


async def serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.until_stdin:
        loop.add_reader(sys.stdin, lambda: None if os.read(sys.stdin.fileno(), 1024) else stop.set())
    sim = OpenAiSim(
        Flavour(arguments.flavour),
        brain=BRAINS[arguments.brain](),
        recogniser=hears(Clipbook.load(arguments.clips)) if arguments.clips else None,
        profile=PROFILES[arguments.profile],
        style=Style(segments=arguments.segments),
        keys=arguments.key or ("sim-key",),
        models=[Model(name) for name in arguments.model],
        port=arguments.port,
        keep=arguments.keep,
        seed=arguments.seed,
    )
    async with sim, Control(sim, arguments.control_port) as control:
        print(json.dumps({"url": sim.url, "base_url": sim.base_url, "control": control.url}), flush=True)
        await stop.wait()
    if arguments.until_stdin:
        loop.remove_reader(sys.stdin)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sim.openai", description=__doc__)
    parser.add_argument("--flavour", choices=[one.value for one in Flavour], required=True)
    parser.add_argument("--port", type=int, default=0, help="0 chooses one")
    parser.add_argument("--control-port", type=int, default=0, help="orders, see control.py")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="azure-groq")
    parser.add_argument("--brain", choices=sorted(BRAINS), default="clinic")
    parser.add_argument("--clips", type=Path, help="what transcription knows: a saved book, or a folder")
    parser.add_argument("--segments", choices=["event", "split", "bytes", "joined"], default="event")
    parser.add_argument("--key", action="append", default=[], help="an accepted key (default: sim-key)")
    parser.add_argument("--model", action="append", default=[], help="another chat model or deployment")
    parser.add_argument("--keep", type=int, default=1000, help="requests that are remembered")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until-stdin", action="store_true", help="end with the standard input")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
