"""The table of kernels for the level in use. Other modules cimport `kernels` and call through it."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

cdef extern from "kernel_table.h" nogil:
    ctypedef struct fir_term:
        int32_t at          # the pair applies to samples at and at + 1 of the plane
        int16_t tap[2]

    int FIR_STEP            # fir_row writes whole blocks of this many samples

    # What each entry does, and what it demands of its arguments, stands in kernel_table.h.
    ctypedef struct kernel_table:
        const char* name
        void (*pcmu_to_s16)(const uint8_t*, int16_t*, Py_ssize_t) noexcept nogil
        void (*pcma_to_s16)(const uint8_t*, int16_t*, Py_ssize_t) noexcept nogil
        void (*s16_to_pcmu)(const int16_t*, uint8_t*, Py_ssize_t) noexcept nogil
        void (*s16_to_pcma)(const int16_t*, uint8_t*, Py_ssize_t) noexcept nogil
        void (*fir_row)(const int16_t*, const fir_term*, Py_ssize_t, int, int16_t*, Py_ssize_t) noexcept nogil
        void (*interleave2)(const int16_t*, const int16_t*, int16_t*, Py_ssize_t) noexcept nogil
        void (*interleave3)(const int16_t*, const int16_t*, const int16_t*, int16_t*, Py_ssize_t) noexcept nogil
        void (*deinterleave2)(const int16_t*, int16_t*, int16_t*, Py_ssize_t) noexcept nogil
        void (*deinterleave3)(const int16_t*, int16_t*, int16_t*, int16_t*, Py_ssize_t) noexcept nogil
        void (*level_peak)(const int16_t*, Py_ssize_t, int64_t*, int32_t*) noexcept nogil
        void (*mix_q15)(int16_t*, const int16_t*, Py_ssize_t, int32_t) noexcept nogil
        void (*gain_ramp)(int16_t*, Py_ssize_t, int32_t, int32_t) noexcept nogil
        Py_ssize_t (*base64_decode)(const uint8_t*, Py_ssize_t, uint8_t*) noexcept nogil
        void (*base64_encode)(const uint8_t*, Py_ssize_t, uint8_t*) noexcept nogil

# Never NULL once audio_native.dispatch is imported; changes only in set_isa, under the GIL.
cdef const kernel_table* kernels
