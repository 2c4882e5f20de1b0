"""The local log that every fact reaches first, in good times and bad.

    call ─append_nowait─► bounded queue ─► writer thread ─group commit─► segment files ─► shipper ─► PostgreSQL

Promise: a fact that `flush` has returned for survives kill -9 of this process and loss of power. The call path
never waits: `append_nowait` costs one JSON encoding. When the queue is full it says no and counts it, and well
before that `is_accepting` turns false, so that no new call is admitted. A failed write or fsync ends the segment;
what was not acknowledged is written again, from memory, to a new one, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from server.store.fact import Fact, encode
from server.store.segment import RECORD_MAX_BYTES, SEGMENT_BYTES, SegmentWriter, frame

log = logging.getLogger(__name__)

GROUP_MS = 20
GROUP_RECORDS = 64
"""A commit takes what came within GROUP_MS of its first record, at most GROUP_RECORDS."""
QUEUE_RECORDS = 10_000
QUEUE_BYTES = 32 * 1024 * 1024
ADMIT_BELOW = 0.8
"""Share of either bound above which `is_accepting` is false: running calls keep the rest."""
RETRY_S = 1.0
"""Between attempts on a disk that refuses two segments in a row."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Spool:
    """The spool of one process life. `start` it before use; `append_nowait` and `flush` belong to one event loop.

    Attributes:
        boot: this life; with `seq` it is the key of a fact.
        durable_seq: all facts up to this one are on disk.
        shipped_seq: all facts up to this one are in PostgreSQL; set by the shipper.
        refused: facts that found the queue full, the spool closed, or were too large. Lost: page somebody.
        write_errors: failed writes and fsyncs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        queue_records: int = QUEUE_RECORDS,
        queue_bytes: int = QUEUE_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        retry_s: float = RETRY_S,
    ) -> None:
        self.folder = folder
        self.boot: UUID = uuid4()
        self.durable_seq = 0
        self.shipped_seq = 0
        self.refused = 0
        self.write_errors = 0
        self.on_durable: Callable[[], None] | None = None
        """Called by the writer thread after each commit; must not block."""
        self._queue_records = queue_records
        self._queue_bytes = queue_bytes
        self._segment_bytes = segment_bytes
        self._retry_s = retry_s
        self._queue: queue.SimpleQueue[tuple[int, bytes] | _Waiter | None] = queue.SimpleQueue()
        self._seq = 0
        # Each counter has one writer, the loop or the thread; their difference is what is waiting.
        self._taken_bytes = 0
        self._written_bytes = 0
        self._is_healthy = True
        self._is_open = False
        self._segment: SegmentWriter | None = None
        self._next_segment = 1
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="spool", daemon=True)
        self._lock_fd = -1

    def start(self) -> None:
        """Make the folder, take the lock that says that this life is not over, start the writer.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Locked before it has its name: a neighbour that looks for ended lives never sees it free.
        path = lock_path(self.folder, self.boot)
        fresh = path.with_suffix(".new")
        self._lock_fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(path)
        self._segment = self._open_segment()
        self._is_open = True
        self._thread.start()

    @property
    def pending(self) -> int:
        """Facts that are in memory only."""
        return self._seq - self.durable_seq

    @property
    def is_accepting(self) -> bool:
        """May a new call begin? False while the disk refuses, or the queue is nearly full."""
        waiting_bytes = self._taken_bytes - self._written_bytes
        return (
            self._is_open
            and self._is_healthy
            and self.pending < ADMIT_BELOW * self._queue_records
            and waiting_bytes < ADMIT_BELOW * self._queue_bytes
        )

    def append_nowait(self, fact: Fact) -> bool:
        """Queue `fact` for the disk. False, counted in `refused`, when there is no room for it."""
        payload = encode(fact)
        waiting_bytes = self._taken_bytes - self._written_bytes
        has_room = self.pending < self._queue_records and waiting_bytes + len(payload) <= self._queue_bytes
        if not self._is_open or not has_room or len(payload) > RECORD_MAX_BYTES:
            self.refused += 1
            if self.refused == 1:
                log.error("the spool refuses facts", extra={"pending": self.pending, "bytes": waiting_bytes})
            return False
        self._seq += 1
        self._taken_bytes += len(payload)
        self._queue.put((self._seq, payload))
        return True

    async def flush(self) -> None:
        """Return when everything appended so far is on disk. Has no deadline: a disk may refuse for long."""
        if not self.pending:
            return
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        self._queue.put(waiter)
        await waiter.done

    def close(self) -> None:
        """Write what is queued, stop the writer, release the lock. Files go when PostgreSQL has all of them.

        A disk that still refuses gets one more attempt; what it does not take is counted in `refused`.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        if self._segment is not None:
            self._segment.close()
        if self.shipped_seq == self._seq:
            for path in self.folder.glob(f"{self.boot.hex}-*.seg"):
                path.unlink()
            lock_path(self.folder, self.boot).unlink(missing_ok=True)
        os.close(self._lock_fd)

    # ── the writer thread ─────────────────────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        stopping = False
        while not stopping:
            batch, waiters, stopping = self._next_group()
            if batch:
                self._commit(batch)
            for waiter in waiters:
                # The loop may be gone; then nobody waits any more.
                with contextlib.suppress(RuntimeError):
                    waiter.loop.call_soon_threadsafe(_resolve, waiter.done)

    def _next_group(self) -> tuple[list[tuple[int, bytes]], list[_Waiter], bool]:
        batch: list[tuple[int, bytes]] = []
        item = self._queue.get()
        deadline = time.monotonic() + GROUP_MS / 1e3
        while True:
            if item is None:
                return batch, [], True
            if isinstance(item, _Waiter):
                return batch, [item], False
            batch.append(item)
            if len(batch) >= GROUP_RECORDS:
                return batch, [], False
            try:
                # Nothing is gained by waiting once nobody may add to the group.
                item = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return batch, [], False

    def _commit(self, batch: list[tuple[int, bytes]]) -> None:
        frames = b"".join(frame(seq, payload) for seq, payload in batch)
        attempt = 0
        while True:
            is_last = self._closing.is_set()
            try:
                if self._segment is None:
                    self._segment = self._open_segment()
                self._segment.commit(frames)
                break
            except OSError as error:
                self._on_write_error(error)
            attempt += 1
            if attempt >= 2:
                self._is_healthy = False
                if is_last:
                    self.refused += len(batch)
                    return
                self._closing.wait(self._retry_s)
        if not self._is_healthy:
            log.warning("the spool can write again", extra={"attempts": attempt + 1})
        self._is_healthy = True
        self._written_bytes += sum(len(payload) for _, payload in batch)
        self.durable_seq = batch[-1][0]
        if self._segment.size_bytes >= self._segment_bytes:
            self._segment.close()
            self._segment = None
        if self.on_durable is not None:
            self.on_durable()

    def _on_write_error(self, error: OSError) -> None:
        self.write_errors += 1
        if self._is_healthy:
            log.error("spool segment failed, going on in a new one", extra={"error": str(error)})
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _open_segment(self) -> SegmentWriter:
        segment = SegmentWriter(self.folder, self.boot, self._next_segment)
        self._next_segment += 1
        return segment


def lock_path(folder: Path, boot: UUID) -> Path:
    """The file whose flock a living process holds."""
    return folder / f"{boot.hex}.lock"


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
