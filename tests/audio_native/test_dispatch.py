"""The choice of the instruction set at import, and the kernels as C: clean, portable, inside their buffers."""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from audio_native import dispatch

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "audio_native"
CHECK = Path(__file__).with_name("kernel_check.c")
PROBE = """
from audio_native import dispatch, fir, g711
one = fir.Fir(8000, 16000)
coded = g711.bytes_to_pcmu(bytes(range(256)) * 4)
print(dispatch.ISA, (one.process(g711.pcmu_to_bytes(coded)) + one.flush()).hex())
"""


def python(isa: str | None) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if name != "AUDIO_NATIVE_ISA"}
    if isa is not None:
        environ["AUDIO_NATIVE_ISA"] = isa
    command = [sys.executable, "-c", PROBE]
    return subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30)


def test_the_environment_forces_a_level_and_all_agree():
    runs = {isa: python(isa) for isa in dispatch.AVAILABLE}
    for isa, run in runs.items():
        assert run.returncode == 0, run.stderr
        assert run.stdout.split()[0] == isa
    assert len({run.stdout.split()[1] for run in runs.values()}) == 1


@pytest.mark.parametrize("isa", [None, ""])
def test_without_the_variable_the_best_level_is_taken(isa):
    assert python(isa).stdout.split()[0] == dispatch.AVAILABLE[0]


@pytest.mark.parametrize("isa", ["avx1024", "AVX2", "c "])
def test_an_unknown_level_is_refused_by_name(isa):
    run = python(isa)
    assert run.returncode == 1
    assert "ImportError: AUDIO_NATIVE_ISA" in run.stderr and repr(isa) in run.stderr and "available: " in run.stderr


def test_set_isa_keeps_the_level_when_it_refuses():
    before = dispatch.ISA
    with pytest.raises(ValueError, match="no such level"):
        dispatch.set_isa("neon")
    with pytest.raises(TypeError):
        dispatch.set_isa(None)
    assert before == dispatch.ISA


def test_plain_c_is_always_there_and_last():
    assert dispatch.AVAILABLE[-1] == "c"
    if platform.machine() == "x86_64":
        assert "sse2" in dispatch.AVAILABLE


def compile_check(out: Path, *flags: str) -> None:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wno-unused-function"]
    command = [compiler, "-std=c11", *warnings, *flags, f"-I{HEADERS}", str(CHECK), "-o", str(out)]
    built = subprocess.run(command, check=False, capture_output=True, text=True, timeout=55)
    assert built.returncode == 0, built.stderr


@pytest.mark.slow
@pytest.mark.parametrize("portable", [[], ["-DKERNEL_PORTABLE_ONLY"]], ids=["all", "portable"])
def test_kernels_are_clean_and_stay_inside_their_buffers(tmp_path, portable):
    """Optimised and warning-free, then under AddressSanitizer and UndefinedBehaviorSanitizer."""
    for flags in (["-O3"], ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]):
        compile_check(tmp_path / "check", *flags, *portable)
        run = subprocess.run([tmp_path / "check"], check=False, capture_output=True, text=True, timeout=30)
        assert run.returncode == 0, run.stderr
