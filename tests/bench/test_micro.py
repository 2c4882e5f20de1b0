"""The runner of the micro-benchmarks: that both sides do their work, and what it writes and refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from bench import micro
from bench.micro import bench_uplink


@pytest.mark.parametrize("way", bench_uplink.RESAMPLED_WAYS)
def test_every_way_hands_out_the_audio_of_every_call(way: str) -> None:
    """Ten messages a call; how much has come out shows in what is still held."""
    served = bench_uplink.Calls(bench_uplink.RESAMPLED_WAYS[way], 3)
    served.serve(served.prepare(10))
    for call in served._calls:
        if way == "native":
            assert call.frames in (10, 11, 12) and len(call.take()) < 3200
        else:
            assert call.rms > 0 and len(call.held) < 6400


def test_rows_have_the_fields_of_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "micro.json"
    assert micro.main(["--rounds", "2", "--kernel", "uplink_feed_hot", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert {row["kernel"] for row in rows} == {"uplink_feed_hot", "uplink_feed_hot_resampled"}
    for row in rows:
        assert set(row) == {
            "kernel", "isa", "ns_native", "ns_alternative", "alternative", "ratio", "instructions", "resampling"
        }  # fmt: skip
        assert row["ns_native"] > 0
        assert row["ratio"] == pytest.approx(row["ns_alternative"] / row["ns_native"], rel=0.01)
        assert row["instructions"] is None
    assert "uplink_feed_hot_resampled" in capsys.readouterr().out


def test_budgets_name_what_exists_and_are_held() -> None:
    budgets = tomllib.loads(micro.BUDGETS.read_text())
    kernels = {kernel for kernel, _, _ in micro.sources()}
    assert set(budgets["ratio"]) | set(budgets["instructions"]) <= kernels
    kernel, alternative = "fir_8_16", "soxr HQ"
    row = {"kernel": kernel, "alternative": alternative, "isa": "avx2", "ratio": 99.0, "instructions": 1}
    assert micro.check([row], budgets) == []
    broken = micro.check([{**row, "ratio": 1.0, "instructions": 10**9}], budgets)
    assert len(broken) == 2 and all(kernel in line for line in broken)


def test_without_valgrind_counts_are_missed_and_fail_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # This kernel has a ceiling of instructions and no floor that a busy machine might miss.
    asked = ["--kernel", "ring_write", "--rounds", "1", "--check"]
    for variable, code in (("", 0), ("true", 1)):
        monkeypatch.setenv("CI", variable)
        assert micro.main([*asked, "--instructions"]) == code
        assert "NOT CHECKED: the instructions of 1 kernels were not counted" in capsys.readouterr().err
        assert micro.main(asked) == 0
        assert "NOT CHECKED" not in capsys.readouterr().err
