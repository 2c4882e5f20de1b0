"""What each vendor's SDK costs at 1, 10 and 40 calls in a process: threads, memory, CPU, added latency, a late loop.

    this process ── starts ─► the simulators (no delays of their own)
          └── one child for each SDK and number of calls, measured from outside ─► bench/sdk/child.py

The simulators' profile is `instant`, so the latency that is left is the SDK's and the loopback's; the row "bare" is a
plain HTTP client of the same chat service, as the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from typing import Any

import psutil
import uvloop

from bench.load.figure import table
from bench.out_file import out_file
from bench.sdk.child import LINES, SENTENCE
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.process import ROOT, ProviderProcesses, SimFailed
from bench.sim.voice import pico_clip

OUT = ROOT / "var" / "sdk"
START_S, END_S = 60.0, 30.0
SAMPLE_S = 0.25


async def measure(line: str, calls: int, seconds: float, env: dict[str, str]) -> dict[str, Any]:
    """One child, watched from outside over its steady window. Raises SimFailed when it does not end well."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.sdk.child", line, str(calls), str(seconds), cwd=ROOT, env={**keep, **env},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    try:
        async with asyncio.timeout(START_S):
            if (await process.stdout.readline()).strip() != b"ready":
                raise SimFailed(f"{line}: did not get ready")
        watched = psutil.Process(process.pid)
        before, threads, rss = watched.cpu_times(), [], []
        until_s = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(SAMPLE_S)
            threads.append(watched.num_threads())
            rss.append(watched.memory_info().rss // 1024)
        after = watched.cpu_times()
        process.stdin.close()  # it stays until it has been looked at
        async with asyncio.timeout(END_S):
            found = json.loads(await process.stdout.readline())
            code = await process.wait()
    except (TimeoutError, ValueError, psutil.NoSuchProcess) as error:
        raise SimFailed(f"{line} with {calls} calls: {error!r}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise SimFailed(f"{line} with {calls} calls exited with {code}")
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "sdk": line,
        "calls": calls,
        "threads": max(threads),
        "rss_kib": int(statistics.median(rss)),
        "cpu_ms_per_call_s": round(cpu_s * 1000 / seconds / calls, 2),
        **found,
    }


def per_call(rows: list[dict[str, Any]]) -> None:
    """Memory of a call: (RSS at N - RSS at the smallest) / (N - the smallest); None for the smallest."""
    for row in rows:
        first = next(one for one in rows if one["sdk"] == row["sdk"])
        more = row["calls"] - first["calls"]
        row["rss_kib_per_call"] = round((row["rss_kib"] - first["rss_kib"]) / more) if more else None


async def run(calls: list[int], seconds: float, lines: list[str], polling_ms: int = 0) -> list[dict[str, Any]]:
    OUT.mkdir(parents=True, exist_ok=True)
    book = OUT / "book.json"
    Clipbook([BookClip.of_clip("line", pico_clip(SENTENCE, rate_percent=80))]).save(book)
    rows = []
    own = {"SDK_BOOK": str(book)} | ({"SDK_POLLING_MS": str(polling_ms)} if polling_ms else {})
    async with ProviderProcesses(book=book, profile="instant", brain="scripted") as sims:
        for line in lines:
            for count in calls:
                rows.append(await measure(line, count, seconds, {**sims.env, **own}))
                print(f"  {line} with {count}: done", file=sys.stderr, flush=True)
    per_call(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    head = (
        "sdk", "calls", "threads", "RSS KiB", "KiB a call", "CPU ms/call-s", "added p50", "p95 ms", "tick late p99 ms",
        "answers",
    )  # fmt: skip
    lines = [head]
    for row in rows:
        mine = row["rss_kib_per_call"]
        lines.append(
            (
                row["sdk"], str(row["calls"]), str(row["threads"]), str(row["rss_kib"]),
                "-" if mine is None else str(mine),
                f"{row['cpu_ms_per_call_s']:.2f}", f"{row['added_ms']['p50']:.1f}", f"{row['added_ms']['p95']:.1f}",
                f"{row['tick_late_ms']['p99']:.1f}", str(row["answers"]),
            )
        )  # fmt: skip
    return table(lines)


def main(argv: list[str]) -> int:
    """Returns 0 when every child ended well and had answers, 1 else, 2 for a wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bench sdk", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", default="1,10,40", help="numbers of calls, comma-separated")
    parser.add_argument("--seconds", type=float, default=5.0, help="steady window of each child")
    parser.add_argument("--only", choices=sorted(LINES), action="append", help="one SDK; may be repeated")
    parser.add_argument("--polling-ms", type=int, default=0, help="as AZURE_SPEECH_POLLING_MS; 0 is the SDK's own")
    parser.add_argument("--json", type=out_file, help="where the rows go")
    asked = parser.parse_args(argv)
    try:
        calls = [int(one) for one in asked.calls.split(",")]
    except ValueError:
        calls = []
    is_right = calls and min(calls) >= 1 and max(calls) <= 200 and 1 <= asked.seconds <= 120
    if not is_right or not 0 <= asked.polling_ms <= 200:
        print(
            "expected --calls like 1,10,40 (1 to 200), --seconds from 1 to 120 and --polling-ms up to 200",
            file=sys.stderr,
        )
        return 2
    try:
        rows = uvloop.run(run(sorted(calls), asked.seconds, asked.only or list(LINES), asked.polling_ms))
    except SimFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(show(rows))
    if asked.json:
        asked.json.write_text(json.dumps({"seconds": asked.seconds, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["answers"] for row in rows) else 1
