"""`python -m bench.sim.azure --port P --profile NAME --book FILE`: the service as a process, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from bench.sim.azure.server import KEY, AzureSim
from bench.sim.clipbook import Clipbook
from bench.sim.profile import PROFILES, profile


async def serve(args: argparse.Namespace) -> None:
    book = Clipbook.load(args.book) if args.book else Clipbook()
    sim = AzureSim(
        book=book, profile=profile(args.profile), seed=args.seed, port=args.port, keys=frozenset(args.key or [KEY]),
        stt_limit=args.stt_limit, tts_limit=args.tts_limit,
    )  # fmt: skip
    over = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, over.set)
    async with sim:
        if book.clips:
            book.search.find(book.shapes[0][0][:2048])  # before somebody waits for it
        print(f"listening on {sim.url}", flush=True)
        await over.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sim.azure", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any; the address is printed")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="azure-groq")
    parser.add_argument("--book", type=Path, help="a book of clips as JSON, or a folder of NAME.wav and NAME.txt")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--key", action="append", help=f"an accepted key, may be repeated (default: {KEY})")
    parser.add_argument("--stt-limit", type=int, help="concurrent connections of recognition")
    parser.add_argument("--tts-limit", type=int, help="concurrent connections of synthesis")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
