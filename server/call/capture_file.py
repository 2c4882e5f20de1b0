"""The file of one captured call: what stands in it, and how it is read.

    MAGIC │ length, CRC-32, block │ … │ MAGIC │ length, CRC-32, block │ …     one part for each media stream of the call
                             ├ records: raw deflate over all such blocks of the part: kind, length, body; kind, …
                             └ tape: as it is; records say how many bytes of it are theirs

Numbers are u32, little-endian; a kind is one byte. Deflate, because it comes with Python and gives what it has at every
flush (zstd would be a dependency more for CPU that is not spent here). The tape of media messages and speech scores,
which `audio_native.tape` writes and reads, is small by itself, and coded speech hardly deflates: to try cost more CPU
than all else of a capture. Bodies are JSON. A crash cuts a part within its last block, and the part is read up to
there; whatever else does not match its CRC-32 is damage, and nothing of the file is to be believed.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from audio_native.tape import read_tape
from server.call.shape import check_fields, fits

VERSION = 2
# The first had the tape among the records.
READABLE = (1, 2)
SUFFIX = ".capture"
# As a length it would be more than a block may have.
MAGIC = b"\x89TSCAPTURE\r\n\x1a\n"
# A record is a message of 64 KiB or a block of tape of 1 MiB at most; so much tape waits for its records, too.
MAX_RECORD_BYTES = 4 * 1024 * 1024
# A file of the largest size that a setting allows, and a little; and what it may expand to.
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
MAX_EXPANSION = 200
# A little less than orjson writes (254), for what is put around a record's values.
MAX_DEPTH = 240
FRAME_BYTES = 5
_BLOCK = struct.Struct("<II")
_PIECE_BYTES = 1024 * 1024

HEAD, TEXT, TAPE, STEP, AUDIO, NOTE, END = b"HTMSANE"
# So many bytes of the blocks of tape, in their order.
OF_TAPE = ord("R")
# In a block's length: it is tape.
_TAPE_BIT = 0x8000_0000


class CaptureError(ValueError):
    """The file is not a capture, or of a version that this server cannot read."""


NOTHING = "nothing of it can be read: cut before the first seconds of the call were written"
"""For who needs a call that begins."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the stream was made from. `has_audio`: payloads are on the tape; `scored`: a network judges speech too.

    `opening` holds the carrier's messages before and with `start`, without secrets. `resumed`: the call goes on from
    the part before. `may_reorder`: media waited for what was missing from the start, as all did before this was noted.
    `masks_keys`: which keys were pressed is not in it (server/call/keymask.py).
    """

    call_id: str
    carrier: str
    stream_id: str
    codec: str
    rate_hz: int
    has_audio: bool
    scored: bool
    resumed: bool
    settings: Mapping[str, Any]
    opening: tuple[str, ...]
    may_reorder: bool = True
    masks_keys: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A message that was no audio. `text` None: one that could not be read, `size` bytes long."""

    at_ns: int
    text: str | None
    size: int
    is_text: bool


@dataclass(frozen=True, slots=True)
class Tape:
    """Media messages and scores: entries as `audio_native.tape.read_tape` gives them."""

    entries: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the conversation: the event and what was decided, as JSON has them."""

    now_ns: int
    name: str
    values: Mapping[str, Any]
    actions: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio that a synthesizer gave for a clause: its length, never its sound."""

    at_ns: int
    clause_no: int
    size: int
    encoding: str
    rate_hz: int


@dataclass(frozen=True, slots=True)
class Note:
    """What a provider said without the conversation being told: a final for nothing that is open, for one."""

    at_ns: int
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class End:
    """Why the part ends: the stream's `reason`, or `is_truncated` when the file or a buffer was full."""

    at_ns: int
    reason: str
    is_truncated: bool
    counters: Mapping[str, int]


Record = Head | Text | Tape | Step | Audio | Note | End


def frame(kind: int, body: bytes) -> bytes:
    """One record as it stands in a part before compression."""
    return kind.to_bytes(1) + len(body).to_bytes(4, "little") + body


def compressor() -> zlib._Compress:
    """For one part. Level 1 and a window of 4 KiB: 30 KiB of memory a call, where zlib's default takes 256."""
    return zlib.compressobj(level=1, wbits=-12, memLevel=5)


def block(deflated: bytes) -> bytes:
    """One block of records as it stands in the file."""
    return _BLOCK.pack(len(deflated), zlib.crc32(deflated)) + deflated


def tape_block(tape: bytes) -> bytes:
    """One block of tape as it stands in the file, before the block with its records."""
    return _BLOCK.pack(len(tape) | _TAPE_BIT, zlib.crc32(tape)) + tape


def of_tape(size: int) -> bytes:
    """The record of so many bytes of tape."""
    return frame(OF_TAPE, size.to_bytes(4, "little"))


