"""What capturing a call costs in instructions: the whole server under valgrind's callgrind, counted while calls run.

    idle │ off │ on │ audio │ off │ …      each: whole calls of so many turns, the same callers and words

Instructions are free of the noise that CPU time has on a shared machine. The kernel's are not counted, and speech is
judged by the detector alone, since the network's batches depend on time; so the calls are cheaper than real ones are
and the share of captures is larger. What the server does without calls is taken off, and Python's collector of cycles
is left out: a full collection has fifty million instructions and falls into one window or another.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.load.capture_cost import NUMBERS, Cell, Run, bring_up, call_all, write_agents
from bench.load.clips import spoken
from bench.load.load_caller import LoadCaller
from bench.load.rig import wait_for
from bench.load.server_process import ServerFailed, ServerProcess

MARK = "accept4"
IDLE_S = 10.0
TURNS_S = 120.0
DUMP_S = 1.5
"""Until a dump is written; it is some hundred kilobytes."""
_FUNCTION = re.compile(r"(c?)fn=\((\d+)\)(?: (.*))?")
_COLLECTOR = re.compile(r"^(gc_collect|visit_)|_traverse|MaybeUntrack|VisitInstanceAttributes|^type_is_gc")


class ProfiledServer(ServerProcess):
    """The server under callgrind, which dumps its count whenever the server accepts a connection."""

    ready_s = 300.0

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(env)
        self._folder = Path(tempfile.mkdtemp(prefix="callgrind-"))
        self._seen: set[Path] = set()
        self._at_s = time.monotonic()

    def _command(self) -> list[str]:
        # Not callgrind_control: its pipes are gone once the server has forked.
        options = ["--tool=callgrind", f"--callgrind-out-file={self._folder / 'out'}", f"--dump-before={MARK}"]
        return ["valgrind", *options, *super()._command()]

    async def taken(self) -> tuple[int, float]:
        """(instructions, seconds) since the last call of this. Raises ServerFailed."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        await asyncio.sleep(DUMP_S)
        dumps = {*self._folder.glob("out.*")} - self._seen
        if not dumps:
            raise ServerFailed(f"callgrind gave no dump\n{self.log_tail()}")
        self._seen |= dumps
        lasted_s, self._at_s = time.monotonic() - self._at_s, time.monotonic()
        return sum(count(one) for one in dumps), lasted_s

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)  # type: ignore[arg-type]
        shutil.rmtree(self._folder, ignore_errors=True)


def count(dump: Path) -> int:
    """Instructions in a dump of callgrind, but for those of Python's collector of cycles."""
    names: dict[str, str] = {}
    total, is_wanted, is_of_callee = 0, True, False
    with dump.open(errors="replace") as lines:
        for line in lines:
            if line[0].isdigit() or line[0] in "+-*":
                # After `calls=` comes what the called function took; it is counted where it stands itself.
                if is_wanted and not is_of_callee:
                    total += int(line.split()[1])
                is_of_callee = False
            elif line.startswith("calls="):
                is_of_callee = True
            elif named := _FUNCTION.match(line):
                callee, number, name = named.groups()
                if name:
                    names[number] = name
                if not callee:
                    is_wanted = not _COLLECTOR.search(names.get(number, ""))
    return total


async def measure(calls: int, turns: int, rounds: int) -> Run:
    """Whole calls of so many turns; cells hold thousands of instructions per call-second. Raises ServerFailed."""
    if shutil.which("valgrind") is None:
        raise ServerFailed("valgrind is not installed")
    run, clips = Run([], [], unit="thousand instructions"), spoken()
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        write_agents(Path(folder), "webrtc")
        async with AsyncExitStack() as stack:
            stand = await bring_up(stack, folder, calls, ProfiledServer)
            server = stand.server
            assert isinstance(server, ProfiledServer)

            async def count(callers: Sequence[LoadCaller]) -> None:
                if not await wait_for(lambda: all(one.record.turns_expected >= turns for one in callers), TURNS_S):
                    run.problems.append("not all turns were spoken")

            # The first calls load what is loaded once.
            await call_all(run, [(stand, one) for one in NUMBERS.values()], 1, clips, count)
            await server.taken()
            await asyncio.sleep(IDLE_S)
            idle, lasted_s = await server.taken()
            idle_per_s = idle / lasted_s
            for round_no in range(rounds):
                for variant, number in NUMBERS.items():
                    call_s = await call_all(run, [(stand, number)], calls, clips, count)
                    used, lasted_s = await server.taken()
                    thousands = (used - idle_per_s * lasted_s) / call_s / 1e3
                    run.cells.append(Cell(0, round_no, variant, thousands))
                    print(f"{variant}: {thousands:.0f} thousand instructions a call-second", file=sys.stderr)
    return run
