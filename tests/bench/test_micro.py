"""The runner of the micro-benchmarks: that both sides do their work, and what it writes and refuses."""

from __future__ import annotations

import json
import math
import platform
import re
import tomllib
from pathlib import Path

import pytest

from bench import micro
from bench.micro import bench_downlink, bench_uplink
from bench.micro.instructions import Count, NotCounted, compiler, costs, count
from providers.base import AudioFormat
from server.call.downlink import Converter
from server.wire.event import MediaFormat
from server.wire.twilio import TwilioWire


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
            "kernel", "isa", "ns_native", "ns_alternative", "alternative", "ratio", "resampling", "instructions",
            "counts",
        }  # fmt: skip
        assert row["ns_native"] > 0
        assert row["ratio"] == pytest.approx(row["ns_alternative"] / row["ns_native"], rel=0.01)
        assert row["instructions"] is None
    assert "uplink_feed_hot_resampled" in capsys.readouterr().out


def test_budgets_name_what_exists_and_are_held() -> None:
    budgets = tomllib.loads(micro.BUDGETS.read_text())
    kernels = {kernel for kernel, _, _ in micro.sources()}
    assert set(budgets["ratio"]) | set(budgets["native"]) | set(budgets["total"]) <= kernels
    kernel, alternative = "uplink_feed_hot", "orjson + b64decode + audioop + bytearray"
    row = {"kernel": kernel, "alternative": alternative, "isa": "avx2", "ratio": 99.0}
    ceilings = {level: {"native": most} for level, most in budgets["native"][kernel].items()}
    assert set(ceilings) == {"avx2", "sse2", "c"}
    ceilings["avx2"]["total"] = budgets["total"][kernel]["avx2"]
    assert micro.check([row | {"counts": ceilings}], budgets) == []
    for level, counts in ceilings.items():
        for which, most in counts.items():
            more = ceilings | {level: counts | {which: most + 1}}
            (broken,) = micro.check([row | {"counts": more}], budgets)
            assert broken.startswith(f"{kernel} ({level}): {most + 1} instructions")
            assert micro.check([row | {"counts": more}], budgets, 1.25) == []
    assert len(micro.check([row | {"ratio": 1.0, "counts": None}], budgets)) == 1


def test_every_kernel_that_has_levels_has_a_ceiling_at_each() -> None:
    budgets = tomllib.loads(micro.BUDGETS.read_text())["native"]
    assert all(set(one) == {"avx2", "sse2", "c"} for one in budgets.values())
    assert {kernel for kernel, _, _ in micro.sources()} == set(budgets)


def test_other_compilers_have_wider_ceilings_and_other_machines_none() -> None:
    here = {"machine": platform.machine(), "compiler": compiler(), "elsewhere": 1.25}
    here["python"] = ".".join(platform.python_version_tuple()[:2])
    assert micro.allowance(here) == (1.0, "")
    factor, why = micro.allowance(here | {"compiler": "gcc 1"})
    assert factor == 1.25 and "gcc 1, " in why and compiler() in why
    factor, why = micro.allowance(here | {"machine": "vax"})
    assert factor == math.inf and why.startswith("NOT CHECKED")


def test_the_compiler_is_read_from_what_it_made() -> None:
    assert re.fullmatch(r"(gcc|clang) \d+", compiler())


DUMP = """\
version: 1
events: Ir

ob=(3) /usr/lib/libc.so.6
fl=(1) memcpy.c
fn=(1) memcpy
10 100
+2 5
ob=(7) /here/audio_native/fir.so
fn=(2) fir_row
20 40
cob=(3)
cfn=(1)
calls=2 10
21 210
* 3
ob=(3)
fn=(4) free
30 1
"""


def test_what_a_function_calls_is_counted_once_and_where_it_is() -> None:
    lines = [line for line in DUMP.splitlines(keepends=True) if line != "\n"]
    assert costs(lines, "/here/audio_native/") == Count(native=43, total=149)
    assert costs(DUMP.splitlines(keepends=True), "/elsewhere/") == Count(native=0, total=149)


def test_the_way_out_is_the_servers_own() -> None:
    """What is measured as `downlink_build` is what a stream sends."""
    audio = bench_downlink.frames()[:8]
    wire = TwilioWire()
    wire.receive(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
    wire.receive(
        b'{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"streamSid":"MZ1","accountSid":"AC1",'
        b'"callSid":"CA1","tracks":["inbound"],"customParameters":{},"mediaFormat":{"encoding":"audio/x-mulaw",'
        b'"sampleRate":8000,"channels":1}}}'
    )
    converter = Converter(AudioFormat("s16", 24_000), MediaFormat("PCMU", 8_000))
    build = bench_downlink.native()
    assert [build(frame) for frame in audio] == [wire.media(converter.convert(frame)) for frame in audio]


def test_a_count_that_cannot_be_made_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotCounted, match="apt-get install valgrind"):
        count(["ring_write"])
    broken = tmp_path / "valgrind"
    broken.write_text("#!/bin/sh\necho 'cannot run here' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(NotCounted, match=r"callgrind at .* ended with 3: cannot run here"):
        count(["ring_write"])


def test_without_valgrind_counts_are_missed_and_fail_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # This kernel has a ceiling of instructions and no floor that a busy machine might miss.
    asked = ["--kernel", "ring_write", "--rounds", "1", "--check"]
    for variable, code in (("", 0), ("true", 1)):
        monkeypatch.setenv("CI", variable)
        assert micro.main([*asked, "--instructions"]) == code
        said = capsys.readouterr().err
        assert "NOT CHECKED: the instructions of 1 kernels were not counted" in said
        assert "valgrind is not installed (Debian, Ubuntu: apt-get install valgrind" in said
        assert micro.main(asked) == 0
        assert "NOT CHECKED" not in capsys.readouterr().err
