"""Silero VAD for many calls at once: the forward pass in C, one lane a call, at the vector width of this processor.

    s16 at 16 kHz ─► SileroStream.push (512 samples make a window) ─► SileroNet.score([streams]) ─► stream.score

Scores equal onnxruntime's to 1e-5; a call's scores do not depend on which others share its batch. `LEVEL` is the width
in use; AUDIO_NATIVE_ISA chooses it as it chooses the kernels (avx512 is this module's alone).
Thread: one, the event loop's; the working memory is shared by all batches.
"""
from libc.stdint cimport int16_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer

import math
import os

import numpy as np

cdef extern from "silero_net.h" nogil:
    int SILERO_WINDOW
    int SILERO_LANES_MAX
    ctypedef struct silero_net:
        float taper[256]
        float twiddle[128]
        float split[130]
        float conv0[1]
        float bias0[128]
        float conv1[1]
        float bias1[64]
        float conv2[1]
        float bias2[64]
        float conv3[1]
        float bias3[128]
        float lstm[1]
        float bias_lstm[512]
        float out[128]
        float bias_out
    ctypedef void (*silero_group)(
        const silero_net*, int, const int16_t* const*, silero_state* const*, float*
    ) noexcept nogil
    ctypedef struct silero_level:
        const char* name
        int narrow_lanes
        int wide_lanes
        silero_group narrow
        silero_group wide
    int silero_levels(silero_level* out)

cdef enum:
    WINDOW = 512
    # Two windows wait at most: a stream that nobody scores loses the oldest audio, counted.
    PENDING = 1024
    LANES = 32

WINDOW_SAMPLES = WINDOW
RATE_HZ = 16000

cdef silero_level _levels[3]
cdef int _level_count = silero_levels(_levels)
cdef int _level = 0

LEVELS = tuple([(<bytes>_levels[i].name).decode() for i in range(_level_count)])
LEVEL = LEVELS[0]


def set_level(str name not None):
    """Use another vector width from now on: one of LEVELS. Raises ValueError for others."""
    global _level, LEVEL
    if name not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}, got {name!r}")
    _level = LEVELS.index(name)
    LEVEL = name


def _choose():
    wanted = os.environ.get("AUDIO_NATIVE_ISA", "")
    if wanted in LEVELS:
        set_level(wanted)
    elif wanted:
        set_level(LEVELS[len(LEVELS) - 1])


_choose()


