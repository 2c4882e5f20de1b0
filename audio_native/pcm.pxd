"""Checks that every kernel's Python face shares: inline, so that they cost nothing to cimport."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t


cdef inline Py_ssize_t s16_length(const Py_buffer* view, str what) except -1:
    """Samples in a buffer of s16; refuses half a sample and odd addresses."""
    if view.len & 1 or <uintptr_t>view.buf & 1:
        raise ValueError(f"{what}: want whole, 2-byte aligned s16 samples; got {view.len} bytes")
    return view.len >> 1
