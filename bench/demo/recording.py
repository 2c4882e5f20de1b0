"""Human voices from installable packages, found or fetched without root; nothing is vendored.

First choice: Debian's asterisk-core-sounds-en-wav 1.6.1 (one woman, prompts of a telephone exchange; CC-BY-SA-3.0),
as installed, or fetched by `apt-get download` and unpacked by `dpkg-deb -x` into the cache. Else the readings inside
the wheel moonshine-voice 0.1.0 (MIT), which the server needs anyway.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.sim.sound import SAMPLES_PER_MS, Clip

PACKAGE = "asterisk-core-sounds-en-wav"
VOICE_FOLDER = "usr/share/asterisk/sounds/en_US_f_Allison"
GAP_MS = 60
"""Between words that were recorded apart."""
APT_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of recordings. `name` is the key in calls.yaml, `label` what is printed beside its callers."""

    name: str
    label: str
    folder: Path

    def clip(self, names: Sequence[str], text: str, end_ms: int | None = None) -> Clip:
        """Recordings one after the other as one clip. Raises OSError when one is missing, ValueError for its form."""
        parts = [
            Clip.from_wav(self.folder / f"{name}.wav", text=name, source=self.label, end_ms=end_ms) for name in names
        ]
        gap = b"\xff" * (GAP_MS * SAMPLES_PER_MS)
        pcmu = gap.join(part.pcmu[: part.speech_samples] for part in parts)
        return Clip.from_pcmu(pcmu, text=text, source=self.label)


def find_source(cache: Path) -> tuple[Source, str]:
    """The best source there is, and a line that says why it is not a better one (empty: it is the best).

    Raises:
        FileNotFoundError: there is no human voice at all on this machine.
    """
    installed = Path("/") / VOICE_FOLDER
    unpacked = cache / PACKAGE / VOICE_FOLDER
    note = ""
    if not installed.is_dir() and not unpacked.is_dir():
        note = fetch_package(PACKAGE, cache)
    for folder in (installed, unpacked):
        if folder.is_dir():
            label = f"human: Debian {PACKAGE}, CC-BY-SA-3.0, (C) Allison Smith"
            return Source("asterisk", label, folder), ""
    return _readings(), note


def fetch_package(package: str, cache: Path) -> str:
    """Download and unpack a package of Debian's into `cache`/`package`; says what went wrong, else nothing."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return f"this is no Debian: no apt-get and dpkg-deb for {package}"
    cache.mkdir(parents=True, exist_ok=True)
    problem = _run(["apt-get", "download", package], cache)
    if problem:
        return f"{problem}; as root, `apt-get update && apt-get install {package}` helps"
    archives = sorted(cache.glob(f"{package}_*.deb"))
    if not archives:
        return f"apt-get download left no {package}"
    fresh = cache / f"{package}.unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    problem = _run(["dpkg-deb", "-x", str(archives[-1]), str(fresh)], cache)
    if problem:
        return problem
    # Renamed when whole: an interrupted run must not leave half a voice.
    fresh.rename(cache / package)
    return ""


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=APT_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(command)}: no answer in {APT_TIMEOUT_S} s"
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    return f"{' '.join(command)}: {' '.join(last)}"


def _readings() -> Source:
    try:
        distribution = importlib.metadata.distribution("moonshine-voice")
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError("no human voice: neither Debian's prompts nor the package moonshine-voice") from None
    folder = Path(str(distribution.locate_file("moonshine_voice/assets")))
    label = f"human: readings in the package moonshine-voice {distribution.version}, MIT"
    return Source("moonshine-voice", label, folder)
