"""Output audio of a ring of wire bytes, for Uplink without a Python call."""
from libc.stdint cimport uint8_t, uint64_t

from audio_native.fir cimport Fir
from audio_native.ring cimport WireRing

cdef class RingReader:
    cdef WireRing _ring
    cdef Fir _fir                   # for the rates of telephony; None where none is needed
    cdef object _resampler          # for others
    cdef int _codec, _width, _rate_hz
    cdef bint _out_wire, _is_over
    cdef uint64_t taken             # bytes of the ring
    cdef readonly int out_rate_hz
    cdef readonly uint64_t overruns

    # Positions are samples of the stream, no later than the ring's.
    cdef int seek(self, uint64_t from_samples) except -1
    cdef bytes take(self)
    cdef bytes history(self, uint64_t from_samples, uint64_t to_samples)
    # The stream is over: the next take lets the filter ring out.
    cdef void close(self) noexcept
    cdef int _warm(self, uint64_t start, Fir fir) except -1
    cdef bytes _render(self, uint64_t start, uint64_t stop, Fir fir, object resampler)
