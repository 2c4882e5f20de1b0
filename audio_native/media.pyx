"""Strict base64, and the one form of media message that makes up nearly all of a call's traffic.

A carrier writes its media messages always alike: the same keys in the same order, no spaces. `MediaGrammar` holds
that form as literal texts around the four values that change, and matches a message from end to end; what matches
is valid JSON in ASCII with exactly those members, so nothing is left for a parser to find. Whatever does not match
goes to the complete parser (server/wire), which hands in the texts of the form as well.
"""
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from audio_native.dispatch cimport kernels

cdef extern from "media.h" nogil:
    # Whether n bytes are the same; n is known to be short, so this is cheaper than a call of memcmp.
    bint text_is(const uint8_t* text, const uint8_t* expected, Py_ssize_t n)

cdef enum:
    # 10^18 fits in 64 bits; a longer number is left to the complete parser.
    MAX_DIGITS = 18


cdef Py_ssize_t b64_decode_c(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    return kernels.base64_decode(src, n, dst)


cdef Py_ssize_t b64_encode_c(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    kernels.base64_encode(src, n, dst)
    return (n + 2) // 3 * 4


def b64decode(object text):
    """Decode strict base64.

    Args:
        text: bytes-like, ASCII, padded, no line breaks.
    Raises:
        ValueError: any byte outside the alphabet, misplaced padding, a length that is no multiple of four.
    Source: RFC 4648, section 4.
    """
    cdef Py_buffer src
    cdef Py_ssize_t size
    cdef const uint8_t* at
    PyObject_GetBuffer(text, &src, PyBUF_SIMPLE)
    try:
        at = <const uint8_t*>src.buf
        size = src.len // 4 * 3
        if size:
            size -= (at[src.len - 1] == 61) + (at[src.len - 1] == 61 and at[src.len - 2] == 61)
        out = PyBytes_FromStringAndSize(NULL, size)
        # Safety: out has room for three bytes a group but for the padding; nobody sees it until it is filled.
        if b64_decode_c(at, src.len, <uint8_t*>PyBytes_AS_STRING(out)) != size:
            raise ValueError(f"expected strict base64, got {src.len} bytes that are not")
        return out
    finally:
        PyBuffer_Release(&src)


def b64encode(object data):
    """Encode bytes-like `data`, with padding. Source: RFC 4648, section 4."""
    cdef Py_buffer src
    PyObject_GetBuffer(data, &src, PyBUF_SIMPLE)
    try:
        out = PyBytes_FromStringAndSize(NULL, (src.len + 2) // 3 * 4)
        b64_encode_c(<const uint8_t*>src.buf, src.len, <uint8_t*>PyBytes_AS_STRING(out))
        return out
    finally:
        PyBuffer_Release(&src)


cdef class MediaWriter:
    """Writes media messages: `prefix`, the payload in base64, `suffix`, in one allocation."""

    cdef bytes _prefix, _suffix

    def __init__(self, bytes prefix not None, bytes suffix not None):
        self._prefix = prefix
        self._suffix = suffix

    def message(self, object payload):
        """One message that carries bytes-like `payload`."""
        cdef Py_buffer src
        cdef Py_ssize_t before = PyBytes_GET_SIZE(self._prefix), after = PyBytes_GET_SIZE(self._suffix), middle
        cdef char* at
        PyObject_GetBuffer(payload, &src, PyBUF_SIMPLE)
        try:
            middle = (src.len + 2) // 3 * 4
            out = PyBytes_FromStringAndSize(NULL, before + middle + after)
            at = PyBytes_AS_STRING(out)
            memcpy(at, PyBytes_AS_STRING(self._prefix), before)
            b64_encode_c(<const uint8_t*>src.buf, src.len, <uint8_t*>(at + before))
            memcpy(at + before + middle, PyBytes_AS_STRING(self._suffix), after)
            return out
        finally:
            PyBuffer_Release(&src)


cdef inline Py_ssize_t _literal(const uint8_t* text, Py_ssize_t left, bytes expected) noexcept:
    """Length of `expected` when `text` begins with it, else -1."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(expected)
    if left < n or not text_is(text, <const uint8_t*>PyBytes_AS_STRING(expected), n):
        return -1
    return n


cdef inline Py_ssize_t _number(const uint8_t* text, Py_ssize_t left, uint64_t* value) noexcept nogil:
    """Length of the decimal number that `text` begins with, else -1: none, too long, or a leading zero."""
    cdef Py_ssize_t i = 0
    cdef uint64_t sum = 0
    while i < left and 48 <= text[i] <= 57:
        if i == MAX_DIGITS:
            return -1
        sum = sum * 10 + (text[i] - 48)
        i += 1
    if i == 0 or (i > 1 and text[0] == 48):
        return -1
    value[0] = sum
    return i


cdef class MediaGrammar:
    """The form of one stream's media messages: literal texts before the numbers and the payload, and the end.

        sequence 17 chunk 16 timestamp 320 payload fn5+... tail
        {"event":"media","sequenceNumber":"17","media":{"track":"inbound","chunk":"16",...

    Each text includes the quotes around the values. Track and stream id are part of the texts, so a message of
    another track or stream does not match.
    """

    def __init__(
        self, bytes sequence not None, bytes chunk not None, bytes timestamp not None, bytes payload not None,
        bytes tail not None,
    ):
        for text in (sequence, chunk, timestamp, payload, tail):
            if not text or not text.isascii():
                raise ValueError(f"expected non-empty ASCII texts, got {text!r}")
        self._sequence = sequence
        self._chunk = chunk
        self._timestamp = timestamp
        self._payload = payload
        self._tail = tail

    cdef int scan(self, const uint8_t* text, Py_ssize_t n, media_fields* out) noexcept:
        cdef Py_ssize_t at = 0, step, end = n - PyBytes_GET_SIZE(self._tail)
        cdef uint64_t sequence = 0
        step = _literal(text, n, self._sequence)
        if step < 0 or end <= 0:
            return 0
        at = step
        step = _number(text + at, n - at, &sequence)
        if step < 0:
            return 0
        at += step
        step = _literal(text + at, n - at, self._chunk)
        if step < 0:
            return 0
        at += step
        step = _number(text + at, n - at, &out.chunk)
        if step < 0 or out.chunk == 0:
            return 0
        at += step
        step = _literal(text + at, n - at, self._timestamp)
        if step < 0:
            return 0
        at += step
        step = _number(text + at, n - at, &out.timestamp_ms)
        if step < 0:
            return 0
        at += step
        step = _literal(text + at, n - at, self._payload)
        if step < 0:
            return 0
        at += step
        if at > end or not text_is(text + end, <const uint8_t*>PyBytes_AS_STRING(self._tail), n - end):
            return 0
        out.payload = text + at
        out.payload_bytes = end - at
        return 1

    def fields(self, object message):
        """(chunk, timestamp_ms, payload in base64) of a message of this form, None for any other."""
        cdef Py_buffer src
        cdef media_fields found
        PyObject_GetBuffer(message, &src, PyBUF_SIMPLE)
        try:
            if not self.scan(<const uint8_t*>src.buf, src.len, &found):
                return None
            payload = PyBytes_FromStringAndSize(<const char*>found.payload, found.payload_bytes)
            return found.chunk, found.timestamp_ms, payload
        finally:
            PyBuffer_Release(&src)
