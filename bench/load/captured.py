"""The caller of captured calls, as clips: what was received, put in order again and split into turns by its energy.

    records ─→ H (codec), M (tape of messages) ─→ by chunk, gaps filled with silence ─→ 8000 Hz ─→ turns ─→ clips

The format is read by code of the bench's own (docs/replay.md, audio_native/tape.pyx), as a carrier's WAV is. A part of
a capture, one for each media stream of the call, is a line of its own: a break between two streams ends a turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.load.capture import HEAD, MARK, TAPE, CaptureUnreadable, records
from bench.load.clips import MAX_RECORDING_BYTES, RecordingError, turns
from bench.sim.sound import RATE_HZ, Clip, at_8khz, audioop, to_pcmu

SUFFIX = ".capture"
MAX_CAPTURES = 1000
VERSIONS = (1, 2)
MEDIA, BAD, SCORE, NEXT, FLAT = 1, 2, 3, 4, 8
"""Tags of a tape. NEXT: the chunk after the last, as much later and as long; FLAT besides: one code for the payload."""
USUAL_STEP_MS = 20
MAX_PAYLOAD_BYTES = 65536
MIN_GAP_MS = 60
"""Timestamps of messages are a little off; from here on something is missing."""
MAX_GAP_MS = 10_000
"""More silence than this only separates turns; a timestamp may be any number."""
MAX_LINE_BYTES = 512 << 20
WIDTHS = {"PCMU": 1, "PCMA": 1, "L16": 2, "S16": 2}
SILENCE = {"PCMU": b"\xff", "PCMA": b"\xd5", "L16": b"\x00", "S16": b"\x00"}


@dataclass(slots=True)
class Line:
    """The caller's audio of one media stream. `messages`: chunk number -> (timestamp, ms; payload)."""

    codec: str
    rate_hz: int
    messages: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, chunk: int, timestamp_ms: int, payload: bytes) -> None:
        """Raises CaptureUnreadable beyond MAX_LINE_BYTES."""
        whole = payload[: len(payload) // WIDTHS[self.codec] * WIDTHS[self.codec]]
        self.messages.setdefault(chunk, (timestamp_ms, whole))
        self.size_bytes += len(whole)
        if self.size_bytes > MAX_LINE_BYTES:
            raise CaptureUnreadable("longer than calls are")

    def s16(self) -> bytes:
        """Samples in host order at `rate_hz`; the first of two messages with one number counts."""
        per_ms = self.rate_hz * WIDTHS[self.codec] / 1000
        coded = bytearray()
        due_ms = 0.0
        for _, (timestamp_ms, payload) in sorted(self.messages.items()):
            missing_ms = min(timestamp_ms - due_ms, MAX_GAP_MS) if coded else 0
            if missing_ms >= MIN_GAP_MS:
                coded += SILENCE[self.codec] * (int(missing_ms) * self.rate_hz // 1000 * WIDTHS[self.codec])
            coded += payload
            if len(coded) > MAX_LINE_BYTES:
                raise CaptureUnreadable("longer than calls are")
            due_ms = timestamp_ms + len(payload) / per_ms
        if self.codec == "PCMU":
            return bytes(audioop.ulaw2lin(bytes(coded), 2))
        if self.codec == "PCMA":
            return bytes(audioop.alaw2lin(bytes(coded), 2))
        return bytes(audioop.byteswap(bytes(coded), 2)) if self.codec == "L16" else bytes(coded)


def is_captured(path: Path) -> bool:
    """Whether `path` is a folder of captures or one of them, and no WAV. Raises OSError: not readable."""
    if path.is_dir() or path.suffix == SUFFIX:
        return True
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK


def from_captures(path: Path) -> list[Clip]:
    """The caller's turns of one capture, or of all in a folder, by name.

    Raises:
        RecordingError: none there, one is damaged or without audio, or nobody speaks. OSError: not readable.
    """
    paths = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not paths:
        raise RecordingError(f"{path}: no *{SUFFIX} in this folder")
    if len(paths) > MAX_CAPTURES:
        raise RecordingError(f"{path}: {len(paths)} captures; at most {MAX_CAPTURES}")
    clips = [clip for one in paths for clip in _clips(one)]
    if not clips:
        raise RecordingError(f"{path}: the caller does not speak")
    return clips


def _clips(path: Path) -> Iterator[Clip]:
    if path.stat().st_size > MAX_RECORDING_BYTES:
        raise RecordingError(f"{path}: larger than {MAX_RECORDING_BYTES >> 20} MiB")
    try:
        for number, line in enumerate(lines(path.read_bytes()), 1):
            samples = at_8khz(line.s16(), line.rate_hz)
            for begin, end in turns(np.frombuffer(samples, "<i2")):
                where = f"{path.name} stream {number} {begin / RATE_HZ:.2f} s"
                yield Clip.from_pcmu(to_pcmu(samples[2 * begin : 2 * end]), text=where, source=f"capture {where}")
    except CaptureUnreadable as error:
        raise RecordingError(f"{path}: {error}") from None


def lines(raw: bytes) -> Iterator[Line]:
    """The caller's audio of each stream that has any.

    Raises:
        CaptureUnreadable: no capture, damaged, of another version, or made without audio.
    """
    line: Line | None = None
    for kind, body in records(raw):
        if kind == HEAD:
            if line is not None and line.messages:
                yield line
            line = _line(body)
        elif kind == TAPE:
            if line is None:
                raise CaptureUnreadable("damaged: a stream does not begin with what the call was made from")
            for chunk, timestamp_ms, payload in media(body):
                line.add(chunk, timestamp_ms, payload)
    if line is None:
        raise CaptureUnreadable("nothing of it can be read")
    if line.messages:
        yield line


def _line(body: bytes) -> Line:
    try:
        head = json.loads(body)
        version, has_audio, codec, rate_hz = head["capture"], head["has_audio"], head["codec"], int(head["rate_hz"])
    except (ValueError, KeyError, TypeError) as error:
        raise CaptureUnreadable(f"damaged: {error!r:.80}") from None
    if version not in VERSIONS:
        raise CaptureUnreadable(f"a capture of version {version!r:.20}; expected {' or '.join(map(str, VERSIONS))}")
    if has_audio is not True:
        raise CaptureUnreadable("no audio in it: the agent's capture.audio was off during this call")
    if codec not in WIDTHS or not 8000 <= rate_hz <= 48_000:
        raise CaptureUnreadable(f"{codec!r:.20} at {rate_hz} Hz; expected {', '.join(WIDTHS)} at 8000 to 48000")
    return Line(codec, rate_hz)


def media(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(chunk, timestamp in ms, payload) of each media message of one block of tape with audio.

    Raises:
        CaptureUnreadable: it is none, or cut.
    """
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while at < len(block) and shift < 64:
            byte = block[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise CaptureUnreadable("damaged: a number of the tape has no end")

    def difference() -> int:
        folded = number()
        return (folded >> 1) ^ -(folded & 1)

    chunk = timestamp_ms = size = 0
    step_ms, is_first = USUAL_STEP_MS, True
    while at < len(block):
        tag = block[at]
        at += 1
        difference()  # the arrival
        if tag == SCORE:
            at += 1
            continue
        if tag == BAD:
            continue
        if tag & ~FLAT == MEDIA:
            chunk += difference()
            moved_ms = difference()
            size = number()
            # The first timestamp of a block is counted from zero, which says nothing about the next.
            step_ms, is_first = step_ms if is_first else moved_ms, False
        elif tag & ~FLAT == NEXT and not is_first:
            chunk += 1
            moved_ms = step_ms
        else:
            raise CaptureUnreadable(f"damaged: tag {tag} is none of the tape's")
        timestamp_ms += moved_ms
        kept = 1 if tag & FLAT else size
        if kept > len(block) - at or size > MAX_PAYLOAD_BYTES:
            raise CaptureUnreadable("damaged: a payload of the tape is cut, or longer than any")
        payload = block[at : at + kept]
        yield chunk, timestamp_ms, payload * size if tag & FLAT else payload
        at += kept
