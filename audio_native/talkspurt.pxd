"""One stream's talkspurts, for Uplink to hand samples to without a Python call."""
from libc.stdint cimport int16_t, int64_t, uint64_t

from audio_native.silero cimport SileroStream

cdef enum:
    # What happened, as bits of Uplink's flags.
    ONSET = 2
    CONFIRMED = 4
    OFFSET = 8

    # A frame of the detector: 30 ms at 48 kHz at most.
    FRAME_MAX = 1440

cdef class Talkspurt:
    cdef object _is_speech, _decide
    cdef SileroStream _scorer
    cdef int _rate_hz
    cdef Py_ssize_t _frame_samples, _framed
    cdef double _gate, _floor
    cdef readonly double power          # mean square of the last frame
    # In samples of the stream.
    cdef uint64_t _judged, _run_from, _hint_from, _hint_max
    cdef uint64_t _lead_gap, _lead_max, _sound_from, _sound_end
    cdef readonly uint64_t onset, voiced_end, lead
    cdef int64_t _onset_need, _hangover, _confirm
    cdef readonly int64_t voiced
    cdef readonly bint is_open
    cdef bint _confirmed, _is_hinted, _is_filling
    # Last, because frames that fill the detector's exactly never touch it.
    cdef int16_t _frame[FRAME_MAX]

    # The next n samples; is_filling: silence that we put there. Returns ONSET, CONFIRMED, OFFSET or 0.
    cdef int listen(self, const int16_t* samples, Py_ssize_t n, bint is_filling) except -1
    # The stream is over. Returns OFFSET or 0.
    cdef int close(self) noexcept
    cdef int _judge(self, const int16_t* frame) except -1
    cdef bint _agrees(self, const int16_t* frame, bint hinted) noexcept
    cdef void _begin_run(self) noexcept
    cdef int _track(self, bint is_voiced) noexcept
