"""Streaming FIR resampler between fixed pairs of rates; one object a direction and call."""
from libc.stdint cimport int16_t

cdef struct fir_plan

cdef class Fir:
    cdef const fir_plan* plan           # shared, made at import, never freed
    cdef readonly int in_hz
    cdef readonly int out_hz
    cdef int16_t history[3 * 40]        # planar: plan.history samples for each of plan.down planes
    cdef int16_t pending[3]             # samples of an unfinished group, less than plan.down of them
    cdef int pending_samples
    cdef bint is_fed                    # a stream that never began has no tail

    # Samples that process_c writes for n more; exact.
    cdef Py_ssize_t out_samples(self, Py_ssize_t n) noexcept nogil
    # src: n samples. dst: room for out_samples(n), no overlap. Returns samples written.
    cdef Py_ssize_t process_c(self, const int16_t* src, Py_ssize_t n, int16_t* dst) noexcept nogil
    # Room that flush_c needs, from any state; and the tail itself, after which the object is as new.
    cdef Py_ssize_t flush_bound(self) noexcept nogil
    cdef Py_ssize_t flush_c(self, int16_t* dst) noexcept nogil
    cdef void reset_c(self) noexcept nogil
