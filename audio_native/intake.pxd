"""Payloads into samples, for Uplink without a Python call."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from audio_native.media_time cimport media_time
from audio_native.order cimport Order
from audio_native.ring cimport WireRing
from audio_native.talkspurt cimport Talkspurt

cdef class Intake:
    cdef Order _order
    cdef Talkspurt _talkspurt
    cdef WireRing _ring
    cdef int _codec, _width
    cdef media_time _time
    cdef readonly uint64_t frames, gap_samples

    # One payload of `size` bytes, whole samples. Returns what Talkspurt.listen does.
    cdef int place(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1
    # What was held, as far as its turn has come; at_end: all of it. Returns the same.
    cdef int release(self, bint at_end) except -1
    cdef int _store(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1
    cdef int _fill(self, int64_t missing) except -1
    cdef int _take_in(self, const uint8_t* coded, Py_ssize_t n, bint is_filling) except -1


# Media time in samples.
cdef inline uint64_t position_of(Intake intake) noexcept:
    return intake._ring._position >> (intake._width - 1)
