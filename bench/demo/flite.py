"""More synthesised callers: Flite's voices from Debian's packages, found or fetched without root; nothing is vendored.

Debian's flite and libflite1 2.2 (BSD-like licence, Carnegie Mellon University), as installed, or fetched and unpacked
into the cache as the human prompts are. Where there is no Debian the callers speak with Pico, and the print says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.demo.recording import fetch_package
from bench.sim.sound import Clip

PACKAGES = ("flite", "libflite1", "libasound2")
VOICES = ("rms", "slt", "awb")
"""Those that the recogniser hears nearly as well as people, on sentences about nothing: bench/README.md."""
RENDER_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Flite:
    """The program and where its libraries are (empty: where the system has them)."""

    program: Path
    libraries: str

    def clip(self, text: str, voice: str) -> Clip:
        """What a caller says, at the voice's own rate and pitch.

        Raises:
            ValueError: no such voice, or nothing was rendered.
        """
        if voice not in VOICES:
            raise ValueError(f"voice: expected one of {', '.join(VOICES)}; got {voice!r}")
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "said.wav"
            problem = self._run(["-voice", voice, "-t", text, "-o", str(wav)])
            if problem or not wav.is_file():
                raise ValueError(f"Flite rendered nothing for {text!r}: {problem}")
            return Clip.from_wav(wav, text=text, source=label(voice))

    def _run(self, arguments: list[str]) -> str:
        env = {**os.environ, "LD_LIBRARY_PATH": self.libraries} if self.libraries else dict(os.environ)
        done = subprocess.run(
            [str(self.program), *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=RENDER_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")

    @property
    def problem(self) -> str:
        """Why it does not run here; empty when it does."""
        return self._run(["-lv"])


def label(voice: str) -> str:
    return f"synthesised: Flite {voice}"


def find_flite(cache: Path) -> tuple[Flite | None, str]:
    """Flite as installed or fetched, or None and why."""
    installed = shutil.which("flite")
    if installed:
        return Flite(Path(installed), ""), ""
    for package in PACKAGES:
        if not (cache / package).is_dir() and (problem := fetch_package(package, cache)):
            return None, problem
    program = cache / "flite" / "usr" / "bin" / "flite"
    found = [one for package in PACKAGES[1:] for one in (cache / package / "usr" / "lib").glob("*/lib*.so.[12]")]
    folders = sorted({str(one.parent) for one in found})
    flite = Flite(program, ":".join(folders))
    if not program.is_file() or not folders:
        return None, "Debian's flite was unpacked without its program or libraries"
    problem = flite.problem
    return (None, problem) if problem else (flite, "")
