"""The forms that a payload may have on the wire, and how each becomes linear samples."""
from libc.stdint cimport int16_t, uint8_t, uint16_t
from libc.string cimport memcpy

from audio_native.dispatch cimport kernels

cdef enum:
    PCMU = 0
    PCMA = 1
    L16 = 2         # network order
    S16 = 3         # host order

    # Samples that are worked on at once; longer audio goes in pieces.
    PIECE = 1600

# Bytes of a sample.
cdef inline int width_of(int codec) noexcept nogil:
    return 1 if codec <= PCMA else 2


cdef inline void swap16(const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        dst[i] = <int16_t>(<uint16_t>((<uint16_t>src[2 * i] << 8) | src[2 * i + 1]))


# n samples, dst has room for them.
cdef inline void wire_to_s16(int codec, const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil:
    if codec == PCMU:
        kernels.pcmu_to_s16(src, dst, n)
    elif codec == PCMA:
        kernels.pcma_to_s16(src, dst, n)
    elif codec == L16:
        swap16(src, dst, n)
    else:
        memcpy(dst, src, n * 2)


# The number of a codec's name. Raises ValueError.
cdef int codec_of(str name) except -1
# PIECE samples of silence.
cdef const uint8_t* wire_silence(int codec) noexcept nogil
