"""Saturating mix and gain ramp on s16, in place.

Products are rounded down, as audioop.mul does, so that the results can be compared bit by bit; sums saturate.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uintptr_t

from audio_native cimport dispatch
from audio_native.pcm cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer, s16_length,
)

cdef enum:
    UNITY = 32768

UNITY_Q15 = int(UNITY)


cdef void mix_q15_c(int16_t* dst, const int16_t* src, Py_ssize_t n, int32_t gain_q15) noexcept nogil:
    dispatch.kernels.mix_q15(dst, src, n, gain_q15)


cdef void gain_ramp_c(int16_t* dst, Py_ssize_t n, int32_t from_q15, int32_t to_q15) noexcept nogil:
    if n > 0:
        # 2^30 / n rounds towards zero, so the gain never passes to_q15.
        dispatch.kernels.gain_ramp(dst, n, from_q15, <int32_t>((<int64_t>to_q15 - from_q15) * UNITY / n))


cdef inline int _gain(long long gain_q15, str what) except -1:
    if not 0 <= gain_q15 <= UNITY:
        raise ValueError(f"{what}: want 0 to {UNITY} (unity); got {gain_q15}")
    return 0


def mix_q15(object dst, object src, long long gain_q15):
    """Add src, scaled, to dst: dst[i] = saturate(dst[i] + floor(src[i] * gain_q15 / 32768)).

    Args:
        dst: int16 host order, shape (m,), 2-byte aligned, written in place; samples beyond len(src) stay.
        src: int16 host order, shape (n,), n <= m, 2-byte aligned; may be dst itself, no other overlap.
        gain_q15: 0 to 32768 (unity).
    Raises:
        ValueError: any of these broken; dst is as it was.
    """
    cdef Py_buffer target, source
    cdef Py_ssize_t n
    cdef uintptr_t s, d
    _gain(gain_q15, "gain_q15")
    PyObject_GetBuffer(src, &source, PyBUF_SIMPLE)
    try:
        n = s16_length(&source, "src")
        PyObject_GetBuffer(dst, &target, PyBUF_WRITABLE)
        try:
            if n > s16_length(&target, "dst"):
                raise ValueError(f"dst: need {source.len} bytes; got {target.len}")
            s, d = <uintptr_t>source.buf, <uintptr_t>target.buf
            if s != d and s < d + <uintptr_t>source.len and d < s + <uintptr_t>source.len:
                raise ValueError("src: overlaps dst")
            # Safety: n samples fit both (checked above); both views are held until we return.
            mix_q15_c(<int16_t*>target.buf, <const int16_t*>source.buf, n, <int32_t>gain_q15)
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)


def gain_ramp(object samples, long long from_q15, long long to_q15):
    """Scale samples in place by a gain that moves in a straight line; equal gains scale evenly.

    Sample i of n gets g = floor((from * 2^15 + i * step) / 2^15), step = (to - from) * 2^15 / n towards zero,
    so that to_q15 is where the next piece begins and pieces join without a click.

    Args:
        samples: int16 host order, shape (n,), 2-byte aligned, written in place.
        from_q15, to_q15: 0 to 32768 (unity).
    Raises:
        ValueError: any of these broken; samples are as they were.
    """
    cdef Py_buffer target
    _gain(from_q15, "from_q15")
    _gain(to_q15, "to_q15")
    PyObject_GetBuffer(samples, &target, PyBUF_WRITABLE)
    try:
        gain_ramp_c(<int16_t*>target.buf, s16_length(&target, "samples"), <int32_t>from_q15, <int32_t>to_q15)
    finally:
        PyBuffer_Release(&target)
