"""The order of a stream's payloads: by chunk number, whatever order they came in.

    place(4) ─► 4 is next ───────────────► NOW                pop() ─► 5, when 4 has been stored
    place(6) ─► 5 is missing: held ──────► NOT_NOW            pop() ─► 6, when 5 came, or too many wait for it
    place(2) ─► has been stored: dropped ► NOT_NOW, counted

The caller stores what it is told to, one at a time, and writes `next_chunk`. What is held is bounded by the slots.
Leaves to others: what to put where a payload is missing, and how long that is (media_time).
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    # A chunk number that far ahead of messages which still come in order belongs to no message of this stream.
    AHEAD_MAX = 1000
    # Chunk numbers further back are not late: numbering began anew, when RESTART of them come in a row.
    BEHIND_MAX = 64
    RESTART = 5


cdef class Order:
    """What is next.

    Args:
        slots: payloads that are held for one that is missing, 0 to SLOTS_MAX.
    Attributes:
        duplicates: payloads whose place had been filled; late: places that were given up; reordered: payloads that
            were held until the missing one came; astray: payloads with a number out of nowhere.
    """

    def __cinit__(self, int slots):
        self.held = []
        self._slots = slots

    cdef int place(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        if self.next_chunk == 0 and not self.held and (chunk == 1 or chunk > <uint64_t>self._slots + 1):
            # Chunks count from 1; where the first one we see is no neighbour of it, the stream was there before us.
            return NOW
        if chunk < self.next_chunk:
            # Its place in time has been filled: by itself, or by silence when it was given up.
            self.duplicates += 1
            return self._count_anew(chunk) if self.next_chunk - chunk > BEHIND_MAX else NOT_NOW
        self._strays = 0
        if chunk == self.next_chunk:
            while self.held and self.held[len(self.held) - 1][0] > chunk + AHEAD_MAX:
                self.held.pop()
                self.astray += 1
            return NOW
        for one in self.held:
            if one[0] == chunk:
                self.duplicates += 1
                return NOT_NOW
        self.held.append((chunk, timestamp_ms, PyBytes_FromStringAndSize(<const char*>coded, size)))
        self.held.sort()
        return NOT_NOW

    cdef int _count_anew(self, uint64_t chunk) except -1:
        """Far too low a number: dropped, until RESTART in a row say that the carrier counts anew."""
        self._strays = self._strays + 1 if chunk == self._last_stray + 1 else 1
        self._last_stray = chunk
        if self._strays < RESTART:
            return NOT_NOW
        self._strays = 0
        self.held.clear()
        return ANEW

    cdef tuple pop(self, bint at_end):
        cdef uint64_t chunk = self.held[0][0]
        if chunk == self.next_chunk:
            self.reordered += 1
        elif len(self.held) <= self._slots and not at_end:
            return None
        elif self.next_chunk:
            # What is missing before it is given up.
            self.late += chunk - self.next_chunk
        return self.held.pop(0)
