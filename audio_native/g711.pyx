"""G.711 mu-law (PCMU) and A-law (PCMA), both ways.

Every result equals audioop's (Sun's g711.c): encoders in use differ by one decision threshold (ffmpeg on 512 mu-law and
964 A-law inputs of 65,536), so one had to be named.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, uint8_t, uintptr_t

from audio_native cimport dispatch
from audio_native.pcm cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer, s16_length,
)

ctypedef void (*expand_t)(const uint8_t*, int16_t*, Py_ssize_t) noexcept nogil
ctypedef void (*compress_t)(const int16_t*, uint8_t*, Py_ssize_t) noexcept nogil


cdef void pcmu_to_s16(const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil:
    dispatch.kernels.pcmu_to_s16(src, dst, n)


cdef void pcma_to_s16(const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil:
    dispatch.kernels.pcma_to_s16(src, dst, n)


cdef void s16_to_pcmu(const int16_t* src, uint8_t* dst, Py_ssize_t n) noexcept nogil:
    dispatch.kernels.s16_to_pcmu(src, dst, n)


cdef void s16_to_pcma(const int16_t* src, uint8_t* dst, Py_ssize_t n) noexcept nogil:
    dispatch.kernels.s16_to_pcma(src, dst, n)


cdef inline int _refuse_overlap(const Py_buffer* src, const Py_buffer* dst) except -1:
    cdef uintptr_t s = <uintptr_t>src.buf, d = <uintptr_t>dst.buf
    if s < d + <uintptr_t>dst.len and d < s + <uintptr_t>src.len:
        raise ValueError("out: overlaps the input")
    return 0


cdef inline Py_ssize_t _decode(object payload, object out, expand_t expand) except -1:
    cdef Py_buffer src, dst
    PyObject_GetBuffer(payload, &src, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &dst, PyBUF_WRITABLE)
        try:
            if dst.len < 2 * src.len or <uintptr_t>dst.buf & 1:
                raise ValueError(f"out: need {2 * src.len} bytes, 2-byte aligned; got {dst.len}")
            _refuse_overlap(&src, &dst)
            # Safety: src.len codes fit dst (checked above); both views are held until we return.
            expand(<const uint8_t*>src.buf, <int16_t*>dst.buf, src.len)
            return src.len
        finally:
            PyBuffer_Release(&dst)
    finally:
        PyBuffer_Release(&src)


cdef inline Py_ssize_t _encode(object samples, object out, compress_t compress) except -1:
    cdef Py_buffer src, dst
    cdef Py_ssize_t n
    PyObject_GetBuffer(samples, &src, PyBUF_SIMPLE)
    try:
        n = s16_length(&src, "samples")
        PyObject_GetBuffer(out, &dst, PyBUF_WRITABLE)
        try:
            if dst.len < n:
                raise ValueError(f"out: need {n} bytes; got {dst.len}")
            _refuse_overlap(&src, &dst)
            # Safety: n codes fit dst (checked above); both views are held until we return.
            compress(<const int16_t*>src.buf, <uint8_t*>dst.buf, n)
            return n
        finally:
            PyBuffer_Release(&dst)
    finally:
        PyBuffer_Release(&src)


cdef inline bytes _expanded(object payload, expand_t expand):
    cdef Py_buffer src
    cdef bytes out
    PyObject_GetBuffer(payload, &src, PyBUF_SIMPLE)
    try:
        out = PyBytes_FromStringAndSize(NULL, 2 * src.len)
        # Safety: out is ours alone until returned; its data is aligned as malloc aligns it.
        expand(<const uint8_t*>src.buf, <int16_t*>PyBytes_AS_STRING(out), src.len)
        return out
    finally:
        PyBuffer_Release(&src)


cdef inline bytes _compressed(object samples, compress_t compress):
    cdef Py_buffer src
    cdef Py_ssize_t n
    cdef bytes out
    PyObject_GetBuffer(samples, &src, PyBUF_SIMPLE)
    try:
        n = s16_length(&src, "samples")
        out = PyBytes_FromStringAndSize(NULL, n)
        compress(<const int16_t*>src.buf, <uint8_t*>PyBytes_AS_STRING(out), n)
        return out
    finally:
        PyBuffer_Release(&src)


def decode_pcmu(object payload, object out):
    """Expand PCMU codes to linear samples, one code to one sample.

    Args:
        payload: mu-law codes, uint8, shape (n,).
        out: destination, int16 host order, shape (>= n,), 2-byte aligned; written in place.
    Returns:
        Samples written, always n.
    Raises:
        ValueError: out is too short, misaligned or overlaps payload; nothing has been written.
    Source: ITU-T G.711, tables 2a and 2b; full scale is +-32124 of +-32767.
    """
    return _decode(payload, out, dispatch.kernels.pcmu_to_s16)


def decode_pcma(object payload, object out):
    """Expand PCMA codes to linear samples; arguments and errors as decode_pcmu.

    Source: ITU-T G.711, tables 1a and 1b; full scale is +-32256 of +-32767.
    """
    return _decode(payload, out, dispatch.kernels.pcma_to_s16)


def encode_pcmu(object samples, object out):
    """Compress linear samples to PCMU codes, one sample to one code.

    Args:
        samples: int16 host order, shape (n,), 2-byte aligned.
        out: destination, uint8, shape (>= n,); written in place.
    Returns:
        Codes written, always n.
    Raises:
        ValueError: half a sample, a misaligned input, or an out that is too short or overlaps; nothing has been written.
    Source: ITU-T G.711 on the upper 14 bits; thresholds as in audioop.
    """
    return _encode(samples, out, dispatch.kernels.s16_to_pcmu)


def encode_pcma(object samples, object out):
    """Compress linear samples to PCMA codes, on the upper 13 bits; arguments and errors as encode_pcmu."""
    return _encode(samples, out, dispatch.kernels.s16_to_pcma)


def pcmu_to_bytes(object payload):
    """PCMU codes, uint8 (n,), to new bytes of s16 samples (2n bytes)."""
    return _expanded(payload, dispatch.kernels.pcmu_to_s16)


def pcma_to_bytes(object payload):
    """PCMA codes, uint8 (n,), to new bytes of s16 samples (2n bytes)."""
    return _expanded(payload, dispatch.kernels.pcma_to_s16)


def bytes_to_pcmu(object samples):
    """s16 samples (2n bytes, aligned, else ValueError) to new bytes of PCMU codes (n bytes)."""
    return _compressed(samples, dispatch.kernels.s16_to_pcmu)


def bytes_to_pcma(object samples):
    """s16 samples (2n bytes, aligned, else ValueError) to new bytes of PCMA codes (n bytes)."""
    return _compressed(samples, dispatch.kernels.s16_to_pcma)
