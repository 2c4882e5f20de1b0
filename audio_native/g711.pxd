"""G.711 in C: one code for one sample, n of them; buffers do not overlap; any n >= 0."""
from libc.stdint cimport int16_t, uint8_t

cdef void pcmu_to_s16(const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil
cdef void pcma_to_s16(const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil
cdef void s16_to_pcmu(const int16_t* src, uint8_t* dst, Py_ssize_t n) noexcept nogil
cdef void s16_to_pcma(const int16_t* src, uint8_t* dst, Py_ssize_t n) noexcept nogil
