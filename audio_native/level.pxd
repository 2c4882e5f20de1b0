"""Level in C: energy and peak of n samples in one pass; 0 and 0 for n = 0."""
from libc.stdint cimport int16_t, int32_t, int64_t

cdef void level_peak(const int16_t* src, Py_ssize_t n, int64_t* energy, int32_t* peak) noexcept nogil
# dBFS of an energy over n samples; SILENCE_DBFS for silence or n = 0.
cdef double energy_dbfs(int64_t energy, Py_ssize_t n) noexcept nogil
