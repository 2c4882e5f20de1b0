"""The files of the spool: frames with a checksum, appended to segments that are never rewritten.

    segment   magic 8 · boot id 16 · crc32 u32 ‖ frame ‖ frame ‖ …
    frame     length u32 · crc32 u32 · seq u64 · payload          (big-endian; the CRC covers seq and payload)

A reader stops at the first frame that is short or fails its CRC: what follows was never acknowledged. Seq counts
from 1 in each life of a process (boot) and may repeat after a failed write; the later copy is the same record.
CRC-32 of zlib, because it is in the standard library and as good as CRC-32C at this length.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

MAGIC = b"TSPOOL01"
SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment that has reached this size is closed."""
RECORD_MAX_BYTES = 1024 * 1024
"""A length above this is damage, not a record."""

_HEADER = struct.Struct("!8s16sI")
_FRAME = struct.Struct("!IIQ")
HEADER_BYTES = _HEADER.size


class SegmentError(Exception):
    """A file is not a segment of the spool."""


@dataclass(frozen=True, slots=True)
class Record:
    """`end` is the offset in the segment behind the record."""

    seq: int
    payload: bytes
    end: int


def frame(seq: int, payload: bytes) -> bytes:
    """The bytes of one record. Raises ValueError when the payload is longer than RECORD_MAX_BYTES."""
    if len(payload) > RECORD_MAX_BYTES:
        raise ValueError(f"payload: at most {RECORD_MAX_BYTES} bytes, got {len(payload)}")
    body = seq.to_bytes(8, "big") + payload
    return struct.pack("!II", len(payload), zlib.crc32(body)) + body


def header(boot: UUID) -> bytes:
    start = MAGIC + boot.bytes
    return start + zlib.crc32(start).to_bytes(4, "big")


def name_of(boot: UUID, number: int) -> str:
    return f"{boot.hex}-{number:08d}.seg"


def read_boot(data: bytes) -> UUID:
    """The boot id of a segment. Raises SegmentError when the header is damaged or cut."""
    if len(data) < HEADER_BYTES:
        raise SegmentError(f"expected {HEADER_BYTES} bytes of header, got {len(data)}")
    magic, boot, crc = _HEADER.unpack_from(data)
    if magic != MAGIC or crc != zlib.crc32(data[: HEADER_BYTES - 4]):
        raise SegmentError("damaged header")
    return UUID(bytes=boot)


def records(data: bytes, start: int = HEADER_BYTES) -> Iterator[Record]:
    """Every whole record from offset `start` on, up to the first that is short or fails its CRC."""
    view = memoryview(data)
    while start + _FRAME.size <= len(data):
        length, crc, seq = _FRAME.unpack_from(data, start)
        end = start + _FRAME.size + length
        if length > RECORD_MAX_BYTES or end > len(data) or zlib.crc32(view[start + 8 : end]) != crc:
            return
        yield Record(seq, bytes(view[start + _FRAME.size : end]), end)
        start = end


class SegmentWriter:
    """One open segment. After any OSError it is dead: never fsync a file again whose fsync failed."""

    __slots__ = ("_fd", "number", "path", "size_bytes")

    def __init__(self, folder: Path, boot: UUID, number: int) -> None:
        """Create the file durably: its header and its name in the folder. Raises OSError."""
        self.number = number
        self.path = folder / name_of(boot, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        self.size_bytes = 0
        try:
            self._write(header(boot))
            os.fsync(self._fd)
            sync_folder(folder)
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    def commit(self, frames: bytes) -> None:
        """Append `frames` and return when the disk has them. Raises OSError; the segment is dead then."""
        self._write(frames)
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.size_bytes += written
            view = view[written:]


def sync_folder(folder: Path) -> None:
    """Make creations and removals in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
