"""Reading the spool back: what of one process life is on disk and not yet in PostgreSQL.

The reader of the living process stops at `durable_seq`. A life that is over (its lock is free) is adopted whole:
its torn tail is cut off first. Blocking file work: call from a thread.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from server.store.segment import HEADER_BYTES, RECORD_MAX_BYTES, Record, SegmentError, read_boot, records
from server.store.spool import lock_path

log = logging.getLogger(__name__)

READ_BYTES = 2 * 1024 * 1024
"""Of one segment at a time; larger than the largest record."""
assert READ_BYTES > RECORD_MAX_BYTES + HEADER_BYTES


class Backlog:
    """The records of `boot`, in order, each once. One reader for each boot.

    Attributes:
        torn_tails: segments that ended in the middle of a record.
    """

    def __init__(self, folder: Path, boot: UUID, lock_fd: int = -1) -> None:
        self.boot = boot
        self.torn_tails = 0
        self._folder = folder
        self._lock_fd = lock_fd
        self._number = 0
        self._offset = HEADER_BYTES
        self._read_seq = 0

    @property
    def is_adopted(self) -> bool:
        return self._lock_fd >= 0

    def read(self, limit: int, upto_seq: int | None = None) -> list[Record]:
        """The next records, at most `limit`, none beyond `upto_seq`; empty when there is nothing more now."""
        found: list[Record] = []
        while len(found) < limit:
            # Listed before reading: when a later segment exists, what we then read of this one is all of it.
            numbers = self._numbers()
            later = [number for number in numbers if number > self._number]
            if self._number not in numbers:
                if not later:
                    break
                self._number, self._offset = later[0], HEADER_BYTES
                continue
            got, is_bounded = self._read_some(limit - len(found), upto_seq)
            found += got
            if is_bounded:
                break
            if not got:
                if not later:
                    break
                self._number, self._offset = later[0], HEADER_BYTES
        return found

    def acknowledge(self) -> None:
        """All records that `read` has returned are in PostgreSQL: remove the segments that hold nothing else."""
        for number in self._numbers():
            if number < self._number:
                self._path(number).unlink(missing_ok=True)

    def finish(self) -> None:
        """An adopted boot was shipped to its end: remove its files and its lock."""
        for number in self._numbers():
            self._path(number).unlink(missing_ok=True)
        lock_path(self._folder, self.boot).unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Give an adopted boot back, unfinished."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def rewind(self, number: int, offset: int, seq: int) -> None:
        """Go back to a `position`: what was read since then was not shipped."""
        self._number, self._offset, self._read_seq = number, offset, seq

    @property
    def position(self) -> tuple[int, int, int]:
        return self._number, self._offset, self._read_seq

    def cut_torn_tails(self) -> None:
        """Truncate every segment behind its last whole record; remove those without a header."""
        for number in self._numbers():
            path = self._path(number)
            data = path.read_bytes()
            try:
                read_boot(data)
            except SegmentError as error:
                self.torn_tails += 1
                log.warning("removing a spool segment", extra={"segment": path.name, "reason": str(error)})
                path.unlink()
                continue
            end = max((record.end for record in records(data)), default=HEADER_BYTES)
            if end < len(data):
                self.torn_tails += 1
                log.warning("cutting a torn tail", extra={"segment": path.name, "cut_bytes": len(data) - end})
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.ftruncate(fd, end)
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def _read_some(self, limit: int, upto_seq: int | None) -> tuple[list[Record], bool]:
        """Records from the position on, and whether one beyond `upto_seq` was met."""
        with self._path(self._number).open("rb") as file:
            file.seek(self._offset)
            data = file.read(READ_BYTES)
        found: list[Record] = []
        base = self._offset
        for record in records(data, 0):
            if upto_seq is not None and record.seq > upto_seq:
                return found, True
            self._offset = base + record.end
            if record.seq > self._read_seq:
                self._read_seq = record.seq
                found.append(record)
                if len(found) == limit:
                    break
        # Only copies of what an earlier segment had: look further instead of reporting the end.
        if not found and self._offset > base:
            return self._read_some(limit, upto_seq)
        return found, False

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem[33:]) for path in self._folder.glob(f"{self.boot.hex}-*.seg"))

    def _path(self, number: int) -> Path:
        return self._folder / f"{self.boot.hex}-{number:08d}.seg"


def adopt_dead(folder: Path, known: Collection[UUID]) -> list[Backlog]:
    """Take over the lives in `folder` that have ended, other than those in `known`. Their locks are ours then."""
    boots = {path.name[:32] for path in folder.glob("*.seg")} | {path.stem for path in folder.glob("*.lock")}
    adopted: list[Backlog] = []
    for name in sorted(boots):
        boot = UUID(hex=name)
        if boot in known:
            continue
        fd = os.open(lock_path(folder, boot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        backlog = Backlog(folder, boot, fd)
        backlog.cut_torn_tails()
        adopted.append(backlog)
    return adopted