cdef class SileroStream:
    """What one call keeps: 1.3 KB of state, and audio of at most two windows that wait to be scored.

    Attributes:
        score: of the last window, 0 to 255 for probability 0 to 1; 0 before the first.
        probability: the same unrounded.
        windows: scored so far. overruns: samples that were dropped because nobody scored.
        tape: notes each score with the instant at which it became known; None for no note.
    """

    def __cinit__(self):
        self._state = <silero_state*>calloc(1, sizeof(silero_state))
        if self._state == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._state)

    cdef void push_c(self, const int16_t* samples, Py_ssize_t n) noexcept:
        cdef Py_ssize_t over = n + self._count - PENDING
        cdef Py_ssize_t part
        if over > 0:
            self.overruns += <unsigned long long>over
            part = min(over, <Py_ssize_t>self._count)
            self._count -= <int>part
            memmove(self._pending, self._pending + part, self._count * sizeof(int16_t))
            samples += over - part
            n -= over - part
        memcpy(self._pending + self._count, samples, n * sizeof(int16_t))
        self._count += <int>n

    def push(self, object samples):
        """Take s16 audio at 16 kHz, bytes-like, host order. Raises ValueError for half a sample."""
        cdef Py_buffer view
        PyObject_GetBuffer(samples, &view, PyBUF_SIMPLE)
        try:
            if view.len % 2:
                raise ValueError(f"expected whole samples of 2 bytes, got {view.len} bytes")
            self.push_c(<const int16_t*>view.buf, view.len // 2)
        finally:
            PyBuffer_Release(&view)

    @property
    def is_ready(self):
        """A whole window waits."""
        return self._count >= WINDOW

    def put_score(self, int score):
        """A score that became known elsewhere, 0 to 255: a captured one. Raises ValueError for others."""
        if not 0 <= score <= 255:
            raise ValueError(f"score: expected 0 to 255, got {score}")
        self.score = score
        self.probability = score / 255.0
        self.windows += 1

    def reset(self):
        """Forget everything: the next audio has nothing to do with the last."""
        memset(self._state, 0, sizeof(silero_state))
        self._count = 0
        self.score = 0
        self.probability = 0.0


cdef class SileroNet:
    """The network, shared by all calls of the process.

    Args:
        weights: tensors by name, as `silero_weights.read_weights` returns them.
    Raises:
        KeyError: a tensor is missing. ValueError: one has another size.
    """

    cdef silero_net* _net

    def __cinit__(self):
        self._net = <silero_net*>calloc(1, sizeof(silero_net))
        if self._net == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._net)

    def __init__(self, weights):
        at = np.arange(256)
        _fill(self._net.taper, 256, 0.5 - 0.5 * np.cos(2 * math.pi * at / 256))
        _fill(self._net.twiddle, 128, _circle(64, 128))
        _fill(self._net.split, 130, _circle(65, 256))
        for i in range(4):
            tensor = weights[f"encoder.{i}.reparam_conv.weight"]
            bias = weights[f"encoder.{i}.reparam_conv.bias"]
            if i == 0:
                _fill(self._net.conv0, 16 * 129 * 3 * 8, _blocks(tensor.reshape(128, -1)))
                _fill(self._net.bias0, 128, bias)
            elif i == 1:
                _fill(self._net.conv1, 8 * 128 * 3 * 8, _blocks(tensor.reshape(64, -1)))
                _fill(self._net.bias1, 64, bias)
            elif i == 2:
                _fill(self._net.conv2, 8 * 64 * 2 * 8, _blocks(tensor[:, :, 1:].reshape(64, -1)))
                _fill(self._net.bias2, 64, bias)
            else:
                _fill(self._net.conv3, 16 * 64 * 8, _blocks(tensor[:, :, 1]))
                _fill(self._net.bias3, 128, bias)
        both = np.concatenate([weights["decoder.rnn.weight_ih"], weights["decoder.rnn.weight_hh"]], axis=1)
        _fill(self._net.lstm, 64 * 256 * 8, _blocks(both))
        _fill(self._net.bias_lstm, 512, weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"])
        _fill(self._net.out, 128, weights["decoder.decoder.2.weight"])
        _fill(&self._net.bias_out, 1, weights["decoder.decoder.2.bias"])

    def score(self, list streams not None, int64_t now_ns=0):
        """Score one window of each stream that has one; the others are passed over. Returns how many were scored.

        now_ns: for the streams' tapes.
        """
        cdef const int16_t* audio[LANES]
        cdef silero_state* state[LANES]
        cdef float result[LANES]
        cdef const silero_level* level = &_levels[_level]
        cdef SileroStream stream
        cdef Py_ssize_t at = 0, size = len(streams), scored = 0
        cdef int count, i
        cdef list taken = []
        while at < size:
            count = 0
            taken.clear()
            while at < size and count < level.wide_lanes:
                stream = streams[at]
                at += 1
                if stream._count >= WINDOW:
                    audio[count] = stream._pending
                    state[count] = stream._state
                    taken.append(stream)
                    count += 1
            if count == 0:
                break
            if count <= level.narrow_lanes:
                level.narrow(self._net, count, audio, state, result)
            else:
                level.wide(self._net, count, audio, state, result)
            for i in range(count):
                stream = taken[i]
                stream._count -= WINDOW
                memmove(stream._pending, stream._pending + WINDOW, stream._count * sizeof(int16_t))
                stream.probability = result[i]
                stream.score = <int>(result[i] * 255.0 + 0.5)
                stream.windows += 1
                if stream.tape is not None:
                    stream.tape.score_c(stream.score, now_ns)
            scored += count
        return scored


def _circle(int count, int points):
    """cos, -sin of 2 pi k / points for k < count, one after the other."""
    angle = 2 * math.pi * np.arange(count) / points
    return np.stack([np.cos(angle), -np.sin(angle)], axis=1)


def _blocks(matrix):
    """Rows in blocks of eight: [block][input][8]."""
    return matrix.reshape(matrix.shape[0] // 8, 8, matrix.shape[1]).transpose(0, 2, 1)


cdef int _fill(float* dst, Py_ssize_t count, object values) except -1:
    cdef float[::1] flat = np.array(values, dtype=np.float32).reshape(-1)
    if flat.shape[0] != count:
        raise ValueError(f"expected {count} weights, got {flat.shape[0]}")
    memcpy(dst, &flat[0], count * sizeof(float))
    return 0
