"""A call's way in: one native call for each message of the carrier.

    message ─► MediaGrammar.scan ─► base64 ─► Intake ─► Talkspurt ─► flags
                    │ no match       │ bad       └────► ring (wire bytes) ─► RingReader ─► take
                    ▼                ▼
            F_SLOW: the complete   F_BAD
            parser, feed_payload

The ring keeps what came over the wire; linear samples exist only in a scratch that all calls of the process share,
so a call's hot state is a few cache lines. Recogniser audio is made when it is taken, a hundred milliseconds at once.

Guarantees: media time counts every sample once, whatever the order, loss or repetition of messages; nothing raises
for what a peer sends. Leaves to others: what else a message may be (server/wire), what speech means (server/turn).
Thread: one, the event loop's; the scratch is shared.
"""
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.math cimport log10
from libc.stdint cimport uint8_t, uint64_t

from audio_native cimport talkspurt
from audio_native.fetch cimport fetch_ahead
from audio_native.intake cimport Intake, position_of
from audio_native.media cimport MediaGrammar, b64_decode_c, media_fields
from audio_native.order cimport SLOTS_MAX, Order
from audio_native.ring cimport WireRing
from audio_native.ring_reader cimport RingReader
from audio_native.talkspurt cimport Talkspurt
from audio_native.tape cimport Tape
from audio_native.wire_codec cimport codec_of, width_of

cdef enum:
    AUDIO = 1
    SLOW = 16
    BAD = 32

    MESSAGE_MAX = 65536

F_AUDIO = AUDIO
F_ONSET = talkspurt.ONSET
F_CONFIRMED = talkspurt.CONFIRMED
F_OFFSET = talkspurt.OFFSET
F_SLOW = SLOW
F_BAD = BAD

