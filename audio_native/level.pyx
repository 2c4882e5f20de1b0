"""How loud: energy and peak of s16, in one pass.

0 dBFS is a square wave at full scale (mean square 32768^2), so a full-scale sine reads -3.01.
"""
from libc.math cimport log10
from libc.stdint cimport int16_t, int32_t, int64_t

from audio_native cimport dispatch
from audio_native.pcm cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer, s16_length

cdef enum:
    FLOOR_DBFS = -100       # below the -90.3 of a single step; finite, so that it can be averaged and stored

SILENCE_DBFS = float(FLOOR_DBFS)


cdef void level_peak(const int16_t* src, Py_ssize_t n, int64_t* energy, int32_t* peak) noexcept nogil:
    dispatch.kernels.level_peak(src, n, energy, peak)


cdef double energy_dbfs(int64_t energy, Py_ssize_t n) noexcept nogil:
    cdef double level = FLOOR_DBFS
    if energy > 0:
        level = 10 * log10(<double>energy / (<double>n * 1073741824.0))
    return level if level > FLOOR_DBFS else FLOOR_DBFS


cdef inline Py_ssize_t _measure(object samples, int64_t* energy, int32_t* peak) except -1:
    cdef Py_buffer src
    cdef Py_ssize_t n
    PyObject_GetBuffer(samples, &src, PyBUF_SIMPLE)
    try:
        n = s16_length(&src, "samples")
        dispatch.kernels.level_peak(<const int16_t*>src.buf, n, energy, peak)
        return n
    finally:
        PyBuffer_Release(&src)


def level_dbfs(object samples):
    """Mean level of s16 samples, shape (n,), 2-byte aligned (else ValueError), in dBFS from SILENCE_DBFS to 0."""
    cdef int64_t energy
    cdef int32_t peak
    cdef Py_ssize_t n = _measure(samples, &energy, &peak)
    return energy_dbfs(energy, n)


def energy(object samples):
    """Sum of squares of s16 samples, shape (n,), 2-byte aligned (else ValueError)."""
    cdef int64_t total
    cdef int32_t peak
    _measure(samples, &total, &peak)
    return total


def peak(object samples):
    """Largest magnitude of s16 samples, shape (n,), 2-byte aligned (else ValueError): 0 to 32768."""
    cdef int64_t total
    cdef int32_t largest
    _measure(samples, &total, &largest)
    return largest
