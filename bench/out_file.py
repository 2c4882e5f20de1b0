"""Where a result is to be written: seen to before a run of minutes, not after it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def out_file(text: str) -> Path:
    """For argparse: a file that can be written, or written anew. Raises ArgumentTypeError."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path