# Shared by all calls of the process: written and read within one call of feed, under the GIL.
cdef uint8_t _coded[MESSAGE_MAX]


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
        reorder_frames: messages that are held for one that is missing, once the stream has been seen to reorder;
            may_reorder: from the start (order.pyx says why).
    Attributes:
        is_wanted: whether somebody takes the output; F_AUDIO is raised only then.
        onset_samples, offset_samples: first sample of the last talkspurt, one past its last voiced one.
        lead_samples: where sound began that may belong to the last talkspurt, up to a second before its onset.
        speech_samples: voiced samples of the talkspurt so far.
        position_samples: media time, filled gaps included.
        level_dbfs: of the last frame.
        frames, duplicates, late, reordered, bad: messages that were stored, were there already, came after their place
            was given up, waited for one before them, could not be meant; given_up: messages that did not come in time.
        gap_samples: silence filled in; overruns: samples that were taken too late.
    Raises:
        ValueError: an argument out of its range.
    """

    cdef MediaGrammar _grammar
    cdef Intake _intake
    cdef Order _order
    cdef Talkspurt _talkspurt
    cdef WireRing _ring
    cdef RingReader _reader
    cdef Tape _tape
    cdef int _width
    cdef public bint is_wanted
    cdef readonly int rate_hz
    cdef uint64_t _chunk_bytes, _refused

    def __init__(
        self, *, grammar, str codec, int rate_hz=8000, str out="s16", int out_rate_hz=16000, detector=None,
        decider=None, scorer=None, tape=None, int onset_ms=60, int hangover_ms=200, int confirm_ms=200,
        double level_gate_dbfs=-55.0, int history_ms=8000, int chunk_ms=100, int reorder_frames=3,
        bint may_reorder=False,
    ):
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
        self._tape = tape
        self.rate_hz = rate_hz
        self._width = width_of(codec_of(codec))
        self._chunk_bytes = chunk_ms * rate_hz // 1000 * self._width
        self._order = Order(reorder_frames, may_reorder)
        self._talkspurt = Talkspurt(
            rate_hz, detector, decider, scorer, onset_ms, hangover_ms, confirm_ms, level_gate_dbfs
        )
        self._ring = WireRing(history_ms * rate_hz // 1000 * self._width)
        self._intake = Intake(codec, rate_hz, self._order, self._talkspurt, self._ring)
        self._reader = RingReader(self._ring, codec, rate_hz, out == "wire", out_rate_hz)

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
        fetch_ahead(<void*>self, 2)
        fetch_ahead(<void*>self._intake, 2)
        fetch_ahead(<void*>self._grammar, 2)
        fetch_ahead(<void*>self._ring, 2)
        fetch_ahead(<void*>self._order, 2)
        fetch_ahead(<void*>self._talkspurt, 4)
        fetch_ahead(<void*>self._reader, 2)
        if n > MESSAGE_MAX or not self._grammar.scan(text, n, &found):
            return SLOW
        fetch_ahead(self._ring._room, 3)
        size = b64_decode_c(found.payload, found.payload_bytes, _coded)
        if size > 0 and size % self._width == 0:
            if self._tape is not None:
                self._tape.media_c(found.chunk, found.timestamp_ms, _coded, size)
            return self._noticed(self._intake.place(_coded, size, found.chunk, found.timestamp_ms))
        if size < 0 and not _is_plain(found.payload, found.payload_bytes):
            return SLOW
        return self._refuse()

    cdef int _refuse(self) noexcept:
        if self._tape is not None:
            self._tape.bad_c()
        self._refused += 1
        return BAD

    def feed_payload(self, bytes payload not None, uint64_t chunk, uint64_t timestamp_ms):
        """Take a payload that the complete parser decoded. Returns flags, never F_SLOW."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        if size == 0 or size % self._width or size > MESSAGE_MAX or chunk == 0:
            return self._refuse()
        if self._tape is not None:
            self._tape.media_c(chunk, timestamp_ms, <const uint8_t*>PyBytes_AS_STRING(payload), size)
        return self._noticed(
            self._intake.place(<const uint8_t*>PyBytes_AS_STRING(payload), size, chunk, timestamp_ms)
        )

    cdef inline int _noticed(self, int flags) except -1:
        if self.is_wanted and self._ring._position - self._reader.taken >= self._chunk_bytes:
            flags |= AUDIO
        return flags

    def flush(self):
        """The stream is over: take what was held for a missing message, end the talkspurt, let the filter ring out
        into the next `take`. Returns flags."""
        cdef int flags = self._noticed(self._intake.release(True))
        self._reader.close()
        return flags | self._talkspurt.close()

    # ── audio out ─────────────────────────────────────────────────────────────────────────────────────────────

    def seek(self, uint64_t from_samples):
        """Let `take` go on from media time `from_samples`, or from the oldest audio that is kept.

        Raises ValueError for a time that has not come.
        """
        if from_samples > position_of(self._intake):
            raise ValueError(f"expected at most {position_of(self._intake)} samples, got {from_samples}")
        self._reader.seek(from_samples)

    def take(self):
        """Output audio since the last `take` or `seek`, as bytes; empty when there is none."""
        return self._reader.take()

    def history(self, uint64_t from_samples, uint64_t to_samples):
        """Output audio of [from, to) in media samples, as far as it is kept; `take` is not affected.

        Between rates of `Fir`, what `take` would have given for that span, bit by bit; the filter of other rates
        starts from silence at `from`.
        Raises:
            ValueError: to is ahead of `position_samples`, or before from.
        """
        if to_samples > position_of(self._intake) or from_samples > to_samples:
            raise ValueError(f"expected from <= to <= {position_of(self._intake)}, got {from_samples}, {to_samples}")
        return self._reader.history(from_samples, to_samples)

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def position_samples(self):
        return position_of(self._intake)

    @property
    def out_rate_hz(self):
        return self._reader.out_rate_hz

    @property
    def onset_samples(self):
        return self._talkspurt.onset

    @property
    def lead_samples(self):
        return self._talkspurt.lead

    @property
    def offset_samples(self):
        return self._talkspurt.voiced_end

    @property
    def speech_samples(self):
        return self._talkspurt.voiced if self._talkspurt.is_open else 0

    @property
    def is_speaking(self):
        return bool(self._talkspurt.is_open)

    @property
    def level_dbfs(self):
        return 10.0 * log10(max(self._talkspurt.power, 1e-3) / (32768.0 * 32768.0))

    @property
    def frames(self):
        return self._intake.frames

    @property
    def gap_samples(self):
        return self._intake.gap_samples

    @property
    def duplicates(self):
        return self._order.duplicates

    @property
    def given_up(self):
        return self._order.given_up

    @property
    def late(self):
        return self._order.late

    @property
    def reordered(self):
        return self._order.reordered

    @property
    def bad(self):
        return self._refused + self._order.astray

    @property
    def overruns(self):
        return self._reader.overruns

    @property
    def ring(self):
        """The wire bytes, for zero-copy readers."""
        return self._ring
