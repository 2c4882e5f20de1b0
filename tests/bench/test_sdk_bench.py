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
        assert row["answers"] > 0 and row["threads"] > 0 and row["rss_kib"] > 10_000 and row["cpu_ms_per_call_s"] > 0
        assert 0 < row["added_ms"]["p50"] <= row["added_ms"]["p95"] < 2000
        assert row["tick_late_ms"]["p99"] <= row["tick_late_ms"]["max"]
        assert (row["rss_kib_per_call"] is None) == (row["calls"] == 1)
    assert "azure-stt" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--calls", "0"], ["--calls", "many"], ["--seconds", "0"]])
def test_a_wrong_usage_is_refused(wrong: list[str]) -> None:
    assert bench.main(wrong) == 2


def test_a_service_that_is_not_there_is_a_failure() -> None:
    env = {"OPENAI_API_KEY": "sim-key-0123", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with pytest.raises(SimFailed, match="openai-chat"):
        asyncio.run(bench.measure("openai-chat", 1, 1.0, env))
