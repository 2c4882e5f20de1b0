"""The capture of a call: all that came in and was decided, each with its instant, in one file. Replay reads it.

    session ─► Capture (records in memory) ─every two seconds, all calls together─► thread: compress ─► DATA_DIR/capture
                  ▲ tape: media messages and scores, written natively

Nothing here makes a call wait or fail. A disk that refuses ends the capture; one that hangs fills a bounded buffer and
then ends it too; a file at its largest says that it is truncated, and server/call/capture_keeper.py keeps the folder
within its bounds. Audio is kept only where the agent's settings say so.
Secrets are removed before anything is kept: custom parameters and tokens from messages, pressed keys unless the agent
keeps them (server/call/keymask.py), arguments of tools that are not kept on record (server/call/toolmask.py), the
server's own keys from all of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import re
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson

from audio_native.tape import Tape
from server.agent.settings import AgentSettings
from server.call.capture_file import (
    AUDIO,
    END,
    FRAME_BYTES,
    HEAD,
    MAGIC,
    NOTE,
    OF_TAPE,
    STEP,
    SUFFIX,
    TEXT,
    VERSION,
    block,
    compressor,
    frame,
    of_tape,
    tape_block,
)
from server.call.capture_keeper import LOOK_S, CaptureBounds, CaptureKeeper
from server.call.keymask import KeyMask
from server.call.scrub import REMOVED, scrubbed
from server.call.toolmask import ToolMask
from server.clock import Clock
from server.dialogue import event as ev
from server.metrics import Metrics
from server.wire.event import MediaFormat

log = logging.getLogger(__name__)

# How much of a call a crash costs. Half as often is half of the thread's work, which is a third of all that it costs.
FLUSH_S = 2.0
# A call that gathers more than this between two flushes is handed over early.
HAND_OVER_BYTES = 64 * 1024
# Of all calls, uncompressed, in memory: what a hanging disk may hold back.
MAX_WAITING_BYTES = 32 * 1024 * 1024
# Room for the part that says that a file is truncated.
END_BYTES = 128
CLOSE_S = 3.0
_SURROGATE = re.compile("[\ud800-\udfff]")


class Capture:
    """One media stream of one call. `tape` is for its uplink and scorer. Made by `CaptureStore.open`."""

    __slots__ = ("_batch", "_clock", "_file", "_head", "_mask", "_store", "_tools", "is_over", "tape")

    def __init__(
        self, store: CaptureStore, file: _File, clock: Clock, head: dict[str, Any], tools: ToolMask | None
    ) -> None:
        self.tape = Tape(keeps_audio=head["has_audio"])
        self.is_over = False
        self._store = store
        self._file = file
        self._clock = clock
        self._head = head
        self._mask = KeyMask(resumed=head["resumed"]) if head["masks_keys"] else None
        self._tools = tools
        self._batch = _Batch()

    def begin(self, opening: Sequence[bytes]) -> None:
        """`opening`: the carrier's messages up to `start`. Comes before everything else."""
        self._store.add(self)
        texts = [scrubbed(one, keeps_audio=False, keeps_keys=self._mask is None) or "" for one in opening]
        self._add(HEAD, {"capture": VERSION, **self._head, "opening": texts})

    def text(self, message: bytes, *, is_text: bool = True) -> None:
        """A message of the carrier that is no audio."""
        text = None
        if is_text:
            text = scrubbed(message, keeps_audio=self.tape.keeps_audio, keeps_keys=self._mask is None)
        self._add(TEXT, [self.tape.now_ns, text, len(message), is_text])

    def step(self, now_ns: int, event: ev.Event, actions: Sequence[ev.Action]) -> None:
        name, values = type(event).__name__, _fields(event)
        decided = [[type(one).__name__, _fields(one)] for one in actions]
        if self._tools is not None:
            masks_keys = self._mask is not None and self._mask.is_on
            values, decided = self._tools.step(name, values, decided, masks_keys=masks_keys)
        if self._mask is not None:
            values, decided = self._mask.step(name, values, decided)
        self._add(STEP, [now_ns, name, values, decided])

    def audio(self, clause_no: int, size: int, encoding: str, rate_hz: int) -> None:
        """A synthesizer gave `size` bytes for the clause."""
        self._add(AUDIO, [self._clock.now_ns(), clause_no, size, encoding, rate_hz], among_media=False)

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """A provider's event that the conversation is not told of."""
        self._add(NOTE, [self._clock.now_ns(), name, values], among_media=False)

    def close(self, reason: str, counters: Mapping[str, int]) -> None:
        """The stream is over."""
        self._add(END, [self._clock.now_ns(), reason, False, counters])
        self.hand_over()
        if not self.is_over:
            self._stop(is_whole=True)

    def hand_over(self) -> None:
        """Give the writer what there is."""
        if self.is_over:
            return
        self._take_tape()
        if not self._batch.size:
            return
        batch, self._batch = self._batch, _Batch()
        if self._file.is_closed or self.tape.lost or not self._store.take(self._file, batch):
            self._stop(is_whole=False)

    def _stop(self, *, is_whole: bool) -> None:
        self.is_over = True
        self._batch = _Batch()
        self.tape.close()
        self._store.end(self, self._file, is_whole=is_whole)

    def _add(self, kind: int, values: Any, *, among_media: bool = True) -> None:
        """`among_media`: its place between media messages matters, so those before it are put before it."""
        if self.is_over:
            return
        if among_media:
            self._take_tape()
        self._batch.add(frame(kind, _encoded(values)))
        if self._batch.size > HAND_OVER_BYTES:
            self.hand_over()

    def _take_tape(self) -> None:
        noted = self.tape.take()
        if noted:
            self._batch.tape.append(noted)
            self._batch.size += len(noted)
            self._batch.add(of_tape(len(noted)))


