"""A ring of bytes in reference-counted slabs: contiguous for its reader, never changed under a view."""
from libc.stdint cimport uint8_t, uint64_t

cdef class Slab:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t exports         # views that are out

cdef class WireRing:
    cdef Slab _slab
    cdef Py_ssize_t _capacity       # bytes that are kept at least
    cdef Py_ssize_t _at             # write offset in the slab
    cdef uint64_t _base             # position of the slab's first byte
    cdef readonly uint64_t overruns
    cdef uint64_t position_c(self) noexcept
    cdef uint64_t oldest_c(self) noexcept
    # Where n more bytes may be written, n <= capacity; NULL with MemoryError set. Then call advance(n).
    cdef uint8_t* reserve(self, Py_ssize_t n) except NULL
    cdef void advance(self, Py_ssize_t n) noexcept
    # First byte at `start`; valid until the next reserve. oldest_c() <= start <= position_c().
    cdef const uint8_t* span(self, uint64_t start) noexcept
