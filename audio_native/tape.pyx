"""The compact note of what came in on a stream: media messages with their arrival, speech scores with their instant.

    Uplink.feed ────► media (arrival, chunk, timestamp, size, and the payload where audio is kept)
                └───► bad   (arrival): a media message whose payload was none
    SileroNet.score ► score (instant, 0 to 255)

An entry is a tag and variable-length numbers, each the difference to the entry before it: five bytes for a message of
a running stream, six for a score. The next chunk, as much later and as long as the one before, has its arrival alone
(NEXT); a payload that is one code throughout, a carrier's silence, is that code (FLAT). The file does not compress it
any further. A block that `take` returns stands for itself; `read_tape` is its other end.
Guarantees: noting never fails and never waits; what finds no memory, or more than BLOCK_MAX bytes that nobody took, is
dropped and counted in `lost`. Thread: one, the event loop's.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

cdef enum:
    MEDIA = 1
    BAD = 2
    SCORE = 3
    NEXT = 4
    # Added to MEDIA and NEXT.
    FLAT = 8
    # Between two timestamps, until a block has had two.
    USUAL_STEP_MS = 20
    # Tag and four numbers of at most ten bytes.
    ENTRY_MAX = 41
    FIRST_ROOM = 1024
    # Ten seconds of L16 at 48 kHz that nobody took.
    BLOCK_MAX = 1048576
    # The longest payload that one code stands for: what a message can hold. Beyond it somebody made it up.
    FLAT_MAX = 65536
    # What all payloads of one block may be once it is read; a second of a call has some 100 KiB at most.
    READ_MAX = 16777216

TAPE_MEDIA = MEDIA
TAPE_BAD = BAD
TAPE_SCORE = SCORE


cdef inline uint64_t _folded(int64_t value) noexcept nogil:
    """Small numbers of either sign as small numbers: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)


cdef inline uint8_t* _put(uint8_t* at, uint64_t value) noexcept nogil:
    while value > 127:
        at[0] = <uint8_t>(value & 127 | 128)
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


cdef class Tape:
    """One stream's tape.

    Args:
        keeps_audio: payloads are kept too.
    Attributes:
        now_ns: set it before each message; its arrival.
        lost: entries that were dropped. is_closed: nothing is noted any more.
    """

    def __cinit__(self, *, bint keeps_audio=False):
        self.keeps_audio = keeps_audio
        self._step_ms, self._last_size = USUAL_STEP_MS, -1

    def __dealloc__(self):
        free(self._bytes)

    cdef bint _make_room(self, Py_ssize_t n) noexcept:
        cdef Py_ssize_t room = max(self._room, <Py_ssize_t>FIRST_ROOM)
        cdef void* moved
        if self.is_closed:
            return False
        while room < self._used + n:
            room *= 2
        if room > BLOCK_MAX:
            return False
        moved = realloc(self._bytes, <size_t>room)
        if moved == NULL:
            return False
        self._bytes = <uint8_t*>moved
        self._room = room
        return True

    cdef uint8_t* _begin(self, int tag, int64_t now_ns) noexcept:
        """Room for the numbers of one entry is there; its tag and instant are written."""
        cdef uint8_t* at = self._bytes + self._used
        at[0] = <uint8_t>tag
        at = _put(at + 1, _folded(now_ns - self._last_ns))
        self._last_ns = now_ns
        return at

    cdef void media_c(self, uint64_t chunk, uint64_t timestamp_ms, const uint8_t* coded, Py_ssize_t size) noexcept:
        cdef Py_ssize_t kept = size if self.keeps_audio else 0
        # Equal to itself moved by one: one code throughout. Speech differs in its first bytes.
        cdef bint is_flat = 1 < kept <= FLAT_MAX and memcmp(coded, coded + 1, <size_t>kept - 1) == 0
        cdef int64_t step_ms = <int64_t>(timestamp_ms - <uint64_t>self._last_ms)
        cdef bint is_first = self._last_size < 0
        cdef bint is_next = (
            size == self._last_size and chunk == <uint64_t>self._last_chunk + 1 and step_ms == self._step_ms
        )
        cdef uint8_t* at
        if is_flat:
            kept = 1
        if self._used + ENTRY_MAX + kept > self._room and not self._make_room(ENTRY_MAX + kept):
            self.lost += 1
            return
        at = self._begin((NEXT if is_next else MEDIA) | (FLAT if is_flat else 0), self.now_ns)
        if not is_next:
            at = _put(at, _folded(<int64_t>(chunk - <uint64_t>self._last_chunk)))
            at = _put(at, _folded(step_ms))
            at = _put(at, <uint64_t>size)
        # Safety: ENTRY_MAX + kept bytes are free from where the entry began.
        memcpy(at, coded, <size_t>kept)
        self._last_chunk = <int64_t>chunk
        self._last_ms = <int64_t>timestamp_ms
        self._last_size = size
        if not is_first:
            self._step_ms = step_ms
        self._used = at + kept - self._bytes

    cdef void bad_c(self) noexcept:
        if self._used + ENTRY_MAX > self._room and not self._make_room(ENTRY_MAX):
            self.lost += 1
            return
        self._used = self._begin(BAD, self.now_ns) - self._bytes

    cdef void score_c(self, int score, int64_t now_ns) noexcept:
        cdef uint8_t* at
        if self._used + ENTRY_MAX > self._room and not self._make_room(ENTRY_MAX):
            self.lost += 1
            return
        at = self._begin(SCORE, now_ns)
        at[0] = <uint8_t>score
        self._used = at + 1 - self._bytes

    def take(self):
        """The block of all entries since the last `take`, as bytes; empty when there are none."""
        block = PyBytes_FromStringAndSize(<char*>self._bytes, self._used) if self._used else b""
        self._used = 0
        self._last_ns = self._last_chunk = self._last_ms = 0
        self._step_ms, self._last_size = USUAL_STEP_MS, -1
        return block

    def close(self):
        """Forget what waits, and note nothing from now on (each entry counts as lost)."""
        self.is_closed = True
        self._used = self._room = 0
        free(self._bytes)
        self._bytes = NULL

    def __len__(self):
        """Bytes that wait to be taken."""
        return self._used


