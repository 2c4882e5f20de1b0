"""Mixing in C. Gains are Q15, 0 to 32768 (unity); the caller checks them."""
from libc.stdint cimport int16_t, int32_t

# dst[i] = saturate(dst[i] + ((src[i] * gain_q15) >> 15)); src may be dst, else no overlap.
cdef void mix_q15_c(int16_t* dst, const int16_t* src, Py_ssize_t n, int32_t gain_q15) noexcept nogil
# In place; the gain moves in a straight line and would reach to_q15 at sample n, where the next piece begins.
cdef void gain_ramp_c(int16_t* dst, Py_ssize_t n, int32_t from_q15, int32_t to_q15) noexcept nogil
