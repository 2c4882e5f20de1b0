"""Where a process spends its CPU, as stacks of Python: `capacity --stacks FILE` runs the server under this.

    python -m bench.load.stacks run FILE serve     runs `server` with these arguments, writes folded stacks at its end
    python -m bench.load.stacks show FILE …        the share of each file, and of each function with all it calls
    python -m bench.load.stacks svg FILE … >G.svg  a flame graph of them; `capacity --flame G.svg` makes one at once

A signal each 4 ms of the process's CPU (SIGPROF; the kernel's tick is the finest) notes what the main thread's event
loop is doing, so nothing is stopped and no privilege is needed. C code is counted where Python goes on after it: the
loop, the kernel's reads and picows' parsing show in `get_buffer` and `on_ws_frame`. FILE is what flamegraph.pl takes
too.
"""

from __future__ import annotations

import collections
import runpy
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType

from bench.load.flame import svg

EVERY_S = 0.004
ROOT = Path(__file__).resolve().parents[2]
LOOP = "Runner.run"
"""The frame below which the event loop runs; what is above it is the start of the process."""
LINES = 25


def run(out: Path, arguments: list[str]) -> None:
    """Run `python -m server` with `arguments` in this process; write the stacks to `out` when it ends."""
    counted: collections.Counter[tuple[CodeType, ...]] = collections.Counter()

    def on_signal(_: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        counted[tuple(stack)] += 1

    signal.signal(signal.SIGPROF, on_signal)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    sys.argv = ["server", *arguments]
    try:
        runpy.run_module("server", run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text("".join(f"{line} {n}\n" for line, n in folded(counted).items()))


def folded(counted: collections.Counter[tuple[CodeType, ...]]) -> collections.Counter[str]:
    """Outermost function first, from the event loop inwards, joined by semicolons."""
    lines: collections.Counter[str] = collections.Counter()
    for stack, n in counted.items():
        names = [_name(code) for code in reversed(stack)]
        at = next((at for at, name in enumerate(names) if name.startswith(LOOP)), None)
        if at is not None:
            lines[";".join(names[at:])] += n
    return lines


def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    short = path.relative_to(ROOT) if path.is_relative_to(ROOT) and ".venv" not in path.parts else path.parts[-2:]
    # Semicolons and spaces are what folded stacks are written with.
    return f"{code.co_qualname}@{short if isinstance(short, Path) else '/'.join(short)}".replace(" ", "_")


def shares(lines: Iterable[str]) -> tuple[int, list[tuple[str, float]], list[tuple[str, float]]]:
    """(samples, share of each of our files that was deepest, share of each function with what it calls)."""
    total = 0
    files: collections.Counter[str] = collections.Counter()
    functions: collections.Counter[str] = collections.Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        names, n = stack.split(";"), int(number)
        total += n
        ours = [name for name in names if name.partition("@")[2].startswith(("server/", "providers/", "audio_native/"))]
        files[ours[-1].partition("@")[2] if ours else names[-1].partition("@")[2]] += n
        for name in set(names):
            functions[name] += n
    of = max(total, 1)
    return (
        total,
        [(name, n / of) for name, n in files.most_common()],
        [(name, n / of) for name, n in functions.most_common()],
    )


def show(paths: list[Path]) -> None:
    total, files, functions = shares(line for path in paths for line in path.read_text().splitlines())
    print(f"{total} samples of the event loop's thread, {EVERY_S * 1000:.0f} ms of CPU each")
    for title, rows in (("deepest file of ours", files), ("function, with what it calls", functions)):
        print(f"\n{title}")
        for name, share in rows[:LINES]:
            print(f"{share:7.1%}  {name}")


def flame(paths: list[Path]) -> str:
    """The flame graph of all of them, as SVG."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return svg(lines, f"CPU of the event loop's thread, one sample for {EVERY_S * 1000:.0f} ms")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(Path(sys.argv[2]), sys.argv[3:])
    elif sys.argv[1] == "svg":
        print(flame([Path(one) for one in sys.argv[2:]]), end="")
    else:
        show([Path(one) for one in sys.argv[2:]])
