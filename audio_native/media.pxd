"""Base64 and the carriers' media messages in C."""
from libc.stdint cimport uint8_t, uint64_t

# dst: room for n / 4 * 3. Returns bytes written, -1 for anything but strict base64 (RFC 4648, 4), dst then undefined.
cdef Py_ssize_t b64_decode_c(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil
# dst: room for (n + 2) / 3 * 4. Returns bytes written.
cdef Py_ssize_t b64_encode_c(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil

cdef struct media_fields:
    uint64_t chunk
    uint64_t timestamp_ms
    const uint8_t* payload      # base64, inside the message
    Py_ssize_t payload_bytes

cdef class MediaGrammar:
    cdef bytes _sequence, _chunk, _timestamp, _payload, _tail
    # 1: fields are set. 0: not a message of this form; the complete parser decides what it is.
    cdef int scan(self, const uint8_t* text, Py_ssize_t n, media_fields* out) noexcept
