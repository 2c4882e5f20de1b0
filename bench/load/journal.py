"""When the server decided to clear: read from its journals after the calls, by the caller's number.

A journal is one file a call, a line a step: `[now_ns, event, values, [[action, values], …]]`, with the instants of the
machine's monotonic clock, which the generator's are too. Scripted recognisers name the caller in every final.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_CALLER = re.compile(rb"turn \d+ of (\+\d+)")


def clear_decisions(data_dir: Path) -> dict[str, list[int]]:
    """Instants of the steps that ordered a clear, ns, ascending, by caller; {} where there are no journals."""
    found: dict[str, list[int]] = {}
    for path in sorted((data_dir / "journal").glob("*.jsonl")):
        raw = path.read_bytes()
        caller = _CALLER.search(raw)
        if caller is None:
            continue
        instants = found.setdefault(caller[1].decode(), [])
        for line in raw.splitlines():
            if b'"ClearPlayout"' not in line:
                continue
            try:
                now_ns, _, _, actions = json.loads(line)
            except ValueError:
                continue  # the last line of a call that is still being written
            if any(action[0] == "ClearPlayout" for action in actions):
                instants.append(now_ns)
    return found


def since_decision_ms(cleared_ns: int, decisions: list[int], within_ms: float = 2000.0) -> float | None:
    """From the last decision before `cleared_ns` to it; None where none is near."""
    before = [one for one in decisions if one <= cleared_ns]
    if not before or cleared_ns - before[-1] > within_ms * 1e6:
        return None
    return (cleared_ns - before[-1]) / 1e6
