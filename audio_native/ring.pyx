"""The last seconds of a stream, as the bytes that came over the wire.

    slab  [ .... kept ....|.... newest ....|  room  |64 spare]
                                           ^ write      when the room is used up, what must be kept slides to the
                                                        front - of a new slab if somebody still looks at this one

Invariants: `position` only grows; at least the last `capacity` bytes can be read; a view never changes and never
expires: the slab lives as long as its last view.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memmove

# SIMD kernels may write whole registers past the end of what they were asked for.
cdef enum:
    SPARE_BYTES = 64


cdef class Slab:
    """Memory with a count of its views. Read-only from Python."""

    def __cinit__(self, Py_ssize_t size):
        self.data = <uint8_t*>PyMem_RawMalloc(size + SPARE_BYTES)
        if self.data == NULL:
            raise MemoryError(f"{size} bytes for a ring")
        self.size = size
        self.exports = 0

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        # Raises BufferError for a writable view.
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.exports -= 1


cdef class WireRing:
    """Keeps at least the last `capacity_bytes` of what is written.

    Attributes:
        position: bytes written so far; oldest: first position that can still be read.
        overruns: bytes that a reader asked for too late (`view` before `oldest`).
    """

    def __init__(self, Py_ssize_t capacity_bytes):
        if not 1 <= capacity_bytes <= 64 * 1024 * 1024:
            raise ValueError(f"capacity_bytes: expected 1 to 64 MiB, got {capacity_bytes}")
        self._capacity = capacity_bytes
        # Half as much again: the kept part moves once in capacity / 2 bytes, so that a byte is copied twice at most.
        self._slab = Slab(capacity_bytes + capacity_bytes // 2 + 1)
        self._at = 0
        self._base = 0
        self.overruns = 0

    cdef uint64_t position_c(self) noexcept:
        return self._base + <uint64_t>self._at

    cdef uint64_t oldest_c(self) noexcept:
        cdef uint64_t position = self._base + <uint64_t>self._at
        cdef uint64_t kept = <uint64_t>self._capacity
        # Older bytes may still lie in the slab; which ones must not depend on when it slid.
        return position - kept if position > kept else 0

    cdef uint8_t* reserve(self, Py_ssize_t n) except NULL:
        cdef Py_ssize_t keep
        cdef Slab old = self._slab
        if self._at + n <= old.size:
            return old.data + self._at
        # After the write `capacity` bytes are kept: what comes counts.
        keep = min(self._at, self._capacity)
        if keep + n > old.size:
            keep = old.size - n
        if old.exports:
            # Safety: a view of the old slab stays valid and unchanged, because nobody writes there any more.
            self._slab = Slab(old.size)
            memcpy(self._slab.data, old.data + self._at - keep, keep)
        else:
            memmove(old.data, old.data + self._at - keep, keep)
        self._base += <uint64_t>(self._at - keep)
        self._at = keep
        return self._slab.data + self._at

    cdef void advance(self, Py_ssize_t n) noexcept:
        self._at += n

    cdef const uint8_t* span(self, uint64_t start) noexcept:
        return self._slab.data + <Py_ssize_t>(start - self._base)

    @property
    def capacity(self):
        return self._capacity

    @property
    def position(self):
        return self.position_c()

    @property
    def oldest(self):
        return self.oldest_c()

    def write(self, object data):
        """Append bytes-like `data`; of more than `capacity` bytes only the end is kept. Returns its length."""
        cdef Py_buffer src
        cdef Py_ssize_t n, skipped
        PyObject_GetBuffer(data, &src, PyBUF_SIMPLE)
        try:
            skipped = max(0, src.len - self._capacity)
            n = src.len - skipped
            if skipped:
                self._base += <uint64_t>(self._at + skipped)
                self._at = 0
                if self._slab.exports:
                    self._slab = Slab(self._slab.size)
            if n:
                memcpy(self.reserve(n), <const uint8_t*>src.buf + skipped, n)
                self.advance(n)
            return src.len
        finally:
            PyBuffer_Release(&src)

    def view(self, uint64_t start, uint64_t stop):
        """Bytes [start, stop) without a copy, as a read-only memoryview that never changes.

        Raises:
            ValueError: stop is ahead of what was written, or before start.
            BufferError: start is older than `oldest`; counted in `overruns`.
        """
        if stop > self.position_c() or start > stop:
            raise ValueError(f"expected start <= stop <= {self.position_c()}, got {start}, {stop}")
        if start < self.oldest_c():
            self.overruns += self.oldest_c() - start
            raise BufferError(f"{start} is gone, oldest is {self.oldest_c()}")
        return memoryview(self._slab)[start - self._base:stop - self._base]