# By orjson itself, which looks for a __dict__ first, the same takes twice as long.
_NAMES = {kind: tuple(one.name for one in fields(kind)) for kind in (*ev.Event.__args__, *ev.Action.__args__)}


def _fields(one: ev.Event | ev.Action) -> Mapping[str, Any]:
    return {name: getattr(one, name) for name in _NAMES[type(one)]}


def _encoded(values: Any) -> bytes:
    try:
        return orjson.dumps(values)
    except TypeError:
        # A lone surrogate in a text (a recogniser's or a model's) must not cost the call.
        return orjson.dumps(_whole(values))


def _whole(value: Any) -> Any:
    """The same with each lone surrogate, which has no form in UTF-8, as the character that stands for what is none."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_whole(name): _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list | tuple) else value


class _Batch:
    """What one call has for the disk: whole records, and the tape that some of them speak of. `size` in bytes."""

    __slots__ = ("records", "size", "tape")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.tape: list[bytes] = []
        self.size = 0

    def add(self, record: bytes) -> None:
        self.records.append(record)
        self.size += len(record)


class _File:
    """Belongs to the thread, but for `is_closed`, which the loop reads."""

    __slots__ = ("_compress", "_fd", "_left_bytes", "_max_bytes", "is_closed", "path")

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.is_closed = False
        self._fd = -1
        self._max_bytes = max_bytes
        self._left_bytes = 0
        self._compress = compressor()

    def write(self, records: bytes, tape: bytes) -> int:
        """Returns by how much the file has grown, bytes."""
        if self.is_closed:
            return 0
        before = self._left_bytes
        try:
            if self._fd < 0:
                before = self._begin()
            packed = (tape_block(tape) if tape else b"") + _packed(self._compress, records)
            if len(packed) > self._left_bytes - END_BYTES:
                log.info("capture is truncated: %s", self.path.name, extra={"event": "capture_truncated"})
                self.close(is_whole=False)
            else:
                self._append(packed)
        except OSError as error:
            log.warning("capture ended: %s", error, extra={"event": "capture_failed"})
            self.close(is_whole=False)
        return before - self._left_bytes

    def close(self, *, is_whole: bool) -> None:
        """`is_whole`: nothing was lost; else the file says so, where the disk lets it."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._fd < 0:
            return
        try:
            if not is_whole:
                # A part of its own, because the deflated stream before it went on without being written.
                self._append(MAGIC + _packed(compressor(), frame(END, orjson.dumps([0, "", True, {}]))))
        except OSError:
            pass  # what is there is read up to its last whole record
        os.close(self._fd)
        self._fd = -1

    def _begin(self) -> int:
        """Returns how much there is room for, bytes."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            # What is locked is not deleted; what was being deleted just now, by another process, is begun anew.
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            found = os.fstat(self._fd)
            if found.st_nlink:
                break
            os.close(self._fd)
        room = self._left_bytes = self._max_bytes - found.st_size
        if room > END_BYTES:
            self._append(MAGIC)
        return room

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._left_bytes -= len(data)


def _packed(compress: zlib._Compress, records: bytes) -> bytes:
    return block(compress.compress(records) + compress.flush(zlib.Z_SYNC_FLUSH))


class CaptureStore:
    """The captures of one process: a timer of the event loop gathers, a thread writes. `start` it, `close` it.

    Attributes:
        refused: captures that ended because too much waited for the disk.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        secrets: Iterable[str] = (),
        bounds: CaptureBounds | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`bounds`: of the whole folder; None: it has none."""
        self.folder = folder
        self.refused = 0
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._keeper = CaptureKeeper(folder, bounds or CaptureBounds(), clock, self._metrics)
        # Texts that a provider's error may hold; as they stand in JSON.
        self._secrets = tuple(orjson.dumps(one)[1:-1] for one in secrets if len(one) >= 4)
        self._open: dict[Capture, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        # Each counter has one writer, the loop or the thread; their difference is what waits.
        self._taken_bytes = 0
        self._written_bytes = 0
        # A batch for the file, or the news that it is over: whole or not.
        self._queue: queue.SimpleQueue[tuple[_File, _Batch | bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)

    def start(self) -> None:
        self._keeper.look()
        self._thread.start()

    def close(self) -> None:
        """Write what waits; a disk that hangs is left alone after CLOSE_S."""
        for one in [*self._open]:
            one.hand_over()
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def open(
        self,
        settings: AgentSettings,
        *,
        call_id: str,
        carrier: str,
        stream_id: str,
        fmt: MediaFormat,
        scored: bool,
        may_reorder: bool,
        resumed: bool,
    ) -> Capture | None:
        """The capture of a stream; None where the agent's settings want none, or the disk is nearly full."""
        wanted = settings.capture
        if not wanted.enabled:
            return None
        if not self._keeper.has_room:
            self._metrics.captures_skipped.inc()
            return None
        head = {
            "call_id": call_id, "carrier": carrier, "stream_id": stream_id, "codec": fmt.codec, "rate_hz": fmt.rate_hz,
            "has_audio": wanted.audio, "scored": scored, "may_reorder": may_reorder, "resumed": resumed,
            "masks_keys": not wanted.keys, "settings": settings.as_dict(),
        }  # fmt: skip
        file = _File(self.folder / f"{call_id}{SUFFIX}", wanted.max_bytes)
        return Capture(self, file, self._clock, head, ToolMask(settings.tools) if settings.tools else None)

    def add(self, capture: Capture) -> None:
        """It has begun: gather what it has, every FLUSH_S."""
        self._open[capture] = None
        if self._timer is None:
            self._arm()

    def take(self, file: _File, batch: _Batch) -> bool:
        """Queue a batch for the disk. False when too much waits already."""
        if self._taken_bytes - self._written_bytes + batch.size > MAX_WAITING_BYTES:
            self.refused += 1
            return False
        self._taken_bytes += batch.size
        self._queue.put((file, batch))
        return True

    def end(self, capture: Capture, file: _File, *, is_whole: bool) -> None:
        """Nothing more comes of this one."""
        self._open.pop(capture, None)
        self._queue.put((file, is_whole))
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._gather)

    def _gather(self) -> None:
        self._timer = None
        for one in [*self._open]:
            one.hand_over()
        if self._open:
            self._arm()

    # ── the writer thread ─────────────────────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        while True:
            self._keeper.keep()
            try:
                item = self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if item is None:
                return
            file, content = item
            if isinstance(content, bool):
                file.close(is_whole=content)
                continue
            records = b"".join(content.records)
            if any(secret in records for secret in self._secrets):
                records = b"".join(self._without_secrets(one) for one in content.records)
            self._keeper.total_bytes += file.write(records, b"".join(content.tape))
            self._written_bytes += content.size

    def _without_secrets(self, record: bytes) -> bytes:
        kind, body = record[0], record[FRAME_BYTES:]
        if kind == OF_TAPE:
            return record
        for secret in self._secrets:
            body = body.replace(secret, REMOVED.encode())
        return frame(kind, body)
