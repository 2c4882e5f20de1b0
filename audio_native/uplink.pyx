"""A call's way in: one native call for each message of the carrier.

    message ─► MediaGrammar.scan ─► base64 ─► order by chunk ─► level ─► speech ─► flags
                    │ no match       │ bad         │              └ s16 in a scratch of all calls
                    ▼                ▼             └► ring (wire bytes)
            F_SLOW: the complete   F_BAD
            parser, feed_payload

The ring keeps what came over the wire; linear samples exist only in a scratch that all calls of the process share,
so a call's hot state is a few cache lines. Recogniser audio is made when it is taken, a hundred milliseconds at once.

Guarantees: media time counts every sample once, whatever the order, loss or repetition of messages; nothing raises
for what a peer sends. Leaves to others: what else a message may be (server/wire), what speech means (server/turn).
Thread: one, the event loop's; the scratch is shared.
"""
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport log10
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset

from audio_native.dispatch cimport kernels
from audio_native.fir cimport Fir
from audio_native.media cimport MediaGrammar, b64_decode_c, media_fields
from audio_native.ring cimport WireRing
from audio_native.silero cimport SileroStream
from audio_native.tape cimport Tape

from audio_native.fir import RATES
from audio_native.resample import Resampler

cdef extern from "uplink.h" nogil:
    void fetch_ahead(const void* at, int lines)

F_AUDIO = 1
F_ONSET = 2
F_CONFIRMED = 4
F_OFFSET = 8
F_SLOW = 16
F_BAD = 32

cdef enum:
    AUDIO = 1
    ONSET = 2
    CONFIRMED = 4
    OFFSET = 8
    SLOW = 16
    BAD = 32

    PCMU = 0
    PCMA = 1
    L16 = 2
    S16 = 3

    # Samples that are worked on at once; longer messages go in pieces.
    PIECE = 1600
    # A frame of the detector: 30 ms at 48 kHz at most.
    FRAME_MAX = 1440
    # An RTP stream of 20 ms frames within a 60 ms window holds three; more slots than this are refused.
    SLOTS_MAX = 16
    MESSAGE_MAX = 65536
    GAP_MAX_MS = 10000
    # Timestamps ahead of the samples by more than the window of reordering, with no chunk missing: the carrier sent
    # nothing in silence. Less than that is jitter of the carrier's clock.
    PAUSE_MIN_MS = 60
    # Timestamps that far behind began anew.
    BEHIND_MAX_MS = 1000
    # A chunk number that far ahead of messages which still come in order belongs to no message of this stream.
    AHEAD_MAX = 1000
    # Chunk numbers further back are not late: numbering began anew, when RESTART of them come in a row.
    BEHIND_MAX = 64
    RESTART = 5
    # A year, and far below what overflows when multiplied by the rate.
    TIMESTAMP_MAX_MS = 40000000000
    # Scores of 255 that open a talkspurt and keep one open: probabilities .5 and .35, as its authors use them.
    OPENS_SCORE = 128
    KEEPS_SCORE = 90
    # How far before the score's agreement a talkspurt may have begun: the network's own delay (p95 110 ms at 10 dB of
    # noise), a window of 32 ms and the wait for its batch.
    HINT_MAX_MS = 160
    # Input samples before a span that settle every filter; a multiple of each ratio's group (2, 3 and 6).
    WARM_SAMPLES = 240

# Shared by all calls of the process: written and read within one call of feed, under the GIL.
cdef int16_t _scratch[PIECE + 64]
cdef uint8_t _coded[MESSAGE_MAX]
cdef int16_t _doubled[FRAME_MAX]

# PIECE samples of each codec, by its number; A-law has no zero, 0xD5 is the least it can say.
cdef uint8_t _silence[4][PIECE * 2]
memset(_silence[PCMU], 0xFF, sizeof(_silence[PCMU]))
memset(_silence[PCMA], 0xD5, sizeof(_silence[PCMA]))

_CODECS = {"PCMU": PCMU, "PCMA": PCMA, "L16": L16, "S16": S16}


