"""The server itself, broken in one way by TALKSPURT_TEST_BREAK: each bench fails, and names what is broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from bench.load import bargein, capacity
from bench.load.rig import Bench
from bench.load.server_process import ServerProcess
from bench.load.verdict import Result
from tests.bench.load_target import SteadyFloor
from tests.bench.test_load_bench import faults

pytestmark = pytest.mark.slow

SHORT = ["--calls", "3", "--seconds", "0.1"]
"""A turn of each."""
MANY = ["--calls", "27", "--seconds", "0.1"]
"""The twenty-fifth turn is the first that is forgotten."""
INTERRUPTED = ["--calls", "3", "--seconds", "7", "--noise", "none"]
RUNS: dict[str, tuple[Callable[[list[str], Bench], int], list[str], str]] = {
    "": (capacity.main, SHORT, ""),
    "pacer": (capacity.main, SHORT, "messages overfilled the caller's buffer beyond lead + chunk"),
    "vad": (capacity.main, SHORT, "turns were not answered, or not with the right words"),
    "turn_in_fifty": (capacity.main, MANY, "turns were not answered, or not with the right words"),
    "barge_in": (bargein.main, INTERRUPTED, "interruptions were not cleared"),
    "unbroken, interrupted": (bargein.main, INTERRUPTED, ""),
}


class InTurn(ServerProcess):
    """uvloop refuses to start two processes at the same time in two threads."""

    lock = threading.Lock()

    async def _spawn(self, sink: BinaryIO) -> asyncio.subprocess.Process:
        with self.lock:
            return await super()._spawn(sink)


def test_a_broken_server_is_caught(
    tmp_path: Path, database_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "TALKSPURT_SECRET": "s" * 32}
    told: dict[str, object] = {}

    def run(name: str) -> tuple[int, Result]:
        main, arguments, _ = RUNS[name]
        out, is_broken = tmp_path / f"{name}.json", name in ("pacer", "vad", "turn_in_fifty", "barge_in")

        @contextlib.asynccontextmanager
        async def serve(env: Mapping[str, str]) -> AsyncIterator[ServerProcess]:
            async with InTurn({**env, **stores}) as server, httpx.AsyncClient(trust_env=False) as http:
                kept = [one["objects"] for one in server.log_lines()[0] if one.get("event") == "objects_kept"]
                assert len(kept) == 1 and kept[0] > 50_000, "what was made at the start is not collected"
                told[name] = (await http.get(f"{server.url}/readyz")).json()["degraded"].get("test")
                yield server

        bench = Bench(serve=serve, calibrate=lambda cores: SteadyFloor(), settle_s=0.1, ramp_per_s=50.0)
        how = ["--break", name] if is_broken else []
        # All at once on few cores: who is pinned, or goes first, holds the others up.
        code = main([*arguments, *how, "--no-pin", "--json", str(out)], bench)
        return code, json.loads(out.read_text())

    with ThreadPoolExecutor(len(RUNS)) as pool:
        found = dict(zip(RUNS, pool.map(run, RUNS), strict=True))
    said = capsys.readouterr().err
    for name, (_, _, reason) in RUNS.items():
        code, result = found[name]
        if reason:
            assert code == 1 and any(reason in why for why in faults(result)), (name, result["broken"])
            assert f"FAILED: {next(why for why in faults(result) if reason in why)}\n" in said
            assert told[name] == {"broken_on_purpose": name}
        else:
            assert faults(result) == [] and told[name] is None, (name, result["broken"])
            assert result["turns_completed"] == result["turns_expected"] > 0
            assert code == (0 if result["valid"] and not result["broken"] else 1)
    forgotten = found["turn_in_fifty"][1]
    assert forgotten["turns_expected"] - forgotten["turns_completed"] == 1 + (forgotten["turns_expected"] >= 75)
    assert found["vad"][1]["turns_completed"] == 0
    assert found["barge_in"][1]["barge_ins_cleared"] == 0 < found["unbroken, interrupted"][1]["barge_ins_cleared"]
