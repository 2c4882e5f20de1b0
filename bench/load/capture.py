"""When the server decided to clear: read from its captures after the calls, by the caller's number.

A capture is one file a call (docs/replay.md): after a mark of 14 bytes come blocks (length, CRC) of a deflated stream
of records, each a kind, a length and a body; blocks whose length has its highest bit hold no records. Of kind S is a
step, `[now_ns, event, values, [[action, …], …]]`, with the instants of the machine's monotonic clock, which the
generator's are too. Scripted recognisers name the caller in every final.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

MARK_BYTES = 14
STEP = ord("S")
TAPE_BIT = 1 << 31
_CALLER = re.compile(rb"turn \d+ of (\+\d+)")


def clear_decisions(data_dir: Path) -> dict[str, list[int]]:
    """Instants of the steps that ordered a clear, ns, ascending, by caller; {} where there are no captures."""
    found: dict[str, list[int]] = {}
    for path in sorted((data_dir / "capture").glob("*.capture")):
        caller: str | None = None
        instants: list[int] = []
        for body in steps(path.read_bytes()):
            named = _CALLER.search(body)
            caller = named[1].decode() if named else caller
            if b'"ClearPlayout"' not in body:
                continue
            now_ns, _, _, actions = json.loads(body)
            if any(action[0] == "ClearPlayout" for action in actions):
                instants.append(now_ns)
        if caller is not None:
            found.setdefault(caller, []).extend(instants)
    return found


def steps(raw: bytes) -> Iterator[bytes]:
    """The bodies of all steps of the first stream, as far as they are written."""
    inflate, data = zlib.decompressobj(wbits=-12), b""
    at = MARK_BYTES
    while at + 8 <= len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        end = at + 8 + (length & ~TAPE_BIT)
        if end > len(raw):
            break  # of a call that is still being written
        if not length & TAPE_BIT:
            data += inflate.decompress(raw[at + 8 : end])
        at = end
    at = 0
    while at + 5 <= len(data):
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "little")
        if end > len(data):
            return
        if data[at] == STEP:
            yield data[at + 5 : end]
        at = end


def since_decision_ms(cleared_ns: int, decisions: list[int], within_ms: float = 2000.0) -> float | None:
    """From the last decision before `cleared_ns` to it; None where none is near."""
    before = [one for one in decisions if one <= cleared_ns]
    if not before or cleared_ns - before[-1] > within_ms * 1e6:
        return None
    return (cleared_ns - before[-1]) / 1e6
