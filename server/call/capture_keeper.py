"""The folder of captures within its bounds: how much, how long, and what of the disk stays free for others.

    the writer's thread, between two writes ─► free disk ─► has_room: may a new capture begin?
                                           └─► total and age ─► the oldest finished captures go

Facts of calls go to the same disk and matter more, so captures give way long before it is full. What is being written
is locked by its writer, of this process or another, and stays; so does what was written a moment ago, because a call
whose stream broke may go on in it. Nothing here raises, and no call waits for it.
"""

from __future__ import annotations

import fcntl
import heapq
import logging
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from server.call.capture_file import SUFFIX
from server.clock import Clock
from server.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at the free disk: 200 calls with audio write 10 MB meanwhile."""
TIDY_S = 600.0
"""Between two looks at all files, for their age; sooner where what was written since makes it too much."""
MIN_TIDY_S = 60.0
SETTLE_S = 60.0
"""A second stream comes sooner than that, or not at all."""
LOW_WATER = 0.95
"""Of the total, once it was passed: not every further capture makes all files be looked at."""
ROOM_AGAIN = 1.1
"""Of the free disk that is asked for: no coming and going about the bound."""
BATCH = 5000
"""So many files go in one turn, then what waits is written; all of them sorted would hold up the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureBounds:
    """`max_total_bytes`: of all captures. `max_age_s`: since the last write. `min_free_bytes`: else none begins."""

    max_total_bytes: int = sys.maxsize
    max_age_s: float = math.inf
    min_free_bytes: int = 0


def free_bytes(folder: Path) -> int:
    """Of the disk that `folder` is on, or will be, for users who are not root. Raises OSError."""
    found = os.statvfs(next(one for one in (folder, *folder.parents) if one.exists()))
    return found.f_bavail * found.f_frsize


class CaptureKeeper:
    """`keep` belongs to the writer's thread; `has_room` is read by the event loop.

    Args:
        free: how much of the disk is free, bytes.
    Attributes:
        has_room: a new capture may begin.
        total_bytes: of all captures, as of the last look and what the writer has added to it since.
    """

    def __init__(
        self,
        folder: Path,
        bounds: CaptureBounds,
        clock: Clock,
        metrics: Metrics,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.has_room = True
        self.total_bytes = 0
        self._folder = folder
        self._bounds = bounds
        self._clock = clock
        self._metrics = metrics
        self._free = free
        self._look_ns = self._tidy_ns = self._sooner_ns = 0

    def keep(self) -> None:
        """Whatever is due; a comparison when nothing is."""
        now_ns = self._clock.now_ns()
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + int(LOOK_S * 1e9)
            self.look()
        too_much = self.total_bytes > self._bounds.max_total_bytes
        if now_ns >= (self._sooner_ns if too_much else self._tidy_ns):
            is_done = self.tidy()
            self._sooner_ns = now_ns + int(MIN_TIDY_S * 1e9) if is_done else 0
            self._tidy_ns = now_ns + int(TIDY_S * 1e9) if is_done else 0

    def look(self) -> None:
        """Is there room for a new capture? What changes is logged, once."""
        least = self._bounds.min_free_bytes
        try:
            free = self._free(self._folder)
        except OSError as error:
            log.warning("free disk is not known: %s", error, extra={"event": "capture_disk"})
            return
        if self.has_room and free < least:
            self.has_room = False
            text = "no new capture begins: %d bytes of the disk are free, %d are asked for"
            log.warning(text, free, least, extra={"event": "capture_disk_low", "free_bytes": free})
        elif not self.has_room and free >= least * ROOM_AGAIN:
            self.has_room = True
            log.info("captures begin again", extra={"event": "capture_disk_ok", "free_bytes": free})

    def tidy(self) -> bool:
        """Delete what is too old or too much, the oldest first. False: more than goes in one turn is left to delete."""
        bounds, now_s = self._bounds, self._clock.wall_s()
        total, gone, freed = 0, 0, 0

        def finished() -> Iterator[tuple[float, int, str]]:
            nonlocal total
            for changed_s, size, name in _captures(self._folder):
                total += size
                if changed_s < now_s - SETTLE_S:
                    yield changed_s, size, name

        try:
            oldest = heapq.nsmallest(BATCH, finished())
        except OSError as error:
            log.warning("captures cannot be looked at: %s", error, extra={"event": "capture_folder"})
            return True
        limit = bounds.max_total_bytes
        if total > limit:
            limit = int(limit * LOW_WATER)
        is_done = True
        for changed_s, size, name in oldest:
            is_old = changed_s < now_s - bounds.max_age_s
            if not is_old and total - freed <= limit:
                break
            if _delete(self._folder / name):
                gone, freed = gone + 1, freed + size
                self._metrics.captures_deleted.labels("age" if is_old else "total").inc()
        else:
            is_done = len(oldest) < BATCH or not gone
        self.total_bytes = total - freed
        self._metrics.capture_bytes.set(self.total_bytes)
        if gone:
            log.info("%d captures deleted, %d bytes", gone, freed, extra={"event": "captures_deleted"})
        return is_done


def _captures(folder: Path) -> Iterator[tuple[float, int, str]]:
    """(last write, bytes, name) of each capture in it. Raises OSError."""
    if not folder.exists():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # another process was first
                if stat.S_ISREG(found.st_mode):
                    yield found.st_mtime, found.st_size, entry.name


def _delete(path: Path) -> bool:
    """False when it is being written, or cannot be deleted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(fd)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    except OSError as error:
        log.warning("a capture cannot be deleted: %s", error, extra={"event": "capture_folder"})
        return False
    return True
