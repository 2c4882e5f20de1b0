"""FIR resamplers between the rates of telephony and of speech services: integer, streaming, nothing held back.

    in ──split into D planes──> [ history | block ] ──U rows of taps──> zip U rows ──> out      out_hz / in_hz = U / D

A group of D input samples determines U output samples, and each push returns all that it completes, so the stream of
bytes does not depend on how it was cut (soxr holds 64 ms back at 20 ms pushes). The taps are in
fir_taps.py; reference.py defines the result: zero-stuffing by U, one convolution, every D-th sample, rounded half
up and saturated. All sums are exact, so every instruction set gives the same bits.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, int32_t
from libc.string cimport memcpy, memmove, memset

from audio_native cimport dispatch
from audio_native.dispatch cimport fir_term
from audio_native.pcm cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer, s16_length

from audio_native import fir_taps

cdef enum:
    MAX_UP = 3
    MAX_DOWN = 3
    MAX_HISTORY = 40        # samples of a plane; the longest filter needs 34
    MAX_TERMS = 56          # pairs of taps of one row
    BLOCK_GROUPS = 320      # 20 ms of the fastest path; the scratch of a block is about 6 KB of stack
    STEP = 32               # FIR_STEP, checked at import
    PLANE = MAX_HISTORY + BLOCK_GROUPS + STEP + 8
    ROW = BLOCK_GROUPS + STEP

cdef struct fir_row_plan:
    int32_t copy_at         # >= 0: the row is a delayed copy of a plane from here; -1: use the terms
    Py_ssize_t count
    fir_term term[MAX_TERMS]

cdef struct fir_plan:
    int up
    int down
    int history
    int shift
    int delay_samples
    fir_row_plan row[MAX_UP]

cdef enum:
    PAIRS = 8

cdef fir_plan plans[PAIRS]

# in_hz, out_hz -> place in plans, up, down, taps, shift of the sum, how far the taps are moved towards the newest
# sample on the grid (the largest move at which no row needs samples beyond its group and the delay stays whole).
RATES = {
    (8000, 16000): (0, 2, 1, fir_taps.HALFBAND, 15, 0),
    (16000, 8000): (1, 1, 2, fir_taps.HALFBAND, 16, 1),
    (24000, 8000): (2, 1, 3, fir_taps.NARROW_DOWN, 16, 2),
    (8000, 24000): (3, 3, 1, fir_taps.NARROW_UP, 15, 0),
    (48000, 16000): (4, 1, 3, fir_taps.WIDE, 16, 2),
    (24000, 16000): (5, 2, 3, fir_taps.WIDE, 15, 2),
    (16000, 48000): (7, 3, 1, fir_taps.WIDE_UP, 15, 0),
    (16000, 24000): (6, 3, 2, fir_taps.WIDE_UP, 15, 0),
}


def _pairs(taps_by_place):
    """Cover {place: tap} of one plane with (place, tap, next tap), and split a tap that 16 bits cannot hold."""
    taps = dict(taps_by_place)
    for place, tap in sorted(taps_by_place.items()):
        if tap > 32767:
            yield place, tap // 2, 0
            taps[place] = tap - tap // 2
    place = min(taps)
    while place <= max(taps):
        pair = taps.get(place, 0), taps.get(place + 1, 0)
        if any(pair):
            yield place, *pair
        place += 2


def _balanced(terms):
    """Deal the pairs to the two sums so that neither can reach 32 bits; even places one sum, odd the other."""
    sums = ([], [])
    for term in sorted(terms, key=lambda t: -abs(t[1]) - abs(t[2])):
        weights = [sum(abs(t[1]) + abs(t[2]) for t in half) for half in sums]
        sums[weights[1] < weights[0]].append(term)
    longest = max(len(sums[0]), len(sums[1]))
    for half in sums:
        half += [(half[0][0], 0, 0)] * (longest - len(half))
        if sum(abs(t[1]) + abs(t[2]) for t in half) >= 65535:
            raise AssertionError("fir: a 32-bit sum could overflow")
    return [term for both in zip(*sums) for term in both]


cdef int _plan_row(fir_row_plan* row, list terms, int unity) except -1:
    cdef int i
    row.copy_at = -1
    if len(terms) == 2 and terms[0][0] == terms[1][0] and terms[0][1] + terms[1][1] == unity:
        row.copy_at = terms[0][0]
        return 0
    row.count = len(terms)
    if row.count > MAX_TERMS:
        raise AssertionError(f"fir: {row.count} pairs of taps")
    for i, (at, first, second) in enumerate(terms):
        row.term[i].at = at
        row.term[i].tap[0] = first
        row.term[i].tap[1] = second
    return 0


cdef int _plan(int place, int up, int down, tuple taps, int shift, int lead) except -1:
    """Turn a filter on the grid (up x input rate) into rows of pairs on planes."""
    cdef fir_plan* plan = &plans[place]
    rows = []
    for u in range(up):
        planes = {}
        for k, tap in enumerate(taps):
            samples, rest = divmod(down * u + lead - k, up)
            if tap and not rest:
                planes.setdefault(samples % down, {})[samples // down] = tap
        rows.append({plane: list(_pairs(places)) for plane, places in planes.items()})
    every = [pair for row in rows for pairs in row.values() for pair in pairs]
    delay, rest = divmod(len(taps) // 2 - lead, down)
    plan.up, plan.down, plan.shift, plan.delay_samples = up, down, shift, delay
    plan.history = -min(pair[0] for pair in every)
    if plan.history > MAX_HISTORY or max(pair[0] for pair in every) > 0 or rest:
        raise AssertionError("fir: the taps do not fit the plan")
    for u in range(up):
        _plan_row(&plan.row[u], _balanced([
            (plane * PLANE + plan.history + at, first, second)
            for plane, pairs in rows[u].items() for at, first, second in pairs
        ]), 1 << shift)
    return 0


for _place, _up, _down, _taps, _shift, _lead in RATES.values():
    _plan(_place, _up, _down, _taps, _shift, _lead)
if dispatch.FIR_STEP != STEP:
    raise AssertionError("fir: STEP and FIR_STEP differ")


cdef class Fir:
    """One direction of one stream. RATES lists the pairs; soxr does the others (resample.py).

    Delay: delay_samples of the output, below 2 ms; the first output samples answer the silence before the stream.
    """

    def __cinit__(self, int in_hz, int out_hz):
        if (in_hz, out_hz) not in RATES:
            known = ", ".join(f"{a}->{b}" for a, b in RATES)
            raise ValueError(f"rates: {in_hz}->{out_hz} Hz is not one of {known}")
        self.plan = &plans[<int>RATES[in_hz, out_hz][0]]
        self.in_hz = in_hz
        self.out_hz = out_hz

    @property
    def delay_samples(self):
        """Group delay in output samples, constant over frequency."""
        return self.plan.delay_samples

    cdef Py_ssize_t out_samples(self, Py_ssize_t n) noexcept nogil:
        return (self.pending_samples + n) // self.plan.down * self.plan.up

    cdef Py_ssize_t flush_bound(self) noexcept nogil:
        return (self.plan.history + 1) * self.plan.up

    cdef void reset_c(self) noexcept nogil:
        memset(self.history, 0, sizeof(self.history))
        self.pending_samples = 0
        self.is_fed = False

    cdef Py_ssize_t flush_c(self, int16_t* dst) noexcept nogil:
        cdef int16_t zeros[MAX_DOWN * (MAX_HISTORY + 1)]
        cdef Py_ssize_t n = self.plan.history * self.plan.down
        if not self.is_fed:
            return 0
        memset(zeros, 0, sizeof(zeros))
        if self.pending_samples:
            n += self.plan.down - self.pending_samples
        n = self.process_c(zeros, n, dst)
        self.reset_c()
        return n

    cdef Py_ssize_t process_c(self, const int16_t* src, Py_ssize_t n, int16_t* dst) noexcept nogil:
        cdef const fir_plan* plan = self.plan
        cdef int16_t planes[MAX_DOWN * PLANE]
        cdef Py_ssize_t groups = (self.pending_samples + n) // plan.down
        cdef Py_ssize_t written = groups * plan.up, block, first, size = plan.history * sizeof(int16_t)
        cdef int p
        if n > 0:
            self.is_fed = True
        if groups > 0:
            for p in range(plan.down):
                memcpy(planes + p * PLANE, self.history + p * plan.history, <size_t>size)
            while groups > 0:
                block = groups if groups < BLOCK_GROUPS else BLOCK_GROUPS
                first = 0
                if self.pending_samples:
                    first = plan.down - self.pending_samples
                    memcpy(self.pending + self.pending_samples, src, <size_t>first * sizeof(int16_t))
                    src += first
                    n -= first
                    for p in range(plan.down):
                        planes[p * PLANE + plan.history] = self.pending[p]
                    self.pending_samples = 0
                    first = 1
                _split(plan, src, planes + plan.history + first, block - first)
                src += (block - first) * plan.down
                n -= (block - first) * plan.down
                _filter(plan, planes, dst, block)
                dst += block * plan.up
                groups -= block
                for p in range(plan.down):
                    memmove(planes + p * PLANE, planes + p * PLANE + block, <size_t>size)
            for p in range(plan.down):
                memcpy(self.history + p * plan.history, planes + p * PLANE, <size_t>size)
        memcpy(self.pending + self.pending_samples, src, <size_t>n * sizeof(int16_t))
        self.pending_samples = self.pending_samples + <int>n
        return written

    def process(self, object samples):
        """Resample the next piece of the stream.

        Args:
            samples: int16 host order, shape (n,), 2-byte aligned, at in_hz; any n.
        Returns:
            Bytes of int16 at out_hz: every sample that the input so far determines and that has not been returned.
        Raises:
            ValueError: half a sample or a misaligned buffer; the stream is where it was.
        Delay: delay_samples.
        """
        cdef Py_buffer src
        cdef Py_ssize_t n
        cdef bytes out
        PyObject_GetBuffer(samples, &src, PyBUF_SIMPLE)
        try:
            n = s16_length(&src, "samples")
            out = PyBytes_FromStringAndSize(NULL, self.out_samples(n) * 2)
            # Safety: out has exactly the room that process_c fills, and nobody else has seen it.
            self.process_c(<const int16_t*>src.buf, n, <int16_t*>PyBytes_AS_STRING(out))
            return out
        finally:
            PyBuffer_Release(&src)

    def flush(self):
        """Return the tail (what silence after the last sample would have brought out) as s16 and begin a new stream.

        At most 2 x delay_samples and two groups more; empty when nothing came since the last flush or reset.
        """
        cdef int16_t tail[MAX_UP * (MAX_HISTORY + 1)]
        return PyBytes_FromStringAndSize(<const char*>tail, 2 * self.flush_c(tail))

    def reset(self):
        """Forget the stream: the next sample is the first one."""
        self.reset_c()


cdef inline void _split(const fir_plan* plan, const int16_t* src, int16_t* planes, Py_ssize_t groups) noexcept nogil:
    if plan.down == 1:
        memcpy(planes, src, <size_t>groups * sizeof(int16_t))
    elif plan.down == 2:
        dispatch.kernels.deinterleave2(src, planes, planes + PLANE, groups)
    else:
        dispatch.kernels.deinterleave3(src, planes, planes + PLANE, planes + 2 * PLANE, groups)


cdef inline void _filter(const fir_plan* plan, int16_t* planes, int16_t* dst, Py_ssize_t groups) noexcept nogil:
    cdef int16_t rows[MAX_UP * ROW]
    cdef const int16_t* row[MAX_UP]
    cdef int16_t* target
    cdef int u, p
    # fir_row reads whole steps and one sample more: what lies behind the block must be defined, its value is unused.
    for p in range(plan.down):
        memset(planes + p * PLANE + plan.history + groups, 0, (STEP + 1) * sizeof(int16_t))
    row[0] = row[1] = row[2] = dst
    for u in range(plan.up):
        if plan.row[u].copy_at >= 0:
            row[u] = planes + plan.row[u].copy_at
            continue
        # A single row of whole steps needs no scratch.
        target = dst if plan.up == 1 and groups % STEP == 0 else rows + u * ROW
        dispatch.kernels.fir_row(planes, plan.row[u].term, plan.row[u].count, plan.shift, target, groups)
        row[u] = target
    if plan.up == 2:
        dispatch.kernels.interleave2(row[0], row[1], dst, groups)
    elif plan.up == 3:
        dispatch.kernels.interleave3(row[0], row[1], row[2], dst, groups)
    elif row[0] != dst:
        memcpy(dst, row[0], <size_t>groups * sizeof(int16_t))
