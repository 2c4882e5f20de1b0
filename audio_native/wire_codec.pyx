"""Names and silence of the forms that a payload may have on the wire; the decoding is inline in the .pxd."""
from libc.stdint cimport uint8_t
from libc.string cimport memset

_CODECS = {"PCMU": PCMU, "PCMA": PCMA, "L16": L16, "S16": S16}

# By codec; A-law has no zero, 0xD5 is the least it can say.
cdef uint8_t _silence[4][PIECE * 2]
memset(_silence[PCMU], 0xFF, sizeof(_silence[PCMU]))
memset(_silence[PCMA], 0xD5, sizeof(_silence[PCMA]))


cdef int codec_of(str name) except -1:
    if name not in _CODECS:
        raise ValueError(f"codec: expected one of {', '.join(_CODECS)}, got {name!r}")
    return _CODECS[name]


cdef const uint8_t* wire_silence(int codec) noexcept nogil:
    return _silence[codec]
