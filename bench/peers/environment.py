"""A peer's own virtual environment, made from the package index once and kept until its requirements change."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

INSTALL_S = 900
STAMP = ".installed"


class PeerMissing(Exception):
    """The peer cannot be installed here; says which step failed and how."""


def prepare(folder: Path, requirements: Path) -> Path:
    """The Python of the environment in `folder`, which is made when it is not there. Raises PeerMissing."""
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = folder / STAMP
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {requirements.parent.name} into {folder} (once, some minutes)", file=sys.stderr)
    _step("make the environment", [sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _step("install from the package index", [*pip, "-r", str(requirements)])
    stamp.write_text(wanted)
    return python


def _step(what: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"peer: could not {what}: {error}") from None
    if done.returncode:
        tail = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("WARNING"))[-1500:]
        raise PeerMissing(f"peer: could not {what} ({' '.join(command[-2:])}):\n{tail}")
