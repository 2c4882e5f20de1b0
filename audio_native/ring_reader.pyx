"""From the wire bytes of a ring to the audio that a recogniser wants, made when it is taken.

    ring: wire bytes ─► as they are
                    └─► s16 ─► Fir (8, 16, 24, 48 kHz) or Resampler ─► s16 at out_rate_hz

A hundred milliseconds are decoded and filtered at once, in a scratch that all calls of the process share: a call keeps
one byte a sample, and no linear audio. Guarantees: what is taken in pieces, sought again or read as history is the
same, bit by bit, between rates of Fir. Thread: one, the event loop's; the scratch is shared.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, uint8_t, uint64_t

from audio_native.fetch cimport fetch_ahead
from audio_native.fir cimport Fir
from audio_native.ring cimport WireRing
from audio_native.wire_codec cimport PIECE, codec_of, width_of, wire_to_s16

from audio_native.fir import RATES
from audio_native.resample import Resampler

cdef enum:
    # Input samples before a span that settle every filter; a multiple of each ratio's group (2, 3 and 6).
    WARM_SAMPLES = 240

# Shared by all calls of the process: written and read within one call of _render, under the GIL.
cdef int16_t _scratch[PIECE + 64]


cdef class RingReader:
    """Reads one ring.

    Args:
        ring: wire bytes of `codec` at rate_hz.
        is_wire: hand out the bytes as they are; out_rate_hz is then rate_hz.
    Attributes:
        overruns: samples that were taken too late.
    """

    def __init__(self, WireRing ring not None, str codec, int rate_hz, bint is_wire, int out_rate_hz):
        self._ring = ring
        self._codec = codec_of(codec)
        self._width = width_of(self._codec)
        self._rate_hz = rate_hz
        self._out_wire = is_wire
        self.out_rate_hz = rate_hz if is_wire else out_rate_hz
        if (rate_hz, self.out_rate_hz) in RATES:
            self._fir = Fir(rate_hz, self.out_rate_hz)
        elif rate_hz != self.out_rate_hz:
            self._resampler = Resampler(rate_hz, self.out_rate_hz)

    cdef int seek(self, uint64_t from_samples) except -1:
        self.taken = max(from_samples * <uint64_t>self._width, self._ring.oldest_c())
        if self._fir is not None:
            self._fir.reset_c()
        elif self._resampler is not None:
            self._resampler.reset()
        return self._warm(self.taken, self._fir)

    cdef bytes take(self):
        cdef uint64_t position = self._ring._position
        cdef bytes audio
        if self._fir is not None:
            fetch_ahead(<void*>self._fir, 6)
        if self.taken < self._ring.oldest_c():
            self.overruns += (self._ring.oldest_c() - self.taken) // <uint64_t>self._width
            self.taken = self._ring.oldest_c()
        audio = self._render(self.taken, position, self._fir, self._resampler)
        self.taken = position
        if self._is_over:
            self._is_over = False
            if self._fir is not None:
                return audio + self._fir.flush()
            if self._resampler is not None:
                return audio + self._resampler.flush()
        return audio

    cdef bytes history(self, uint64_t from_samples, uint64_t to_samples):
        cdef uint64_t start = from_samples * <uint64_t>self._width, stop = to_samples * <uint64_t>self._width
        start = min(max(start, self._ring.oldest_c()), stop)
        fir = None if self._fir is None else Fir(self._rate_hz, self.out_rate_hz)
        resampler = None if self._resampler is None else Resampler(self._rate_hz, self.out_rate_hz)
        self._warm(start, fir)
        return self._render(start, stop, fir, resampler)

    cdef void close(self) noexcept:
        self._is_over = True

    cdef int _warm(self, uint64_t start, Fir fir) except -1:
        """Let a new filter see what came before `start`, as far as it is kept."""
        # Filters that give fewer samples work on groups; they must begin with a whole one.
        cdef uint64_t group = <uint64_t>(self._width if self.out_rate_hz % self._rate_hz == 0 else 6 * self._width)
        cdef uint64_t before
        if fir is not None and not self._out_wire:
            before = min(start - self._ring.oldest_c(), <uint64_t>(WARM_SAMPLES * self._width)) // group * group
            self._render(start - before, start, fir, None)
        return 0

    cdef bytes _render(self, uint64_t start, uint64_t stop, Fir fir, object resampler):
        cdef Py_ssize_t n = <Py_ssize_t>(stop - start) // self._width, piece
        cdef const uint8_t* src = self._ring.span(start)
        cdef int16_t* dst
        cdef bytes out
        if n == 0:
            return b""
        if self._out_wire:
            return PyBytes_FromStringAndSize(<const char*>src, n * self._width)
        if fir is None:
            out = PyBytes_FromStringAndSize(NULL, n * 2)
            wire_to_s16(self._codec, src, <int16_t*>PyBytes_AS_STRING(out), n)
            return out if resampler is None else resampler.process(out)
        fetch_ahead(src, <int>min(n * self._width // 64 + 1, 32))
        out = PyBytes_FromStringAndSize(NULL, fir.out_samples(n) * 2)
        dst = <int16_t*>PyBytes_AS_STRING(out)
        while n > 0:
            piece = min(n, PIECE)
            wire_to_s16(self._codec, src, _scratch, piece)
            # Safety: out has exactly the room that process_c fills; the scratch is not touched by it.
            dst += fir.process_c(_scratch, piece, dst)
            src += piece * self._width
            n -= piece
        return out
