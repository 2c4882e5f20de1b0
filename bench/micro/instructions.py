"""Instructions a frame, counted by valgrind's callgrind: free of noise, so a budget can be held to a few percent.

The kernels run in a child process under callgrind, once for each instruction set, which writes a dump whenever the
child enters `getpgid`: what lies between two of its calls is one dump. Two counts are taken from it: the instructions
inside our own libraries, which neither the interpreter nor the C library moves, and all of them, with Python's share of
each call (the loop, the call, the result), as in the times. Valgrind knows AVX2 and no AVX-512.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from audio_native import dispatch

MARK = "getpgid"
TIMEOUT_S = 900
ROOT = Path(__file__).parents[2]
OURS = f"{ROOT / 'audio_native'}/"
_OBJECT = re.compile(r"c?ob=\((\d+)\)(?: (.*))?")
_COMPILER = re.compile(rb"GCC: \([^)]*\) (\d+)\.|clang version (\d+)\.")


@dataclass(frozen=True, slots=True)
class Count:
    """Instructions of a frame: in our own libraries, and in all."""

    native: int
    total: int


class NotCounted(Exception):
    """Nothing could be counted; says why and what would help."""


def count(kernels: Sequence[str], levels: Sequence[str] = dispatch.AVAILABLE) -> dict[str, dict[str, Count]]:
    """Counts by instruction set and kernel. Raises NotCounted."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise NotCounted("valgrind is not installed (Debian, Ubuntu: apt-get install valgrind; Fedora: dnf install)")
    wanted = sorted(set(kernels))
    # Counts do not depend on what else the machine does, so the levels run side by side.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(lambda level: _count_at(valgrind, level, wanted), levels)
        return dict(zip(levels, found, strict=True))


def _count_at(valgrind: str, level: str, wanted: Sequence[str]) -> dict[str, Count]:
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        out = Path(folder, "out")
        command = [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={MARK}",
            sys.executable, "-m", "bench.micro.instructions", *wanted,
        ]  # fmt: skip
        told = {"AUDIO_NATIVE_ISA": level, "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        try:
            run = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT,
                env={**os.environ, **told},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotCounted(f"callgrind at {level}: {error}") from None
        dumps = [_read(Path(f"{out}.{number}")) for number in range(1, 2 * len(wanted) + 3)]
        if run.returncode or None in dumps:
            raise NotCounted(f"callgrind at {level} ended with {run.returncode}: {run.stderr[-500:].strip()}")
    # Dump 1 is the start; then a dump for each run and one for what lies before the next.
    empty, *runs = [one for one in dumps[1::2] if one is not None]
    frames = {kernel: n for kernel, _, n in _natives()}
    return {
        kernel: Count(round(run.native / frames[kernel]), round((run.total - empty.total) / frames[kernel]))
        for kernel, run in zip(wanted, runs, strict=True)
    }


def _read(dump: Path) -> Count | None:
    if not dump.exists():
        return None
    with dump.open() as lines:
        return costs(lines, OURS)


def costs(lines: Iterable[str], ours: str) -> Count:
    """What one dump of callgrind holds, for all code and for that of objects below the folder `ours`."""
    names: dict[str, str] = {}
    native = total = 0
    inside = skip = False
    for line in lines:
        first = line[0]
        if first.isdigit() or first in "+-*":
            # The line after `calls=` has what the called function cost, which is listed there too.
            if not skip:
                cost = int(line.split()[1])
                total += cost
                native += cost if inside else 0
            skip = False
        elif found := _OBJECT.match(line):
            number, name = found.groups()
            if name is not None:
                names[number] = name
            if first == "o":
                inside = names[number].startswith(ours)
        elif line.startswith("calls="):
            skip = True
    return Count(native, total)


def compiler() -> str:
    """Who compiled the kernels, as "gcc 12"; counts of another compiler are others."""
    found = _COMPILER.search(Path(dispatch.__file__).read_bytes())
    if found is None:
        return "unknown"
    return f"gcc {found[1].decode()}" if found[1] else f"clang {found[2].decode()}"


def _natives() -> list[tuple[str, Callable[[], Callable[[], object]], int]]:
    """(kernel, what prepares one run of ours and answers it, frames in a run)."""
    from bench.micro import bench_downlink, bench_kernels, bench_uplink

    found: list[tuple[str, Callable[[], Callable[[], object]], int]] = []
    for case in bench_kernels.CASES:
        found.append((case.kernel, lambda case=case: case.native, bench_kernels.FRAMES))
    for kernel, ours, _ in [*bench_uplink.parts(), *bench_downlink.parts()]:
        found.append((kernel, lambda ours=ours: ours, bench_kernels.FRAMES))
    for suffix, ways in (("", bench_uplink.WIRE_WAYS), ("_resampled", bench_uplink.RESAMPLED_WAYS)):
        for name, calls, frames in (("hot", 1, 250), ("1000", 1000, 1)):

            def prepare(way: bench_uplink.Way = ways["native"], calls: int = calls, frames: int = frames):
                served = bench_uplink.Calls(way, calls)
                served.serve(served.prepare(frames))
                messages = served.prepare(frames)
                return lambda: served.serve(messages)

            found.append((f"uplink_feed_{name}{suffix}", prepare, calls * frames))
    return found


def _child(wanted: list[str]) -> None:
    prepared = {kernel: prepare() for kernel, prepare, _ in _natives() if kernel in wanted}
    for run in [lambda: None, *(prepared[kernel] for kernel in wanted)]:
        os.getpgid(0)
        run()
        os.getpgid(0)


if __name__ == "__main__":
    _child(sys.argv[1:])