cdef inline void _swap16(const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        dst[i] = <int16_t>(<uint16_t>((<uint16_t>src[2 * i] << 8) | src[2 * i + 1]))


cdef bint _is_plain(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    """Whether JSON reads these bytes, found between two quotes, as one text of just these characters."""
    cdef Py_ssize_t i
    for i in range(n):
        # 34: the text ends before. 92: an escape, \/ for one. Others are no JSON, or not ASCII.
        if text[i] == 34 or text[i] == 92 or text[i] < 32 or text[i] > 126:
            return False
    return True


cdef class Uplink:
    """One stream's uplink.

    Args:
        grammar: form of the carrier's media messages for `feed`; None sends every message to the complete parser.
        codec, rate_hz: of the payloads: PCMU, PCMA (8 bits a sample), L16 (network order), S16 (host order).
        out: "wire" hands out the payload bytes as they came, "s16" linear samples at out_rate_hz.
        detector: judges frames of its own length at rate_hz; None never hears speech.
        decider: asked about frames that `detector` takes for speech; both must agree. None: detector decides.
        scorer: a Silero stream that gets every frame and is scored elsewhere, for many calls at once. A frame is speech
            when `detector` takes it for speech and the last score agrees; rate_hz must be 8000 or 16000.
        tape: notes each media message as it came; set its `now_ns` before each.
        onset_ms, hangover_ms: speech that opens, silence that closes a talkspurt. confirm_ms: voiced time in it
            until F_CONFIRMED.
        level_gate_dbfs: quieter frames are no speech; nor are frames less than 6 dB above the tracked noise.
        history_ms: wire audio that is kept. chunk_ms: output audio that raises F_AUDIO while `is_wanted`.
        reorder_frames: messages that are held for one that is missing.
    Attributes:
        is_wanted: whether somebody takes the output; F_AUDIO is raised only then.
        onset_samples, offset_samples: first sample of the last talkspurt, one past its last voiced one.
        speech_samples: voiced samples of the talkspurt so far.
        position_samples: media time, filled gaps included.
        level_dbfs: of the last frame.
        frames, duplicates, late, reordered, bad: messages; gap_samples: silence filled in; overruns: samples that
            were taken too late.
    Raises:
        ValueError: an argument out of its range.
    """

    cdef MediaGrammar _grammar
    cdef WireRing _ring
    cdef object _is_speech, _decide
    cdef SileroStream _scorer
    cdef Tape _tape
    cdef Fir _fir                   # for the rates of telephony; None where none is needed
    cdef object _resampler          # for others
    cdef int _codec, _width
    cdef bint _out_wire
    cdef readonly int rate_hz, out_rate_hz
    cdef public bint is_wanted
    # media time and order
    cdef uint64_t _next_chunk       # 0: nothing has been stored yet
    cdef int64_t _origin            # of the carrier's time: position_samples * 1000 - timestamp_ms * rate_hz
    cdef int64_t _last_ms
    cdef list _held
    cdef int _slots, _strays
    cdef uint64_t _last_stray
    cdef Py_ssize_t _last_samples
    cdef uint64_t _taken, _chunk_bytes
    # talkspurts, in samples
    cdef Py_ssize_t _frame_samples, _framed
    cdef double _gate, _floor, _power
    cdef uint64_t _judged, _run_from, _onset, _voiced_end
    cdef int64_t _onset_need, _hangover, _confirm, _voiced
    cdef bint _in_speech, _confirmed, _is_filling, _is_over, _is_hinted
    cdef uint64_t _hint_from, _hint_max
    cdef readonly uint64_t frames, duplicates, late, reordered, bad, gap_samples, overruns
    # Last, because frames that fill the detector's exactly never touch it.
    cdef int16_t _frame[FRAME_MAX]

    def __init__(
        self, *, grammar, str codec, int rate_hz=8000, str out="s16", int out_rate_hz=16000, detector=None,
        decider=None, scorer=None, tape=None, int onset_ms=60, int hangover_ms=200, int confirm_ms=200,
        double level_gate_dbfs=-55.0, int history_ms=8000, int chunk_ms=100, int reorder_frames=3,
    ):
        if codec not in _CODECS:
            raise ValueError(f"codec: expected one of {', '.join(_CODECS)}, got {codec!r}")
        if out not in ("wire", "s16"):
            raise ValueError(f"out: expected wire or s16, got {out!r}")
        for name, value, low, high in (
            ("rate_hz", rate_hz, 8000, 48000), ("out_rate_hz", out_rate_hz, 8000, 48000),
            ("onset_ms", onset_ms, 10, 2000), ("hangover_ms", hangover_ms, 10, 5000),
            ("confirm_ms", confirm_ms, onset_ms, 5000), ("level_gate_dbfs", level_gate_dbfs, -96, 0),
            ("history_ms", history_ms, 500, 60000), ("chunk_ms", chunk_ms, 10, 1000),
            ("reorder_frames", reorder_frames, 0, SLOTS_MAX),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high}, got {value}")
        self._grammar = grammar
        self._codec = _CODECS[codec]
        self._width = 1 if self._codec in (PCMU, PCMA) else 2
        self.rate_hz = rate_hz
        self._out_wire = out == "wire"
        self.out_rate_hz = rate_hz if self._out_wire else out_rate_hz
        if (rate_hz, self.out_rate_hz) in RATES:
            self._fir = Fir(rate_hz, self.out_rate_hz)
        elif rate_hz != self.out_rate_hz:
            self._resampler = Resampler(rate_hz, self.out_rate_hz)
        self._ring = WireRing(history_ms * rate_hz // 1000 * self._width)
        self._chunk_bytes = chunk_ms * rate_hz // 1000 * self._width
        self._held = []
        self._slots = reorder_frames
        self._set_detectors(detector, decider)
        if scorer is not None and rate_hz not in (8000, 16000):
            raise ValueError(f"scorer: expected 8000 or 16000 Hz, got {rate_hz}")
        self._scorer = scorer
        self._tape = tape
        self._gate = 32768.0 * 32768.0 * 10.0 ** (level_gate_dbfs / 10.0)
        self._floor = self._gate
        self._onset_need = onset_ms * rate_hz // 1000
        self._hangover = hangover_ms * rate_hz // 1000
        self._confirm = confirm_ms * rate_hz // 1000
        self._hint_max = HINT_MAX_MS * rate_hz // 1000

    cdef _set_detectors(self, detector, decider):
        self._is_speech = self._decide = None
        self._frame_samples = 20 * self.rate_hz // 1000
        if detector is not None:
            if detector.rate_hz != self.rate_hz:
                raise ValueError(f"detector: expected {self.rate_hz} Hz, got {detector.rate_hz}")
            self._frame_samples = detector.frame_ms * self.rate_hz // 1000
            self._is_speech = detector.is_speech
        if decider is not None:
            if detector is None or (decider.rate_hz, decider.frame_ms) != (detector.rate_hz, detector.frame_ms):
                raise ValueError("decider: expected the rate and frame of the detector")
            self._decide = decider.is_speech
        if not 1 <= self._frame_samples <= FRAME_MAX:
            raise ValueError(f"detector: expected frames of at most {FRAME_MAX} samples, got {self._frame_samples}")

    # ── messages in ───────────────────────────────────────────────────────────────────────────────────────────

    def feed(self, object message):
        """Take one text message of the carrier, bytes-like. Returns flags; 0: taken, and nothing happened."""
        cdef Py_buffer view
        if PyBytes_CheckExact(message):
            return self._feed(<const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            return self._feed(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int _feed(self, const uint8_t* text, Py_ssize_t n) except -1:
        cdef media_fields found
        cdef Py_ssize_t size
        if self._grammar is None:
            return SLOW
        fetch_ahead(<void*>self, 6)
        fetch_ahead(<void*>self._grammar, 2)
        fetch_ahead(<void*>self._ring, 2)
        if n > MESSAGE_MAX or not self._grammar.scan(text, n, &found):
            return SLOW
        fetch_ahead(self._ring._room, 3)
        size = b64_decode_c(found.payload, found.payload_bytes, _coded)
        if size > 0 and size % self._width == 0:
            if self._tape is not None:
                self._tape.media_c(found.chunk, found.timestamp_ms, _coded, size)
            return self._order(_coded, size, found.chunk, found.timestamp_ms)
        if size < 0 and not _is_plain(found.payload, found.payload_bytes):
            return SLOW
        return self._refuse()

    cdef int _refuse(self) noexcept:
        if self._tape is not None:
            self._tape.bad_c()
        self.bad += 1
        return BAD

    def feed_payload(self, bytes payload not None, uint64_t chunk, uint64_t timestamp_ms):
        """Take a payload that the complete parser decoded. Returns flags, never F_SLOW."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        if size == 0 or size % self._width or size > MESSAGE_MAX or chunk == 0:
            return self._refuse()
        if self._tape is not None:
            self._tape.media_c(chunk, timestamp_ms, <const uint8_t*>PyBytes_AS_STRING(payload), size)
        return self._order(<const uint8_t*>PyBytes_AS_STRING(payload), size, chunk, timestamp_ms)

    def flush(self):
        """The stream is over: take what was held for a missing message, end the talkspurt, let the filter ring out
        into the next `take`. Returns flags."""
        cdef int flags = self._release(0)
        self._is_over = True
        if self._in_speech:
            self._in_speech = False
            self._voiced = 0
            flags |= OFFSET
        return flags

    # ── order ─────────────────────────────────────────────────────────────────────────────────────────────────

    cdef int _order(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        """Put one payload where its chunk number says."""
        if chunk == self._next_chunk and not self._held:
            self._strays = 0
            return self._store(coded, size, chunk, timestamp_ms)
        return self._reorder(coded, size, chunk, timestamp_ms)

    cdef int _reorder(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        """The same for a message that is not simply the next one."""
        cdef int flags
        if self._next_chunk == 0 and not self._held and (chunk == 1 or chunk > <uint64_t>self._slots + 1):
            # Chunks count from 1; where the first one we see is no neighbour of it, the stream was there before us.
            return self._store(coded, size, chunk, timestamp_ms)
        if chunk < self._next_chunk:
            # Its place in time has been filled: by itself, or by silence when it was given up.
            self.duplicates += 1
            return self._restart(coded, size, chunk, timestamp_ms) if self._next_chunk - chunk > BEHIND_MAX else 0
        self._strays = 0
        if chunk == self._next_chunk:
            flags = self._store(coded, size, chunk, timestamp_ms) | self._release(self._slots)
            while self._held and self._held[len(self._held) - 1][0] > self._next_chunk + AHEAD_MAX:
                self._held.pop()
                self.bad += 1
            return flags
        for one in self._held:
            if one[0] == chunk:
                self.duplicates += 1
                return 0
        self._held.append((chunk, timestamp_ms, PyBytes_FromStringAndSize(<const char*>coded, size)))
        self._held.sort()
        return self._release(self._slots)

    cdef int _restart(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        """Far too low a number: dropped, until RESTART in a row say that the carrier counts anew."""
        self._strays = self._strays + 1 if chunk == self._last_stray + 1 else 1
        self._last_stray = chunk
        if self._strays < RESTART:
            return 0
        self._strays = 0
        self._held.clear()
        self._anchor(timestamp_ms)
        return self._store(coded, size, chunk, timestamp_ms)

    cdef int _release(self, Py_ssize_t may_hold) except -1:
        """Store what is next in order; when more than `may_hold` wait, what is missing is given up."""
        cdef int flags = 0
        cdef bytes payload
        while self._held:
            chunk, timestamp_ms, payload = self._held[0]
            if chunk == self._next_chunk:
                self.reordered += 1
            elif len(self._held) <= may_hold:
                break
            elif self._next_chunk:
                self.late += chunk - self._next_chunk
            del self._held[0]
            flags |= self._store(
                <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), chunk, timestamp_ms
            )
        return flags

    # ── media time ────────────────────────────────────────────────────────────────────────────────────────────

    cdef inline void _anchor(self, uint64_t timestamp_ms) noexcept:
        """The carrier's time and ours agree now."""
        self._origin = <int64_t>(self._position() * 1000) - <int64_t>timestamp_ms * self.rate_hz

    cdef inline uint64_t _position(self) noexcept:
        return self._ring._position >> (self._width - 1)

    cdef int _store(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1:
        """The next payload in order: silence for what is missing before it, then itself."""
        cdef int64_t ahead
        cdef int flags = 0
        if timestamp_ms > TIMESTAMP_MAX_MS:
            timestamp_ms = <uint64_t>self._last_ms
        if self._next_chunk == 0:
            self._anchor(timestamp_ms)
        # In thousandths of a sample, so that frames which are no whole milliseconds do not drift.
        ahead = <int64_t>timestamp_ms * self.rate_hz + self._origin - <int64_t>(self._position() * 1000)
        if chunk != self._next_chunk or ahead > <int64_t>PAUSE_MIN_MS * self.rate_hz or (
            ahead < -<int64_t>BEHIND_MAX_MS * self.rate_hz
        ):
            flags = self._bridge(ahead, chunk, timestamp_ms)
        flags |= self._take_in(coded, size // self._width)
        self.frames += 1
        self._next_chunk = chunk + 1
        self._last_samples = size // self._width
        self._last_ms = <int64_t>timestamp_ms
        return flags

    cdef int _bridge(self, int64_t ahead, uint64_t chunk, uint64_t timestamp_ms) except -1:
        """Silence up to the payload that is stored next, so that media time goes on as the caller's did."""
        cdef int64_t most = <int64_t>GAP_MAX_MS * self.rate_hz // 1000, missing = 0
        cdef int flags = 0
        cdef Py_ssize_t piece
        if self._next_chunk and chunk > self._next_chunk and <int64_t>timestamp_ms <= self._last_ms:
            # Timestamps that do not tell: as many samples as the last message had.
            missing = <int64_t>min(chunk - self._next_chunk, <uint64_t>10_000) * self._last_samples
        elif ahead > 0:
            missing = ahead // 1000
        missing = min(missing, most)
        self.gap_samples += <uint64_t>missing
        self._is_filling = True
        while missing > 0:
            piece = <Py_ssize_t>min(missing, PIECE)
            flags |= self._take_in(_silence[self._codec], piece)
            missing -= piece
        self._is_filling = False
        ahead = <int64_t>timestamp_ms * self.rate_hz + self._origin - <int64_t>(self._position() * 1000)
        if ahead >= 1000 or ahead < -<int64_t>BEHIND_MAX_MS * self.rate_hz:
            # More was missing than we fill, or their time began anew: from here on they agree again.
            self._anchor(timestamp_ms)
        return flags

    # ── samples ───────────────────────────────────────────────────────────────────────────────────────────────

    cdef void _decode(self, const uint8_t* src, int16_t* dst, Py_ssize_t n) noexcept:
        if self._codec == PCMU:
            kernels.pcmu_to_s16(src, dst, n)
        elif self._codec == PCMA:
            kernels.pcma_to_s16(src, dst, n)
        elif self._codec == L16:
            _swap16(src, dst, n)
        else:
            memcpy(dst, src, n * 2)

    cdef int _take_in(self, const uint8_t* coded, Py_ssize_t n) except -1:
        """The next `n` samples of the stream: listen to them, keep them."""
        cdef Py_ssize_t piece
        cdef int flags = 0
        while n > 0:
            piece = min(n, PIECE)
            # Safety: piece <= PIECE, the room of the scratch.
            self._decode(coded, _scratch, piece)
            flags |= self._listen(_scratch, piece)
            # Last: the ring's memory is the coldest, and nothing waits for a store.
            self._ring.append(coded, piece * self._width)
            coded += piece * self._width
            n -= piece
        if self.is_wanted and self._ring._position - self._taken >= self._chunk_bytes:
            flags |= AUDIO
        return flags

    cdef int _listen(self, const int16_t* samples, Py_ssize_t n) except -1:
        """Cut `n` samples into frames of the detector, whatever the carrier's are."""
        cdef Py_ssize_t part
        cdef int flags = 0
        while n > 0:
            if self._framed == 0 and n >= self._frame_samples:
                part = self._frame_samples
                flags |= self._judge(samples)
            else:
                part = min(n, self._frame_samples - self._framed)
                memcpy(self._frame + self._framed, samples, part * 2)
                self._framed += part
                if self._framed == self._frame_samples:
                    self._framed = 0
                    flags |= self._judge(self._frame)
            samples += part
            n -= part
        return flags

    cdef int _judge(self, const int16_t* frame) except -1:
        """One whole frame: speech or not, and what that means for the talkspurt."""
        cdef int64_t energy = 0
        cdef int32_t peak = 0
        cdef bint voiced = False
        kernels.level_peak(frame, self._frame_samples, &energy, &peak)
        self._power = <double>energy / <double>self._frame_samples
        # Noise is the quietest there has been lately: down at once, up by about 1 dB a second. Not so low that it
        # could not matter, so that it is soon back after digital silence; and silence that we filled in says nothing.
        if self._power < self._floor:
            if not self._is_filling:
                self._floor = max(self._power, self._gate / 4.0)
        else:
            self._floor *= 1.0046
            if self._floor > 1.0e6:  # -30 dBFS: louder noise than this must not close the gate for speech
                self._floor = 1.0e6
        if self._is_speech is not None and self._power > self._gate and self._power > 4.0 * self._floor:
            samples = PyBytes_FromStringAndSize(<const char*>frame, self._frame_samples * 2)
            voiced = self._is_speech(samples)
            if voiced and self._decide is not None:
                voiced = self._decide(samples)
        if self._scorer is not None:
            voiced = self._agrees(frame, voiced)
        self._judged += <uint64_t>self._frame_samples
        return self._track(voiced)

    cdef bint _agrees(self, const int16_t* frame, bint hinted) noexcept:
        """Hand one frame to the scorer; whether its last score agrees that this is speech."""
        cdef Py_ssize_t i
        if self.rate_hz == 16000:
            self._scorer.push_c(frame, self._frame_samples)
        else:
            # Safety: a frame of 30 ms at 8 kHz, doubled, is a third of FRAME_MAX. Doubled samples score like filtered
            # ones: the area under the curve is the same to 0.001 down to 5 dB of noise.
            for i in range(self._frame_samples):
                _doubled[2 * i] = frame[i]
                _doubled[2 * i + 1] = frame[i]
            self._scorer.push_c(_doubled, 2 * self._frame_samples)
        if self._in_speech:
            return hinted and self._scorer.score >= KEEPS_SCORE
        if not hinted:
            self._is_hinted = False
        elif not self._is_hinted:
            self._is_hinted = True
            self._hint_from = self._judged
        return hinted and self._scorer.score >= OPENS_SCORE

    cdef void _begin_run(self) noexcept:
        """The first speech frame of what may become a talkspurt. The scorer answers a little later than the detector:
        what the detector heard meanwhile belongs to it, and counts as voiced."""
        cdef uint64_t here = self._judged - <uint64_t>self._frame_samples, earliest
        self._run_from = here
        if self._scorer is not None:
            earliest = here - min(here, self._hint_max)
            self._run_from = min(here, max(self._hint_from, earliest))
        self._voiced = <int64_t>(here - self._run_from)

    cdef int _track(self, bint voiced) noexcept:
        cdef int flags = 0
        if voiced:
            if not self._in_speech:
                if self._voiced == 0:
                    self._begin_run()
                self._voiced += self._frame_samples
                if self._voiced < self._onset_need:
                    return 0
                self._in_speech = True
                self._confirmed = False
                self._onset = self._run_from
                flags = ONSET
            else:
                self._voiced += self._frame_samples
            self._voiced_end = self._judged
            if not self._confirmed and self._voiced >= self._confirm:
                self._confirmed = True
                flags |= CONFIRMED
        elif not self._in_speech:
            self._voiced = 0
        elif <int64_t>(self._judged - self._voiced_end) >= self._hangover:
            self._in_speech = self._is_hinted = False
            self._voiced = 0
            flags = OFFSET
        return flags

    # ── audio out ─────────────────────────────────────────────────────────────────────────────────────────────

    def seek(self, uint64_t from_samples):
        """Let `take` go on from media time `from_samples`, or from the oldest audio that is kept.

        Raises ValueError for a time that has not come.
        """
        cdef uint64_t start = from_samples * <uint64_t>self._width
        if start > self._ring._position:
            raise ValueError(f"expected at most {self._position()} samples, got {from_samples}")
        self._taken = max(start, self._ring.oldest_c())
        if self._fir is not None:
            self._fir.reset_c()
        elif self._resampler is not None:
            self._resampler.reset()
        self._warm(self._taken, self._fir)

    def take(self):
        """Output audio since the last `take` or `seek`, as bytes; empty when there is none."""
        cdef uint64_t position = self._ring._position
        if self._fir is not None:
            fetch_ahead(<void*>self._fir, 6)
        if self._taken < self._ring.oldest_c():
            self.overruns += (self._ring.oldest_c() - self._taken) // self._width
            self._taken = self._ring.oldest_c()
        audio = self._render(self._taken, position, self._fir, self._resampler)
        self._taken = position
        if self._is_over:
            self._is_over = False
            if self._fir is not None:
                return audio + self._fir.flush()
            if self._resampler is not None:
                return audio + self._resampler.flush()
        return audio

    def history(self, uint64_t from_samples, uint64_t to_samples):
        """Output audio of [from, to) in media samples, as far as it is kept; `take` is not affected.

        Between rates of `Fir`, what `take` would have given for that span, bit by bit; the filter of other rates
        starts from silence at `from`.
        Raises:
            ValueError: to is ahead of `position_samples`, or before from.
        """
        cdef uint64_t start = from_samples * <uint64_t>self._width, stop = to_samples * <uint64_t>self._width
        if stop > self._ring._position or start > stop:
            raise ValueError(f"expected from <= to <= {self._position()}, got {from_samples}, {to_samples}")
        start = min(max(start, self._ring.oldest_c()), stop)
        fir = None if self._fir is None else Fir(self.rate_hz, self.out_rate_hz)
        resampler = None if self._resampler is None else Resampler(self.rate_hz, self.out_rate_hz)
        self._warm(start, fir)
        return self._render(start, stop, fir, resampler)

    cdef _warm(self, uint64_t start, Fir fir):
        """Let a new filter see what came before `start`, as far as it is kept."""
        # Filters that give fewer samples work on groups; they must begin with a whole one.
        cdef uint64_t group = <uint64_t>(self._width if self.out_rate_hz % self.rate_hz == 0 else 6 * self._width)
        cdef uint64_t before
        if fir is not None and not self._out_wire:
            before = min(start - self._ring.oldest_c(), <uint64_t>(WARM_SAMPLES * self._width)) // group * group
            self._render(start - before, start, fir, None)

    cdef object _render(self, uint64_t start, uint64_t stop, Fir fir, object resampler):
        cdef Py_ssize_t n = <Py_ssize_t>(stop - start) // self._width, piece
        cdef const uint8_t* src = self._ring.span(start)
        cdef int16_t* dst
        if n == 0:
            return b""
        if self._out_wire:
            return PyBytes_FromStringAndSize(<const char*>src, n * self._width)
        if fir is None:
            s16 = PyBytes_FromStringAndSize(NULL, n * 2)
            self._decode(src, <int16_t*>PyBytes_AS_STRING(s16), n)
            return s16 if resampler is None else resampler.process(s16)
        fetch_ahead(src, <int>min(n * self._width // 64 + 1, 32))
        out = PyBytes_FromStringAndSize(NULL, fir.out_samples(n) * 2)
        dst = <int16_t*>PyBytes_AS_STRING(out)
        while n > 0:
            piece = min(n, PIECE)
            self._decode(src, _scratch, piece)
            # Safety: out has exactly the room that process_c fills; the scratch is not touched by it.
            dst += fir.process_c(_scratch, piece, dst)
            src += piece * self._width
            n -= piece
        return out

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def position_samples(self):
        return self._position()

    @property
    def onset_samples(self):
        return self._onset

    @property
    def offset_samples(self):
        return self._voiced_end

    @property
    def speech_samples(self):
        return self._voiced if self._in_speech else 0

    @property
    def is_speaking(self):
        return self._in_speech

    @property
    def level_dbfs(self):
        return 10.0 * log10(max(self._power, 1e-3) / (32768.0 * 32768.0))

    @property
    def ring(self):
        """The wire bytes, for zero-copy readers."""
        return self._ring