cdef class _Reader:
    cdef const uint8_t* at
    cdef const uint8_t* end

    cdef uint64_t number(self) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint64_t value = 0
        cdef int shift = 0
        while self.at < self.end and shift < 64:
            value |= <uint64_t>(self.at[0] & 127) << shift
            shift = shift + 7 if self.at[0] > 127 else 0
            self.at += 1
            if shift == 0:
                return value
        raise ValueError("a number of the tape has no end")

    cdef int64_t difference(self) except? -1:
        cdef uint64_t value = self.number()
        return <int64_t>((value >> 1) ^ (~(value & 1) + 1))


def read_tape(bytes block not None, *, bint has_audio=False):
    """The entries of one block, in order.

    Returns:
        [(TAPE_MEDIA, at_ns, chunk, timestamp_ms, size, payload), (TAPE_BAD, at_ns), (TAPE_SCORE, at_ns, score), …];
        payload is empty without audio.
    Raises:
        ValueError: not a block, or cut.
    """
    cdef _Reader reader = _Reader()
    cdef int64_t now_ns = 0, chunk = 0, timestamp_ms = 0, step_ms = USUAL_STEP_MS, difference
    cdef uint64_t size = 0, read = 0
    cdef bint is_first = True, is_flat
    cdef int tag
    reader.at = <const uint8_t*>PyBytes_AS_STRING(block)
    reader.end = reader.at + PyBytes_GET_SIZE(block)
    entries = []
    while reader.at < reader.end:
        tag = reader.at[0]
        reader.at += 1
        # Unsigned, because what is no tape may hold any number.
        now_ns = <int64_t>(<uint64_t>now_ns + <uint64_t>reader.difference())
        is_flat = tag & FLAT
        if tag & ~FLAT == MEDIA or (tag & ~FLAT == NEXT and not is_first):
            if tag & ~FLAT == MEDIA:
                chunk = <int64_t>(<uint64_t>chunk + <uint64_t>reader.difference())
                difference = reader.difference()
                size = reader.number()
                # The first of a block is counted from zero, which says nothing about the next.
                step_ms = step_ms if is_first else difference
                is_first = False
            else:
                chunk = <int64_t>(<uint64_t>chunk + 1)
                difference = step_ms
            timestamp_ms = <int64_t>(<uint64_t>timestamp_ms + <uint64_t>difference)
            payload = b""
            if is_flat:
                read += size
                if reader.at == reader.end or not has_audio or size > FLAT_MAX or read > READ_MAX:
                    raise ValueError("a silence of the tape is cut, or longer than any")
                payload = PyBytes_FromStringAndSize(<const char*>reader.at, 1) * <Py_ssize_t>size
                reader.at += 1
            elif has_audio:
                if size > <uint64_t>(reader.end - reader.at):
                    raise ValueError("a payload of the tape is cut")
                payload = PyBytes_FromStringAndSize(<const char*>reader.at, <Py_ssize_t>size)
                reader.at += size
            entries.append((MEDIA, now_ns, <uint64_t>chunk, <uint64_t>timestamp_ms, size, payload))
        elif tag == BAD:
            entries.append((BAD, now_ns))
        elif tag == SCORE:
            if reader.at == reader.end:
                raise ValueError("a score of the tape is cut")
            entries.append((SCORE, now_ns, <int>reader.at[0]))
            reader.at += 1
        else:
            raise ValueError(f"tag {tag} is none of the tape's")
    return entries
