"""Captures of calls, read from outside; and from them when the server decided to clear, by the caller's number.

A capture is one file a call (docs/replay.md). In each part, one for each media stream, come after a mark of 14 bytes
blocks (length, CRC) of a deflated stream of records, each a kind, a length and a body; a block whose length has its
highest bit set is tape, of which records say how many bytes are theirs. Of kind S is a step, `[now_ns, event, values,
[[action, …], …]]`, with the instants of the machine's monotonic clock, which the generator's are too. Scripted
recognisers name the caller in every final.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MARK = b"\x89TSCAPTURE\r\n\x1a\n"
HEAD, TAPE, STEP = b"HMS"
OF_TAPE = ord("R")
TAPE_BIT = 1 << 31
MAX_RECORD_BYTES = 4 << 20
MAX_INFLATED_BYTES = 2 << 30
PIECE_BYTES = 1 << 20
_CALLER = re.compile(rb"turn \d+ of (\+\d+)")


class CaptureUnreadable(ValueError):
    """It is not a capture, or what is in it cannot be; says why."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Of a server's captures. `clears`: instants of the steps that ordered one, ns, ascending, by caller.

    `unreadable`: one text for each file that is damaged or foreign; what stands before the damage counts.
    """

    clears: dict[str, list[int]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def clear_decisions(data_dir: Path) -> Decisions:
    """What all captures below `data_dir` say; nothing where there are none."""
    found = Decisions()
    for path in sorted((data_dir / "capture").glob("*.capture")):
        caller: str | None = None
        instants: list[int] = []
        try:
            for kind, body in records(path.read_bytes()):
                if kind != STEP:
                    continue
                named = _CALLER.search(body)
                caller = named[1].decode() if named else caller
                if b'"ClearPlayout"' not in body:
                    continue
                now_ns, _, _, actions = json.loads(body)
                if any(action[0] == "ClearPlayout" for action in actions):
                    instants.append(now_ns)
        except CaptureUnreadable as error:
            found.unreadable.append(f"{path.name}: {error}")
        if caller is not None:
            found.clears.setdefault(caller, []).extend(instants)
    return found


def records(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of all whole records of all parts. A file that is still written, or was cut, ends at its last block.

    Raises:
        CaptureUnreadable: no capture, damaged, or it expands beyond MAX_INFLATED_BYTES.
    """
    if not raw.startswith(MARK):
        raise CaptureUnreadable("not a capture of a call")
    at, room = 0, MAX_INFLATED_BYTES
    while at >= 0:
        inflate, data, tape = zlib.decompressobj(wbits=-12), b"", b""
        at += len(MARK)
        while found := _block(raw, at):
            block, is_tape = found
            at += 8 + len(block)
            if is_tape:
                tape += block
                continue
            while block:
                try:
                    more = inflate.decompress(block, PIECE_BYTES)
                except zlib.error as error:
                    raise CaptureUnreadable(f"damaged: {error}") from None
                block, room = inflate.unconsumed_tail, room - len(more)
                if room < 0:
                    raise CaptureUnreadable("it expands beyond what captures do")
                data += more
                begin = 0
                while begin + 5 <= len(data):
                    end = begin + 5 + int.from_bytes(data[begin + 1 : begin + 5], "little")
                    if end - begin > MAX_RECORD_BYTES:
                        raise CaptureUnreadable("damaged: a record longer than records are")
                    if end > len(data):
                        break
                    kind, body = data[begin], data[begin + 5 : end]
                    if kind == OF_TAPE:
                        size = int.from_bytes(body, "little")
                        if size > len(tape):
                            raise CaptureUnreadable("damaged: there is less tape than its records say")
                        kind, body, tape = TAPE, tape[:size], tape[size:]
                    yield kind, body
                    begin = end
                data = data[begin:]
        at = raw.find(MARK, at)


def _block(raw: bytes, at: int) -> tuple[bytes, bool] | None:
    """(content, is tape) of the block at `at`; None where a part ends or was cut. Raises CaptureUnreadable."""
    if at + 8 > len(raw) or raw.startswith(MARK, at):
        return None
    length, crc = (int.from_bytes(raw[one : one + 4], "little") for one in (at, at + 4))
    length, is_tape = length & ~TAPE_BIT, bool(length & TAPE_BIT)
    block = raw[at + 8 : at + 8 + length]
    if len(block) == length and zlib.crc32(block) == crc:
        return block, is_tape
    next_part = raw.find(MARK, at)
    rest = raw[at : len(raw) if next_part < 0 else next_part]
    if len(rest) < 8 or MARK.startswith(rest):
        return None  # cut within the two numbers, or where a further part was to begin
    if not _is_cut(rest[8:], length, crc):
        raise CaptureUnreadable(f"damaged: the block at byte {at} is not what was written")
    return None


def _is_cut(rest: bytes, length: int, crc: int) -> bool:
    """Less of the block is there than it says. With a wrong length it looks so too, but then some of it has its CRC."""
    if not len(rest) < length <= MAX_RECORD_BYTES:
        return False
    begun = 0
    for one in range(len(rest)):
        begun = zlib.crc32(rest[one : one + 1], begun)
        if begun == crc:
            return False
    return True


def since_decision_ms(cleared_ns: int, decisions: list[int], within_ms: float = 2000.0) -> float | None:
    """From the last decision before `cleared_ns` to it; None where none is near."""
    before = [one for one in decisions if one <= cleared_ns]
    if not before or cleared_ns - before[-1] > within_ms * 1e6:
        return None
    return (cleared_ns - before[-1]) / 1e6
