"""Whatever calls a test makes, each capture that they leave in its folder must be decided again to the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.call.capture_file import NOTHING, CaptureError
from server.call.replay import replay_capture


def replay_all(folder: Path) -> int:
    """Decide every capture below `folder` again. Returns how many there are. Raises AssertionError: one differs."""
    captures = sorted(folder.rglob("*.capture"))
    for path in captures:
        try:
            replayed = replay_capture(path)
        except CaptureError as error:
            # Of a server that was killed: there is nothing to decide. Damage is never right.
            assert str(error).endswith(NOTHING), f"{path}: {error}"
            continue
        assert replayed.is_same, f"{path}: {replayed.differences[:1]}"
    return len(captures)


@pytest.fixture(autouse=True)
def captures_decide_the_same(tmp_path: Path) -> Iterator[None]:
    yield
    replay_all(tmp_path)
