"""The order of a stream's payloads: by chunk number, whatever order they came in.

    place(4) ─► 4 is next ──────────────────────────────────► NOW
    place(6) ─► 5 is missing ─ the stream keeps its order ──► NOW, 5 is given up
                             └ it has been seen to reorder ─► NOT_NOW: held until 5 comes, or too many wait for it
    place(5) ─► given up: too late, but from now on we wait ► NOT_NOW, counted
    place(4) ─► has been stored: dropped ───────────────────► NOT_NOW, counted

Waiting for a payload that never comes delays the caller's words by the whole window, and a WebSocket, which is TCP,
never reorders by itself. So nothing waits before this stream has shown that waiting helps: a payload that came after
its place was given up, early enough that the window would have mended it. It costs the first such payload; later ones
are put in order. A carrier that says that it may reorder is waited for from the start (`may_reorder`).

What is decided depends on the payloads alone, never on when they come. The caller stores what it is told to, one at a
time, and writes `next_chunk`. What is held is bounded by the slots. Leaves to others: what to put where a payload is
missing, and how long that is (media_time).
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
        may_reorder: wait from the start; else once the stream has been seen to reorder.
    Attributes:
        duplicates: payloads whose place had been filled by the same one; given_up: places that were passed while their
            payload was missing; late: payloads that came after that; reordered: payloads that were held until the
            missing one came; astray: payloads with a number out of nowhere.
    Invariant: payloads placed = stored + held + duplicates + late + astray.
    """

    def __cinit__(self, int slots, bint may_reorder):
        self.held = []
        self._slots = slots
        self._is_waiting = may_reorder

    cdef int place(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        if self.next_chunk == 0 and not self.held:
            # Chunks count from 1. Where the first one we see is no neighbour of it, the stream was there before us.
            if not self._is_waiting or chunk == 1 or chunk > <uint64_t>self._slots + 1:
                self._give_up(chunk)
                return NOW
        if chunk < self.next_chunk:
            return self._place_passed(chunk)
        self._strays = 0
        if chunk == self.next_chunk:
            self._drop_astray(chunk)
            return NOW
        for one in self.held:
            if one[0] == chunk:
                self.duplicates += 1
                return NOT_NOW
        if not self._is_waiting and chunk - self.next_chunk <= AHEAD_MAX:
            self._give_up(chunk)
            self._drop_astray(chunk)
            return NOW
        self.held.append((chunk, timestamp_ms, PyBytes_FromStringAndSize(<const char*>coded, size)))
        self.held.sort()
        return NOT_NOW

    cdef int _place_passed(self, uint64_t chunk) except -1:
        """A number whose place in time has been filled: by itself, or by silence when it was given up."""
        cdef uint64_t back = self._gap_end - 1 - chunk, came_before
        if self.next_chunk - chunk > BEHIND_MAX:
            self.duplicates += 1
            return self._count_anew(chunk)
        if chunk >= self._gap_end or back >= 64 or not self._gaps >> back & 1:
            self.duplicates += 1
            return NOT_NOW
        self.late += 1
        self._gaps &= ~(<uint64_t>1 << back)
        # Only where the window would have held all that came before it.
        came_before = self.next_chunk - 1 - chunk - <uint64_t>(self._gaps & ((<uint64_t>1 << back) - 1)).bit_count()
        self._is_waiting = self._is_waiting or came_before <= <uint64_t>self._slots
        return NOT_NOW

    cdef int _count_anew(self, uint64_t chunk) except -1:
        """Far too low a number: dropped, until RESTART in a row say that the carrier counts anew."""
        self._strays = self._strays + 1 if chunk == self._last_stray + 1 else 1
        self._last_stray = chunk
        if self._strays < RESTART:
            return NOT_NOW
        # It was counted as a duplicate, and is the first of the new numbers.
        self.duplicates -= 1
        self._strays = 0
        self.astray += <uint64_t>len(self.held)
        self.held.clear()
        self._gaps = self._gap_end = 0
        return ANEW

    cdef void _give_up(self, uint64_t chunk) noexcept:
        """`chunk` is stored next: remember the numbers before it that have not come."""
        cdef uint64_t moved = chunk - self._gap_end, count
        if self.next_chunk:
            count = chunk - self.next_chunk
            self.given_up += count
        else:
            # Nothing is missing before the first one, yet one that it has overtaken may still come.
            count = min(chunk - 1, <uint64_t>self._slots)
        self._gaps = 0 if moved >= 64 else self._gaps << moved
        self._gaps |= ~<uint64_t>0 if count >= 64 else (<uint64_t>1 << count) - 1
        self._gap_end = chunk

    cdef void _drop_astray(self, uint64_t chunk):
        while self.held and self.held[len(self.held) - 1][0] > chunk + AHEAD_MAX:
            self.held.pop()
            self.astray += 1

    cdef tuple pop(self, bint at_end):
        cdef uint64_t chunk = self.held[0][0]
        if chunk == self.next_chunk:
            self.reordered += 1
        elif len(self.held) <= self._slots and not at_end:
            return None
        else:
            self._give_up(chunk)
        return self.held.pop(0)
