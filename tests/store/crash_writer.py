"""Appends facts without end and prints each seq once it is durable: to be killed by test_spool.py."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from server.store.spool import Spool
from tests.store.facts import segment


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(folder: Path) -> None:
    spool = Spool(folder, segment_bytes=4096)
    spool.start()
    say("boot", spool.boot.hex)
    seq = 0
    while True:
        for _ in range(7):
            seq += 1
            assert spool.append_nowait(segment(seq))
        await spool.flush()
        say("durable", seq)


asyncio.run(main(Path(sys.argv[1])))