def read(path: Path) -> Iterator[Record]:
    """Every whole record, in the order in which things happened.

    Raises:
        CaptureError: not a capture, of another version, damaged, or larger than captures are. OSError: unreadable.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise CaptureError("not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise CaptureError("larger than any capture")
    raw = path.read_bytes()
    if not raw.startswith(MAGIC):
        raise CaptureError("not a capture of a call")
    reader = _Reader(raw)
    at = 0
    while at >= 0:
        head: Head | None = None
        record: Record | None = None
        for kind, body in reader.records(at + len(MAGIC)):
            if isinstance(record, End):
                raise CaptureError("damaged: a part goes on after its end")
            try:
                record = _record(kind, body, head)
            except (ValueError, KeyError, TypeError) as error:
                raise CaptureError(f"a damaged record: {error}") from error
            if isinstance(record, Head):
                head = record
            elif head is None and not isinstance(record, End):
                raise CaptureError("a part does not begin with what the call was made from")
            yield record
        _check_rest(reader.rest, has_audio=head is not None and head.has_audio, is_ended=isinstance(record, End))
        at = reader.next_at


def _check_rest(tape: bytes, *, has_audio: bool, is_ended: bool) -> None:
    """A crash may come between tape and the records that speak of it; in a part that was ended nothing is left."""
    if tape and is_ended:
        raise CaptureError("damaged: tape that no record speaks of")
    try:
        read_tape(tape, has_audio=has_audio)
    except ValueError as error:
        raise CaptureError(f"damaged: {error}") from error


class _Reader:
    """Inflates the parts of a file one after the other.

    Attributes:
        next_at: where the part after the last begins, -1 for none.
        rest: tape of the last part that no record speaks of.
    """

    __slots__ = ("_left", "_raw", "next_at", "rest")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._left = max(_PIECE_BYTES, len(raw)) * MAX_EXPANSION
        self.next_at = -1
        self.rest = b""

    def records(self, start: int) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of each record of the part whose blocks begin at `start`, up to one that is cut."""
        inflate = zlib.decompressobj(wbits=-12)
        data = tape = b""
        for is_tape, content in self._blocks(start):
            if is_tape:
                tape += content
                if len(tape) > MAX_RECORD_BYTES:
                    raise CaptureError("more tape than a second of a call has")
                continue
            waiting = content
            while waiting:
                try:
                    more = inflate.decompress(waiting, _PIECE_BYTES)
                except zlib.error as error:
                    raise CaptureError(f"a block is not deflated: {error}") from error
                waiting = inflate.unconsumed_tail
                self._left -= len(more)
                if self._left < 0:
                    raise CaptureError("it expands beyond what captures do")
                at, data = 0, data + more
                while at + FRAME_BYTES <= len(data):
                    end = at + FRAME_BYTES + int.from_bytes(data[at + 1 : at + FRAME_BYTES], "little")
                    if end - at > MAX_RECORD_BYTES:
                        raise CaptureError("a record longer than records are")
                    if end > len(data):
                        break
                    kind, body = data[at], data[at + FRAME_BYTES : end]
                    if kind == OF_TAPE:
                        size = int.from_bytes(body, "little")
                        if size > len(tape):
                            raise CaptureError("there is less tape than its records say")
                        kind, body, tape = TAPE, tape[:size], tape[size:]
                    yield kind, body
                    at = end
                data = data[at:]
        self.rest = tape

    def _blocks(self, at: int) -> Iterator[tuple[bool, bytes]]:
        """(is tape, content) of each block, up to one that is cut. Raises CaptureError for one that is damaged."""
        raw = self._raw
        while at + _BLOCK.size <= len(raw) and not raw.startswith(MAGIC, at):
            length, crc = _BLOCK.unpack_from(raw, at)
            length, is_tape = length & ~_TAPE_BIT, bool(length & _TAPE_BIT)
            content = raw[at + _BLOCK.size : at + _BLOCK.size + length]
            if len(content) < length or zlib.crc32(content) != crc:
                self._check_cut(at, length, crc)
                break
            yield is_tape, content
            at += _BLOCK.size + length
        # Here, or behind what a crash has left.
        self.next_at = raw.find(MAGIC, at)

    def _check_cut(self, at: int, length: int, crc: int) -> None:
        """Raises CaptureError unless the block at `at` was cut: less of it is there than it says, and nothing else."""
        end = self._raw.find(MAGIC, at)
        rest = self._raw[at : len(self._raw) if end < 0 else end]
        if len(rest) < _BLOCK.size or MAGIC.startswith(rest):
            return  # within the two numbers, or where a further part was to begin
        rest = rest[_BLOCK.size :]
        if not len(rest) < length <= MAX_RECORD_BYTES:
            raise CaptureError(f"damaged: the block at byte {at} is not what was written")
        # A longer length than was written looks like a cut, but then the whole block is there.
        begun = 0
        for one in range(len(rest)):
            begun = zlib.crc32(rest[one : one + 1], begun)
            if begun == crc:
                raise CaptureError(f"damaged: the length of the block at byte {at} is not what was written")


def _record(kind: int, body: bytes, head: Head | None) -> Record:
    if kind == TAPE:
        return Tape(read_tape(body, has_audio=head is not None and head.has_audio))
    values = orjson.loads(body)
    # Most have fewer brackets than that, wherever they stand.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and not _is_within(values, MAX_DEPTH):
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if kind == HEAD:
        version = values.pop("capture", None) if isinstance(values, dict) else None
        if version not in READABLE:
            raise CaptureError(f"expected a capture of version {' or '.join(map(str, READABLE))}, got {version!r:.40}")
        check_fields(Head, values)
        return Head(**{**values, "opening": tuple(values["opening"])})
    made_of = _KINDS[kind]
    named = dict(zip(_FIELDS[made_of], values, strict=True))
    check_fields(made_of, named)
    if kind == STEP and not all(fits(_ACTION, one) for one in named["actions"]):
        raise ValueError("an action that is none")
    made: Record = made_of(**named)
    return made


def _is_within(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return True
    return depth > 0 and all(_is_within(one, depth - 1) for one in value)


_KINDS: Mapping[int, type[Any]] = {TEXT: Text, STEP: Step, AUDIO: Audio, NOTE: Note, END: End}
_FIELDS = {kind: tuple(one.name for one in fields(kind)) for kind in _KINDS.values()}
_ACTION = tuple[str, Mapping[str, Any]]
