"""From synthesised audio to the carrier: convert, queue, pace, mark, clear.

    AudioChunk ─► resample ─► G.711 ─► [ queue, ≤ 8 s ] ─► chunks of whole frames ─► socket
                                                       └─► one mark behind each clause

The carrier's buffer is kept at the lead; the rest stays here, so that `clear` loses at most the lead. Each mark
carries a generation: what comes back from before a clear proves nothing (Twilio returns all marks on clear).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from audio_native.g711 import bytes_to_pcma, bytes_to_pcmu, pcma_to_bytes, pcmu_to_bytes
from audio_native.resample import Resampler
from providers.base import AudioFormat, Encoding
from server.call.pacer import TICK_NS, Pacer
from server.clock import Clock
from server.dialogue import event as ev
from server.turn.playout import NS_PER_S, PlayoutClock
from server.wire.event import Codec, MediaFormat, Wire

FRAME_MS = 20
# Unsent audio beyond this makes the synthesiser wait.
HIGH_WATER_MS = 8000
# Bytes in the socket that stand for 400 ms of PCMU in JSON; more means that the peer does not read.
MAX_SOCKET_BYTES = 16_384
# A mark that has not come back this long after its audio should have ended is given up.
MARK_GRACE_NS = NS_PER_S
# Below this level (s16) a sample is not audible: the first sound counts from the first sample above it.
SILENCE = {"PCMU": b"\xff", "PCMA": b"\xd5", "L16": b"\x00\x00", "S16": b"\x00\x00"}


class MediaSink(Protocol):
    """The socket, as far as sending needs it. `send_media` takes audio, `send_control` marks and clears."""

    @property
    def buffered_bytes(self) -> int: ...

    def send_media(self, message: bytes) -> None: ...

    def send_control(self, message: bytes) -> None: ...


class _Marked:
    """A clause whose mark is out: `end_ns` is when its audio should have been played."""

    __slots__ = ("clause_no", "end_ns")

    def __init__(self, clause_no: int, end_ns: int) -> None:
        self.clause_no = clause_no
        self.end_ns = end_ns


class Downlink:
    """One stream's way out. `dispatch` takes the events FirstSent, SpeechRendered and PlayoutFinished."""

    __slots__ = (
        "_announced",
        "_chunk_bytes",
        "_clause_samples",
        "_clock",
        "_converter",
        "_dispatch",
        "_enough_ns",
        "_fmt",
        "_frame_bytes",
        "_generation",
        "_is_open",
        "_marks",
        "_on_lateness",
        "_pacer",
        "_queue",
        "_queued_bytes",
        "_room",
        "_sink",
        "_talking",
        "_width",
        "_wire",
        "frames_out",
        "playout",
    )

    def __init__(
        self,
        *,
        wire: Wire,
        fmt: MediaFormat,
        sink: MediaSink,
        pacer: Pacer,
        clock: Clock,
        dispatch: Callable[[ev.Event], None],
        on_lateness: Callable[[float], None],
        lead_ms: int = 200,
        chunk_ms: int = 100,
    ) -> None:
        self._wire = wire
        self._fmt = fmt
        self._sink = sink
        self._pacer = pacer
        self._clock = clock
        self._dispatch = dispatch
        self._on_lateness = on_lateness
        self._width = len(SILENCE[fmt.codec])
        self._frame_bytes = fmt.rate_hz * FRAME_MS // 1000 * self._width
        self._chunk_bytes = chunk_ms // FRAME_MS * self._frame_bytes
        chunk_ns = self._chunk_bytes // self._width * NS_PER_S // fmt.rate_hz
        # One tick early, so that the buffer at the carrier does not sink below lead − chunk between ticks.
        self._enough_ns = lead_ms * 1_000_000 - chunk_ns + TICK_NS
        self._queue: deque[tuple[int, bytes, bool]] = deque()
        self._queued_bytes = 0
        self._clause_samples = 0
        self._generation = 0
        self._announced = 0
        self._marks: deque[_Marked] = deque()
        self._talking = False
        self._is_open = True
        self._converter: Converter | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.playout = PlayoutClock(fmt.rate_hz)
        self.frames_out = 0

    # ── filling ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def audio_format(self) -> AudioFormat:
        """What costs least to send: the carrier's own format, or the nearest that providers know."""
        return wire_format(self._fmt)

    def begin_clause(self) -> None:
        self._clause_samples = 0

    async def wait_room(self) -> None:
        """Wait until less than the high-water mark is queued: back-pressure on the synthesiser."""
        await self._room.wait()

    def push(self, clause_no: int, audio: bytes, source: AudioFormat) -> None:
        """Queue audio of `clause_no`; send what is due at once. The format may change within a clause."""
        tail = b""
        if self._converter is None or self._converter.source != source:
            tail = self._converter.flush() if self._converter is not None else b""
            self._converter = Converter(source, self._fmt)
        self._put(clause_no, tail + self._converter.convert(audio), last=False)

    def end_clause(self, clause_no: int) -> None:
        """The clause is complete: flush the filter, fill up the last frame, let the mark follow."""
        tail = self._converter.flush() if self._converter is not None else b""
        short = -(self._clause_samples * self._width + len(tail)) % self._frame_bytes
        self._put(clause_no, tail + SILENCE[self._fmt.codec] * (short // self._width), last=True)
        self._dispatch(ev.SpeechRendered(clause_no, self._clause_samples))

    def _put(self, clause_no: int, coded: bytes, *, last: bool) -> None:
        if not coded and not last:
            return
        self._clause_samples += len(coded) // self._width
        self._queue.append((clause_no, coded, last))
        self._queued_bytes += len(coded)
        if self._queued_bytes >= HIGH_WATER_MS * self._frame_bytes // FRAME_MS:
            self._room.clear()
        self._pacer.add(self)
        self._send_due(self._clock.now_ns())

    # ── pacing ────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now_ns: int) -> bool:
        # Four of five ticks find nothing due: what tells so comes first, and costs as little as it can.
        if self._queue:
            self._send_due(now_ns)
        if self._marks:
            self._give_up_marks(now_ns)
        return self._is_open and bool(self._queue or self._marks)

    def _send_due(self, now_ns: int) -> None:
        while self._queue and self._is_open:
            buffered_ns = self.playout.buffered_ns(now_ns)
            if self._talking and buffered_ns > self._enough_ns:
                break
            if self._sink.buffered_bytes >= MAX_SOCKET_BYTES or not self._send_chunk(now_ns, buffered_ns):
                break
        if not self._room.is_set() and self._queued_bytes < HIGH_WATER_MS * self._frame_bytes // FRAME_MS:
            self._room.set()

    def _send_chunk(self, now_ns: int, buffered_ns: int) -> bool:
        """Send one chunk of one clause. Returns False when less than a whole frame is there yet."""
        clause_no, _, _ = self._queue[0]
        parts: list[bytes] = []
        size, last = 0, False
        while self._queue and size < self._chunk_bytes and not last and self._queue[0][0] == clause_no:
            _, coded, last = self._queue.popleft()
            parts.append(coded)
            size += len(coded)
        payload = b"".join(parts)
        take = min(len(payload), self._chunk_bytes)
        take -= take % self._frame_bytes
        rest = payload[take:]
        if rest or (last and not take and payload):
            self._queue.appendleft((clause_no, rest, last))
            last = False
        if take:
            first = not self._talking
            if not first:
                self._on_lateness(max(0, self._enough_ns - TICK_NS - buffered_ns) / 1e9)
            self._sink.send_media(self._wire.media(payload[:take]))
            self.playout.sent(clause_no, take // self._width, now_ns, first=first)
            self.frames_out += take // self._frame_bytes
            self._queued_bytes -= take
            if first:
                self._talking = True
            if clause_no != self._announced:
                self._announced = clause_no
                self._dispatch(ev.FirstSent(clause_no))
        if last:
            self._mark(clause_no)
        return bool(take or last)

    def _mark(self, clause_no: int) -> None:
        self._sink.send_control(self._wire.mark(f"g{self._generation}:{clause_no}"))
        self._marks.append(_Marked(clause_no, self.playout.free_ns()))

    # ── what the carrier says ─────────────────────────────────────────────────────────────────────────────────

    def on_mark(self, name: str) -> None:
        """A mark came back. Those of a cleared generation, and strangers, prove nothing."""
        generation, _, number = name.partition(":")
        if generation != f"g{self._generation}" or not number.isdigit():
            return
        clause_no = int(number)
        if any(one.clause_no == clause_no for one in self._marks):
            self.playout.marked(clause_no, self._clock.now_ns())
            # Marks come back in the order in which they were sent; those before it were lost on the way.
            while self._marks:
                passed = self._marks.popleft().clause_no
                self._finish(passed, by_mark=True)
                if passed == clause_no:
                    break

    def _give_up_marks(self, now_ns: int) -> None:
        while self._marks and now_ns > self._marks[0].end_ns + MARK_GRACE_NS:
            self._finish(self._marks.popleft().clause_no, by_mark=False)

    def _finish(self, clause_no: int, *, by_mark: bool) -> None:
        if not self._queue and not self._marks:
            # The utterance is over: the silence that follows is meant.
            self._talking = False
        self._dispatch(ev.PlayoutFinished(clause_no, by_mark))

    def close(self) -> None:
        """The stream is over: nothing more is sent. What was heard can still be asked for by `clear`."""
        self._is_open = False

    def clear(self) -> ev.PlayoutCleared:
        """Drop everything that has not been played; say how much was."""
        self._generation += 1
        self._queue.clear()
        self._queued_bytes = 0
        self._marks.clear()
        self._talking = False
        self._converter = None
        self._room.set()
        if self._is_open:
            self._sink.send_control(self._wire.clear())
        heard = self.playout.clear(self._clock.now_ns())
        return ev.PlayoutCleared(tuple((one.clause_no, one.heard_samples, one.sent_samples) for one in heard))


def wire_format(fmt: MediaFormat) -> AudioFormat:
    """The carrier's format in the words of the providers; L16 differs in byte order only."""
    return AudioFormat(_ENCODINGS[fmt.codec], fmt.rate_hz)


def swap16(s16: bytes) -> bytes:
    """Host order <-> network order (RFC 3551, L16)."""
    swapped = bytearray(s16)
    swapped[0::2], swapped[1::2] = s16[1::2], s16[0::2]
    return bytes(swapped)


_ENCODINGS: dict[Codec, Encoding] = {"PCMU": "pcmu", "PCMA": "pcma", "S16": "s16", "L16": "s16"}
_ENCODERS: dict[Codec, Callable[[bytes], bytes]] = {
    "PCMU": bytes_to_pcmu,
    "PCMA": bytes_to_pcma,
    "S16": bytes,
    "L16": swap16,
}
_DECODERS: dict[str, Callable[[bytes], bytes]] = {"s16": bytes, "pcmu": pcmu_to_bytes, "pcma": pcma_to_bytes}
_SAME = {("pcmu", "PCMU"), ("pcma", "PCMA"), ("s16", "S16")}


class Converter:
    """Audio of one format into the carrier's, streaming; untouched where they are equal."""

    __slots__ = ("_decode", "_encode", "_half", "_resampler", "_same", "source")

    def __init__(self, source: AudioFormat, target: MediaFormat) -> None:
        self.source = source
        self._same = (source.encoding, target.codec) in _SAME and source.rate_hz == target.rate_hz
        self._decode = _DECODERS[source.encoding]
        self._encode = _ENCODERS[target.codec]
        self._resampler = Resampler(source.rate_hz, target.rate_hz) if source.rate_hz != target.rate_hz else None
        self._half = b""

    def convert(self, audio: bytes) -> bytes:
        if self._half:
            audio = self._half + audio
        whole = len(audio) - len(audio) % self.source.bytes_per_sample
        self._half, audio = audio[whole:], audio[:whole]
        if self._same:
            return audio
        s16 = self._decode(audio)
        return self._encode(self._resampler.process(s16) if self._resampler is not None else s16)

    def flush(self) -> bytes:
        """What the filter still holds; the next audio starts from silence."""
        self._half = b""
        return b"" if self._resampler is None or self._same else self._encode(self._resampler.flush())
