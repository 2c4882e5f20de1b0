"""`talkspurt serve` that says what it holds: SIGUSR1 lets it write a Census, as JSON, to the file CENSUS_FILE."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from server.__main__ import main
from tests.support.census import take


async def _write(path: Path) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps((await take()).as_dict()))
    part.rename(path)  # whoever waits for the file finds all of it


def _on_signal(*_: object) -> None:
    global _writing
    _writing = asyncio.get_running_loop().create_task(_write(Path(os.environ["CENSUS_FILE"])))


_writing: asyncio.Task[None] | None = None

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _on_signal)
    sys.exit(main(["serve"]))
