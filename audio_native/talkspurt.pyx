"""Where the caller speaks: samples into frames, frames into speech or not, speech into talkspurts.

    samples ─► frames of the detector ─► louder than gate and noise? ─► detector ─► decider ─► score agrees?
                                                                                                  │
                     ONSET after onset_ms of speech, CONFIRMED, OFFSET after hangover_ms ◄────────┘

Guarantees: the same talkspurts however the samples are cut; time is the samples that were handed in. Leaves to others:
what a talkspurt means for the conversation (server/turn).
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from audio_native.dispatch cimport kernels
from audio_native.silero cimport SileroStream

cdef enum:
    # Scores of 255 that open a talkspurt and keep one open: probabilities .5 and .35, as its authors use them.
    OPENS_SCORE = 128
    KEEPS_SCORE = 90
    # How far before the score's agreement a talkspurt may have begun: the network's own delay (p95 110 ms at 10 dB of
    # noise), a window of 32 ms and the wait for its batch.
    HINT_MAX_MS = 160
    # A short word that the network let pass ("How ... much is it?") is handed on with the talkspurt that follows within
    # the gap, from no further back than the lead.
    LEAD_GAP_MS = 600
    LEAD_MAX_MS = 1000

# Shared by all calls of the process: written and read within one call of listen, under the GIL.
cdef int16_t _doubled[FRAME_MAX]


cdef class Talkspurt:
    """One stream's talkspurts; the arguments are those of Uplink.

    Attributes:
        power: mean square of the last frame, full scale 32768 squared.
        onset, voiced_end: first sample of the last talkspurt, one past its last voiced one.
        lead: where sound began that may belong to it; at most `onset`, where there is no scorer just that.
        voiced: voiced samples of what is, or may become, a talkspurt.
        is_open: whether the caller speaks.
    Raises:
        ValueError: detector, decider, scorer and rate do not fit each other.
    """

    def __init__(
        self, int rate_hz, detector, decider, SileroStream scorer, int onset_ms, int hangover_ms, int confirm_ms,
        double level_gate_dbfs,
    ):
        self._rate_hz = rate_hz
        self._frame_samples = 20 * rate_hz // 1000
        if detector is not None:
            if detector.rate_hz != rate_hz:
                raise ValueError(f"detector: expected {rate_hz} Hz, got {detector.rate_hz}")
            self._frame_samples = detector.frame_ms * rate_hz // 1000
            self._is_speech = detector.is_speech
        if decider is not None:
            if detector is None or (decider.rate_hz, decider.frame_ms) != (detector.rate_hz, detector.frame_ms):
                raise ValueError("decider: expected the rate and frame of the detector")
            self._decide = decider.is_speech
        if not 1 <= self._frame_samples <= FRAME_MAX:
            raise ValueError(f"detector: expected frames of at most {FRAME_MAX} samples, got {self._frame_samples}")
        if scorer is not None and rate_hz not in (8000, 16000):
            raise ValueError(f"scorer: expected 8000 or 16000 Hz, got {rate_hz}")
        self._scorer = scorer
        self._gate = 32768.0 * 32768.0 * 10.0 ** (level_gate_dbfs / 10.0)
        self._floor = self._gate
        self._onset_need = onset_ms * rate_hz // 1000
        self._hangover = hangover_ms * rate_hz // 1000
        self._confirm = confirm_ms * rate_hz // 1000
        self._hint_max = HINT_MAX_MS * rate_hz // 1000
        self._lead_gap = LEAD_GAP_MS * rate_hz // 1000
        self._lead_max = LEAD_MAX_MS * rate_hz // 1000

    cdef int listen(self, const int16_t* samples, Py_ssize_t n, bint is_filling) except -1:
        """Cut `n` samples into frames of the detector, whatever the carrier's are."""
        cdef Py_ssize_t part
        cdef int flags = 0
        self._is_filling = is_filling
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

    cdef int close(self) noexcept:
        if not self.is_open:
            return 0
        self.is_open = False
        self.voiced = 0
        return OFFSET

    cdef int _judge(self, const int16_t* frame) except -1:
        """One whole frame: speech or not, and what that means for the talkspurt."""
        cdef int64_t energy = 0
        cdef int32_t peak = 0
        cdef bint is_voiced = False
        kernels.level_peak(frame, self._frame_samples, &energy, &peak)
        self.power = <double>energy / <double>self._frame_samples
        # Noise is the quietest there has been lately: down at once, up by about 1 dB a second. Not so low that it
        # could not matter, so that it is soon back after digital silence; and silence that we filled in says nothing.
        if self.power < self._floor:
            if not self._is_filling:
                self._floor = max(self.power, self._gate / 4.0)
        else:
            self._floor *= 1.0046
            if self._floor > 1.0e6:  # -30 dBFS: louder noise than this must not close the gate for speech
                self._floor = 1.0e6
        if self._is_speech is not None and self.power > self._gate and self.power > 4.0 * self._floor:
            samples = PyBytes_FromStringAndSize(<const char*>frame, self._frame_samples * 2)
            is_voiced = self._is_speech(samples)
            if is_voiced and self._decide is not None:
                is_voiced = self._decide(samples)
        if self._scorer is not None:
            is_voiced = self._agrees(frame, is_voiced)
        self._judged += <uint64_t>self._frame_samples
        return self._track(is_voiced)

    cdef bint _agrees(self, const int16_t* frame, bint hinted) noexcept:
        """Hand one frame to the scorer; whether its last score agrees that this is speech."""
        cdef Py_ssize_t i
        if self._rate_hz == 16000:
            self._scorer.push_c(frame, self._frame_samples)
        else:
            # Safety: a frame of 30 ms at 8 kHz, doubled, is a third of FRAME_MAX. Doubled samples score like filtered
            # ones: the area under the curve is the same to 0.001 down to 5 dB of noise.
            for i in range(self._frame_samples):
                _doubled[2 * i] = frame[i]
                _doubled[2 * i + 1] = frame[i]
            self._scorer.push_c(_doubled, 2 * self._frame_samples)
        if hinted:
            if self._sound_end == 0 or self._judged - self._sound_end > self._lead_gap:
                self._sound_from = self._judged
            self._sound_end = self._judged + <uint64_t>self._frame_samples
        if self.is_open:
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
        self.voiced = <int64_t>(here - self._run_from)

    cdef int _track(self, bint is_voiced) noexcept:
        cdef int flags = 0
        if is_voiced:
            if not self.is_open:
                if self.voiced == 0:
                    self._begin_run()
                self.voiced += self._frame_samples
                if self.voiced < self._onset_need:
                    return 0
                self.is_open = True
                self._confirmed = False
                self.onset = self.lead = self._run_from
                if self._scorer is not None:
                    self.lead = min(self.onset, max(self._sound_from, self.onset - min(self.onset, self._lead_max)))
                flags = ONSET
            else:
                self.voiced += self._frame_samples
            self.voiced_end = self._judged
            if not self._confirmed and self.voiced >= self._confirm:
                self._confirmed = True
                flags |= CONFIRMED
        elif not self.is_open:
            self.voiced = 0
        elif <int64_t>(self._judged - self.voiced_end) >= self._hangover:
            self.is_open = self._is_hinted = False
            self.voiced = 0
            flags = OFFSET
        return flags
