"""`python -m bench sdk`: every SDK works in its child and is measured; a wrong usage and a dead service are said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench.sdk import run as bench
from bench.sdk.child import LINES
from bench.sim.process import SimFailed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_every_sdk_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sdk.json"
    assert bench.main(["--calls", "1,2", "--seconds", "2", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    made = [(row["sdk"], row["calls"]) for row in found["rows"]]
    assert made == [(name, count) for name in LINES for count in (1, 2)]
    for row in found["rows"]:
        assert row["answers"] > 0 and row["threads"] > 0 and row["rss_kib"] > 10_000
        # The system counts CPU in steps of 10 ms, which two requests may not reach.
        assert row["cpu_ms_per_call_s"] > 0 or not row["sdk"].startswith("azure")
        assert 0 < row["added_ms"]["p50"] <= row["added_ms"]["p95"] < 2000
        assert row["tick_late_ms"]["p99"] <= row["tick_late_ms"]["max"]
        assert (row["rss_kib_per_call"] is None) == (row["calls"] == 1)
    assert "azure-stt" in capsys.readouterr().out


def test_an_sdk_that_looks_seldom_at_its_socket_answers_late(tmp_path: Path) -> None:
    """At least half the interval, on average; without it an answer takes some 15 ms."""
    out = tmp_path / "sdk.json"
    seldom = ["--polling-ms", "200", "--only", "azure-stt", "--calls", "4", "--seconds", "4"]
    assert bench.main([*seldom, "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["added_ms"]["p95"] > 100


@pytest.mark.parametrize("wrong", [["--calls", "0"], ["--calls", "many"], ["--seconds", "0"], ["--polling-ms", "201"]])
def test_a_wrong_usage_is_refused(wrong: list[str]) -> None:
    assert bench.main(wrong) == 2


def test_a_service_that_is_not_there_is_a_failure() -> None:
    env = {"OPENAI_API_KEY": "sim-key-0123", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with pytest.raises(SimFailed, match="openai-chat"):
        asyncio.run(bench.measure("openai-chat", 1, 1.0, env))
