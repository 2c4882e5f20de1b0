"""A server that does not start, or dies under the load: one line, exit status 2; what was measured before is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bench.load import bargein, capacity, crowd, latency, soak
from bench.load.options import Options
from bench.load.rig import Bench, Floors, Target, raised
from bench.load.server_process import ServerProcess, Usage
from bench.sim.sound import write_stereo
from bench.sim.tasks import Tasks
from tests.bench.load_target import bench_with
from tests.bench.stand_in import tone
from tests.bench.test_load_bench import answering, right

pytestmark = pytest.mark.slow
MAINS = (capacity.main, latency.main, bargein.main, soak.main)
# Answers every request, also the carrier's, with an empty 200.
READY = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    do_POST = do_GET
    def log_message(self, *_):
        pass
print("I am up", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class NeverUp(ServerProcess):
    def _command(self) -> list[str]:
        return [sys.executable, "-c", 'import sys; print("here is why"); print("config is wrong"); sys.exit(3)']


class Dies(ServerProcess):
    """Killed when it is looked at for the second time: after the first calls were placed."""

    looks = 0

    def _command(self) -> list[str]:
        return [sys.executable, "-c", READY]

    def usage(self) -> Usage:
        self.looks += 1
        if self.looks == 2:
            os.kill(self.pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return super().usage()


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    recording = tmp_path / "call.wav"
    write_stereo(recording, b"\xff" * 4000 + tone(300, 300) + b"\xff" * 8000, tone(2000, 500))
    return ["--no-pin", "--recording", str(recording), "--json", str(tmp_path / "out.json")]


def bench_of(
    folder: Path, serve: Callable[[Mapping[str, str]], contextlib.AbstractAsyncContextManager[Target]]
) -> Bench:
    return replace(bench_with(answering(right), folder), serve=serve)


@pytest.mark.parametrize("main", MAINS)
def test_a_server_that_does_not_start_is_one_line(
    main: Callable[..., int], arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--calls", "10"], bench_of(tmp_path, NeverUp)) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "  10 calls: FAILED: the server exited with 3: config is wrong\n")
    failed = json.loads((tmp_path / "out.json").read_text())
    assert "here is why\nconfig is wrong" in failed["failed"]


@pytest.mark.parametrize("main", [capacity.main, latency.main, bargein.main])
def test_a_server_that_dies_under_the_load_is_one_line(
    main: Callable[..., int],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd, "READY_S", 0.3)
    assert main([*arguments, "--calls", "2", "--seconds", "1"], bench_of(tmp_path, Dies)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("  2 calls: FAILED: the server is gone") and said.err.endswith(": I am up\n")


def test_a_soak_whose_server_dies_is_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looked at by the task of a call, for a sample.
    class DiesInATask(Dies):
        def holdings(self):  # type: ignore[no-untyped-def]
            self.usage()
            return super().holdings()

    asked = [*arguments, "--calls", "12", "--at-once", "3", "--quiet-s", "1"]
    monkeypatch.setattr(soak, "LEAST_QUIET_S", 0.5)
    assert soak.main(asked, bench_of(tmp_path, DiesInATask)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "the server is gone" in said.err


def test_a_curve_keeps_what_was_measured(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = bench_with(answering(right), tmp_path)

    @contextlib.asynccontextmanager
    async def serve(env: Mapping[str, str]) -> AsyncIterator[Target]:
        # That of three calls; a busy machine may have the first run measured again.
        async with NeverUp(env) if env["MAX_CALLS"] == "13" else good.serve(env) as target:
            yield target

    assert capacity.main([*arguments, "--curve", "2,3", "--seconds", "2.5"], bench_of(tmp_path, serve)) == 1
    said = capsys.readouterr()
    assert "3 calls: FAILED: the server exited with 3: config is wrong\n" in said.err
    assert "2 calls" in said.out and "knee: " in said.out
    curve = json.loads((tmp_path / "out.json").read_text())["curve"]
    assert [one["calls"] for one in curve] == [2, 3]
    assert curve[0]["turns_completed"] > 0
    assert curve[1]["broken"] == ["the server exited with 3: config is wrong"] and curve[1]["valid"]


class Ready(ServerProcess):
    """Does not catch SIGTERM."""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", READY]


def test_how_the_server_ends_is_looked_at(tmp_path: Path) -> None:
    async def main(end: int) -> list[str]:
        options = Options(calls=1, seconds=1.0, pin=False)
        async with raised(options, bench_of(tmp_path, Ready), Floors(), []) as rig:
            if end:
                assert isinstance(rig.target, Ready)
                os.kill(rig.target.pid, end)
                await rig.target._process.wait()
        return rig.failures

    assert asyncio.run(main(0)) == ["the server exited with -15 when it was told to end"]
    assert asyncio.run(main(signal.SIGKILL)) == ["the server exited with -9 before it was told to"]


def test_errors_of_several_kinds_stay_together() -> None:
    async def fails(error: Exception) -> None:
        raise error

    async def run(*errors: Exception) -> None:
        async with Tasks() as tasks:
            for one in errors:
                tasks.create_task(fails(one))

    with pytest.raises(KeyError) as alone:
        asyncio.run(run(KeyError(1), KeyError(2)))
    assert isinstance(alone.value.__cause__, ExceptionGroup) and len(alone.value.__cause__.exceptions) == 2
    with pytest.raises(ExceptionGroup):
        asyncio.run(run(KeyError(1), ValueError(2)))
