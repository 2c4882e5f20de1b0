"""`python -m bench NAME …`: the benches that exist, each a module with `main(argv) -> exit code`."""

from __future__ import annotations

import importlib
import os
import sys

# Before NumPy is loaded: its matrix threads would spin beside the server (a tone code of 0.4 ms took 5).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BENCHES = {
    "demo": ("bench.demo", "recorded phone calls against a server that it starts; sound in var/demo"),
    "captures": ("bench.captures", "makes the regression captures of tests/data/captures anew"),
    "capturecost": ("bench.load.capture_cost", "what capturing a call costs of the call's CPU, with audio and without"),
    "capacity": ("bench.load.capacity", "N calls at real pace: CPU, memory, lateness, latency, complete turns"),
    "latency": ("bench.load.latency", "where the milliseconds of a turn go, by stage, beside the caller's stop watch"),
    "bargein": ("bench.load.bargein", "time to clear, stale audio, false pauses in noise"),
    "soak": ("bench.load.soak", "what many short calls leave behind: memory, threads, descriptors, keys"),
    "turns": ("bench.turns.run", "how well turns are taken: cut-ins, late replies, false pauses, echo, beside others"),
    "peers": ("bench.peers.run", "the same callers against pipecat, side by side"),
    "check": ("bench.load.check", "short runs of latency, bargein, soak and micro against budgets.toml: `make bench`"),
    "sdk": ("bench.sdk.run", "threads, memory, CPU and latency of each vendor's SDK at 1, 10 and 40 calls"),
    "micro": ("bench.micro", "each native kernel beside the usual alternative"),
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in BENCHES:
        print("usage: python -m bench NAME [options]\n")
        for name, (_, text) in BENCHES.items():
            print(f"  {name:<12} {text}")
        return 2
    return int(importlib.import_module(BENCHES[argv[0]][0]).main(argv[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
