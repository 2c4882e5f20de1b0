"""Instructions a frame, counted by valgrind's callgrind: free of noise, so a budget can be held to a few percent.

The kernels run in a child process under callgrind, which writes a dump whenever the child enters `getpgid`: what lies
between two of its calls is one dump. Python's own share of each call (the loop, the call, the result) is included, as
in the times. Valgrind knows AVX2 and no AVX-512.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

MARK = "getpgid"
TIMEOUT_S = 900


def count(kernels: list[str]) -> dict[str, int]:
    """Instructions a frame by kernel; empty when there is no valgrind or it cannot run Python here."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("instructions: valgrind is not installed", file=sys.stderr)
        return {}
    wanted = sorted(set(kernels))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        run = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                f"--callgrind-out-file={out}",
                f"--dump-before={MARK}",
                sys.executable,
                "-m",
                "bench.micro.instructions",
                *wanted,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        dumps = [_total(Path(f"{out}.{number}")) for number in range(1, 2 * len(wanted) + 3)]
        if run.returncode or None in dumps:
            print(f"instructions: callgrind failed, {run.stderr[-500:]}", file=sys.stderr)
            return {}
    # Dump 1 is the start; then a dump for each run and one for what lies before the next.
    runs = [total for total in dumps[1::2] if total is not None]
    frames = {kernel: n for kernel, _, n in _natives()}
    return {kernel: round((total - runs[0]) / frames[kernel]) for kernel, total in zip(wanted, runs[1:], strict=True)}


def _total(dump: Path) -> int | None:
    if not dump.exists():
        return None
    with dump.open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith(("summary:", "totals:"))), None)


def _natives() -> list[tuple[str, Callable[[], Callable[[], object]], int]]:
    """(kernel, what prepares one run of ours and answers it, frames in a run)."""
    from bench.micro import bench_kernels, bench_uplink

    found: list[tuple[str, Callable[[], Callable[[], object]], int]] = []
    for case in bench_kernels.CASES:
        found.append((case.kernel, lambda case=case: case.native, bench_kernels.FRAMES))
    for kernel, ours, _ in bench_uplink.parts():
        found.append((kernel, lambda ours=ours: ours, len(bench_uplink.PAYLOADS)))
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
