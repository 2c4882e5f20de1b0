"""One call's stream, for Uplink to push frames into without a Python call."""
from libc.stdint cimport int16_t

from audio_native.tape cimport Tape

cdef extern from "silero_net.h" nogil:
    ctypedef struct silero_state:
        float hidden[128]

cdef class SileroStream:
    cdef silero_state* _state
    cdef int16_t _pending[1024]     # two windows
    cdef int _count
    cdef public Tape tape
    cdef readonly int score
    cdef readonly float probability
    cdef readonly unsigned long long windows, overruns

    # Takes n <= 1024 samples at 16 kHz; the oldest go when nobody scores.
    cdef void push_c(self, const int16_t* samples, Py_ssize_t n) noexcept
