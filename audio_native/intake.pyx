"""Payloads become the stream's samples, each once and at its place in time.

    payload ─► Order: is it next? ─► media_time: silence before it? ─► s16 ─► Talkspurt.listen
                by chunk number       by the carrier's clock            └───► ring (the coded bytes)

Guarantees: media time counts every sample once, whatever the order, loss or repetition of payloads; nothing raises
for what a peer sends. Thread: one, the event loop's; the scratch is shared.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int64_t, uint8_t, uint64_t

from audio_native.media_time cimport (
    time_ahead, time_anchor, time_checked, time_is_off, time_missing, time_settle,
)
from audio_native.order cimport ANEW, NOT_NOW, Order, is_next
from audio_native.ring cimport WireRing
from audio_native.talkspurt cimport Talkspurt
from audio_native.wire_codec cimport PIECE, codec_of, width_of, wire_silence, wire_to_s16

# Shared by all calls of the process: written and read within one call of place, under the GIL.
cdef int16_t _scratch[PIECE + 64]


cdef class Intake:
    """One stream's.

    Args:
        codec, rate_hz: of the payloads, as Uplink has them.
        order, talkspurt, ring: of this stream alone.
    Attributes:
        frames: payloads that were stored; gap_samples: silence that was filled in.
    """

    def __init__(
        self, str codec, int rate_hz, Order order not None, Talkspurt talkspurt not None, WireRing ring not None
    ):
        self._codec = codec_of(codec)
        self._width = width_of(self._codec)
        self._time.rate_hz = rate_hz
        self._order = order
        self._talkspurt = talkspurt
        self._ring = ring

    cdef int place(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        cdef int verdict, flags = 0
        if is_next(self._order, chunk):
            return self._store(coded, size, chunk, timestamp_ms)
        verdict = self._order.place(coded, size, chunk, timestamp_ms)
        if verdict == ANEW:
            time_anchor(&self._time, time_checked(&self._time, timestamp_ms), position_of(self))
        if verdict != NOT_NOW:
            flags = self._store(coded, size, chunk, timestamp_ms)
        return flags | self.release(False)

    cdef int release(self, bint at_end) except -1:
        cdef int flags = 0
        cdef bytes payload
        while self._order.held:
            held = self._order.pop(at_end)
            if held is None:
                break
            chunk, timestamp_ms, payload = held
            flags |= self._store(
                <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), chunk, timestamp_ms
            )
        return flags

    cdef int _store(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        """The next payload in order: silence for what is missing before it, then itself."""
        cdef int64_t at_ms = time_checked(&self._time, timestamp_ms), ahead
        cdef uint64_t expected = self._order.next_chunk
        cdef int flags = 0
        if expected == 0:
            time_anchor(&self._time, at_ms, position_of(self))
        ahead = time_ahead(&self._time, at_ms, position_of(self))
        if chunk != expected or time_is_off(&self._time, ahead):
            flags = self._fill(time_missing(&self._time, at_ms, ahead, chunk - expected if chunk > expected > 0 else 0))
            time_settle(&self._time, at_ms, position_of(self))
        flags |= self._take_in(coded, size // self._width, False)
        self.frames += 1
        self._order.next_chunk = chunk + 1
        self._time.last_samples = size // self._width
        self._time.last_ms = at_ms
        return flags

    cdef int _fill(self, int64_t missing) except -1:
        """Silence, so that media time goes on as the caller's did."""
        cdef Py_ssize_t piece
        cdef int flags = 0
        self.gap_samples += <uint64_t>missing
        while missing > 0:
            piece = <Py_ssize_t>min(missing, PIECE)
            flags |= self._take_in(wire_silence(self._codec), piece, True)
            missing -= piece
        return flags

    cdef int _take_in(self, const uint8_t* coded, Py_ssize_t n, bint is_filling) except -1:
        """The next `n` samples of the stream: listen to them, keep them."""
        cdef Py_ssize_t piece
        cdef int flags = 0
        while n > 0:
            piece = min(n, PIECE)
            # Safety: piece <= PIECE, the room of the scratch.
            wire_to_s16(self._codec, coded, _scratch, piece)
            flags |= self._talkspurt.listen(_scratch, piece, is_filling)
            # Last: the ring's memory is the coldest, and nothing waits for a store.
            self._ring.append(coded, piece * self._width)
            coded += piece * self._width
            n -= piece
        return flags
