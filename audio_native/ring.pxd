"""A ring of bytes in reference-counted slabs: contiguous for its reader, never changed under a view."""
from libc.stdint cimport uint8_t, uint64_t

cdef class Slab:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t exports         # views that are out
    cdef Py_ssize_t shown_at, shown # span of the next view, set by the ring

cdef class WireRing:
    cdef uint8_t* _room             # where the next byte goes, inside _slab
    cdef uint8_t* _limit            # end of _slab
    cdef uint64_t _position         # of the next byte in the stream
    cdef Py_ssize_t _capacity       # bytes that are kept at least
    cdef readonly uint64_t overruns
    cdef Slab _slab
    # Append n bytes, n <= capacity; 0, or -1 with MemoryError set and nothing written.
    cdef int append(self, const uint8_t* src, Py_ssize_t n) except -1
    cdef void _use(self, Slab slab) noexcept
    cdef int _make_room(self, Py_ssize_t n) except -1
    cdef uint64_t oldest_c(self) noexcept
    # First byte at `start`; valid until the next append. oldest_c() <= start <= _position.
    cdef const uint8_t* span(self, uint64_t start) noexcept
