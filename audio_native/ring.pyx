"""The last seconds of a stream, as the bytes that came over the wire.

    slab  [ .... kept ....|.... newest ....|  room  |64 spare]
                                           ^ write      when the room is used up, what must be kept slides to the
                                                        front - of a new slab if somebody still looks at this one

Invariants: `position` only grows; at least the last `capacity` bytes can be read; a view never changes and never
expires: the slab lives as long as its last view.
"""
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memmove

# SIMD kernels may write whole registers past the end of what they were asked for.
cdef enum:
    SPARE_BYTES = 64


cdef class Slab:
    """Memory with a count of its views. Read-only from Python, which sees the span that the ring last showed."""

    def __cinit__(self, Py_ssize_t size):
        self.data = <uint8_t*>PyMem_RawMalloc(size + SPARE_BYTES)
        if self.data == NULL:
            raise MemoryError(f"{size} bytes for a ring")
        self.size = size
        self.exports = self.shown_at = self.shown = 0

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        # Raises BufferError for a writable view.
        PyBuffer_FillInfo(view, self, self.data + self.shown_at, self.shown, 1, flags)
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
        self._use(Slab(capacity_bytes + capacity_bytes // 2 + 1))
        self._position = 0
        self.overruns = 0

    cdef void _use(self, Slab slab) noexcept:
        self._slab = slab
        self._room = slab.data
        self._limit = slab.data + slab.size

    cdef uint64_t oldest_c(self) noexcept:
        cdef uint64_t kept = <uint64_t>self._capacity
        # Older bytes may still lie in the slab; which ones must not depend on when it slid.
        return self._position - kept if self._position > kept else 0

    cdef int append(self, const uint8_t* src, Py_ssize_t n) except -1:
        if self._limit - self._room < n:
            self._make_room(n)
        memcpy(self._room, src, n)
        self._room += n
        self._position += <uint64_t>n
        return 0

    cdef int _make_room(self, Py_ssize_t n) except -1:
        """Slide what will still be within `capacity` after n more bytes to the front; called before they are written.

        Safety: at most capacity - n bytes stay, and n <= capacity, so that they and the new ones fit in any slab.
        """
        cdef Slab old = self._slab, new
        cdef Py_ssize_t keep = min(self._room - old.data, self._capacity - n)
        cdef const uint8_t* kept = self._room - keep
        if old.exports:
            # A view of the old slab stays valid and unchanged, because nobody writes there any more.
            new = Slab(old.size)
            memcpy(new.data, kept, keep)
            self._use(new)
        else:
            memmove(old.data, kept, keep)
        self._room = self._slab.data + keep
        return 0

    cdef const uint8_t* span(self, uint64_t start) noexcept:
        return self._room - <Py_ssize_t>(self._position - start)

    @property
    def capacity(self):
        return self._capacity

    @property
    def position(self):
        return self._position

    @property
    def oldest(self):
        return self.oldest_c()

    def write(self, object data):
        """Append bytes-like `data`; of more than `capacity` bytes only the end is kept. Returns its length."""
        cdef Py_buffer src
        cdef Py_ssize_t skipped
        PyObject_GetBuffer(data, &src, PyBUF_SIMPLE)
        try:
            skipped = max(0, src.len - self._capacity)
            self._position += <uint64_t>skipped
            self.append(<const uint8_t*>src.buf + skipped, src.len - skipped)
            return src.len
        finally:
            PyBuffer_Release(&src)

    def view(self, uint64_t start, uint64_t stop):
        """Bytes [start, stop) without a copy, as a read-only memoryview that never changes.

        Raises:
            ValueError: stop is ahead of what was written, or before start.
            BufferError: start is older than `oldest`; counted in `overruns`.
        """
        if stop > self._position or start > stop:
            raise ValueError(f"expected start <= stop <= {self._position}, got {start}, {stop}")
        if start < self.oldest_c():
            self.overruns += self.oldest_c() - start
            raise BufferError(f"{start} is gone, oldest is {self.oldest_c()}")
        self._slab.shown_at = self.span(start) - self._slab.data
        self._slab.shown = <Py_ssize_t>(stop - start)
        return PyMemoryView_FromObject(self._slab)
