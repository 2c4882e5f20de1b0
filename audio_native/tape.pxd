"""What came in on one stream, for Uplink and SileroNet to note without a Python call."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef class Tape:
    cdef uint8_t* _bytes
    cdef Py_ssize_t _used, _room
    cdef int64_t _last_ns, _last_chunk, _last_ms, _step_ms, _last_size
    cdef readonly bint keeps_audio, is_closed
    cdef public int64_t now_ns              # arrival of the message that is fed next
    cdef readonly unsigned long long lost   # entries that found no memory

    cdef void media_c(self, uint64_t chunk, uint64_t timestamp_ms, const uint8_t* coded, Py_ssize_t size) noexcept
    cdef void bad_c(self) noexcept
    cdef void score_c(self, int score, int64_t now_ns) noexcept
    cdef bint _make_room(self, Py_ssize_t n) noexcept
    cdef uint8_t* _begin(self, int tag, int64_t now_ns) noexcept
