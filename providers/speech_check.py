"""Is this a voice? What a synthesizer gives first is looked at before anybody hears it.

    chunks ─► Opening ─► held: a level that does not change ─► first sound, 20 ms of it ─► judged ─► given on
                                   │                                   │
                                   └── a whole clause of it: refused   └── a file, a text, noise, …: refused

A good voice loses no time: what is held back is silence, and its first sound is judged with the chunk it came in. Once
for each clause, at most 300 ms are looked at; afterwards nothing is. How long a clause took is `providers.pace`.
"""

from __future__ import annotations

import numpy as np

from audio_native import g711
from providers.base import AudioChunk, AudioFormat, SpeechEvent
from providers.errors import ProviderProtocolError

MIN_SOUND_MS = 20
MAX_SOUND_MS = 300
# Silence that a voice may begin with: measured at most some 500 ms at any service; words do not wait longer.
MAX_FLAT_MS = 1500
# Around the first sample, of 32767: dither and the steps of G.711 near zero are no sound.
FLAT_LEVEL = 64
# Nearly a square of full scale: speech has peaks, and even when clipped by 12 dB it lies 3 dB below them.
MAX_RMS = 28_000
# Of what is louder than -16 dBFS, neighbouring samples are alike in every voice; loud hiss is no sound of speech.
NOISE_RMS = 5200
NOISE_LIKENESS = 0.35
# Tones are no noise, however high: two of them have so much of their power in so few lines of the spectrum.
TONE_LINES = 8
TONE_SHARE = 0.9
# From one sample to the next by three quarters of a half scale, so often in a second: samples of another kind, or their
# bytes in the wrong order. Voices, 24 dB apart: none; clipped by 10 dB: 370 at 8 kHz, 110 at 16 kHz.
JUMP_LEVEL = 24_000
JUMPS_PER_S = 480
HEAD_BYTES = 4096
HEAD_SAMPLES = 32
TEXT_BYTES = 160

# The first bytes of files: WAV and RF64, Ogg, MP3 with ID3, FLAC, WebM, AIFF, Sun audio, AMR, CAF, WavPack, ZIP, gzip.
SIGNATURES = (
    b"RIFF", b"RF64", b"OggS", b"ID3", b"fLaC", b"\x1aE\xdf\xa3", b"FORM", b".snd", b"#!AMR", b"caff", b"wvpk",
    b"PK\x03\x04", b"\x1f\x8b\x08",
)  # fmt: skip
_PRINTABLE = bytes([9, 10, 13, *range(32, 127)])
_BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s, MPEG 1 layer III
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2, 2.5
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}


class Opening:
    """The begin of one attempt to speak a clause. Bounded: it gives on or refuses within 1.5 s of audio and 300 ms."""

    __slots__ = ("_first", "_flat_ms", "_head", "_held", "_must_sound", "_provider", "_sound", "_sound_ms", "is_over")

    def __init__(self, provider: str, *, must_sound: bool) -> None:
        """`must_sound`: there are words to be heard; without any, silence is what was asked for."""
        self.is_over = False
        self._must_sound = must_sound
        self._provider = provider
        self._held: list[SpeechEvent] = []
        self._head = b""
        self._first: int | None = None
        self._flat_ms = 0.0
        self._sound: list[np.ndarray] = []
        self._sound_ms = 0.0

    def push(self, event: SpeechEvent) -> list[SpeechEvent]:
        """What may be given on now. Raises ProviderProtocolError: this is no voice, and nothing of it was given."""
        if self.is_over:
            return [event]
        self._held.append(event)
        if not isinstance(event, AudioChunk) or not event.audio:
            return []
        fmt = event.audio_format
        self._head += event.audio[: HEAD_BYTES - len(self._head)]
        self._look(_samples(event.audio, fmt), fmt.rate_hz)
        if len(self._sound) > 1 and self._sound_ms >= MIN_SOUND_MS and self._is_click(fmt.rate_hz):
            self._flat(self._sound_ms)
            self._sound, self._sound_ms = [], 0.0
        is_clear = self._check_head(fmt)
        if self._sound_ms < MIN_SOUND_MS or not is_clear:
            return self._release() if self._flat_ms > MAX_FLAT_MS else []
        self._judge(fmt.rate_hz)
        return self._release()

    def end(self) -> list[SpeechEvent]:
        """The attempt is over. Raises ProviderProtocolError when no word can have been in it."""
        if self.is_over:
            return []
        if self._must_sound and self._sound_ms < MIN_SOUND_MS:
            raise self._bad(f"no sound in {self._flat_ms + self._sound_ms:.0f} ms where words were expected")
        return self._release()

    def _look(self, samples: np.ndarray, rate_hz: int) -> None:
        """Find the first sound, and keep up to 300 ms from there on."""
        per_ms = rate_hz / 1000
        if self._first is None:
            self._first = int(samples[0]) if len(samples) else None
        if not self._sound and self._first is not None:
            looked = samples[: round((MAX_FLAT_MS + MAX_SOUND_MS) * per_ms)]
            loud = np.flatnonzero(np.abs(looked.astype(np.int32) - self._first) > FLAT_LEVEL)
            # One click is no sound: the level must still move when half of the shortest sound is over.
            if not len(loud) or (len(samples) - loud[0] >= MIN_SOUND_MS * per_ms
                                 and loud[-1] - loud[0] < MIN_SOUND_MS / 2 * per_ms):  # fmt: skip
                self._flat(len(samples) / per_ms)
                return
            self._flat(loud[0] / per_ms)
            samples = samples[loud[0] :]
        room = round((MAX_SOUND_MS - self._sound_ms) * per_ms)
        self._sound.append(samples[:room])
        self._sound_ms += len(samples[:room]) / per_ms

    def _flat(self, ms: float) -> None:
        self._flat_ms += ms
        if self._flat_ms > MAX_FLAT_MS and self._must_sound:
            raise self._bad(f"{self._flat_ms:.0f} ms of one level where words were expected")

    def _is_click(self, rate_hz: int) -> bool:
        """Whether the sound in many small chunks has been over since its first half."""
        rest = np.concatenate(self._sound)[MIN_SOUND_MS * rate_hz // 2000 :]
        return not (np.abs(rest - (self._first or 0)) > FLAT_LEVEL).any()

    def _check_head(self, fmt: AudioFormat) -> bool:
        """Whether it is clear that no file begins here. Raises ProviderProtocolError when one does."""
        head = self._head
        if head.startswith(SIGNATURES) or head[4:8] == b"ftyp":
            raise self._bad(f"a file {head[:4]!r} where samples were expected")
        text = head[:TEXT_BYTES]
        if len(text) == TEXT_BYTES and not text.translate(None, _PRINTABLE) and len(set(text)) >= 8:
            raise self._bad("a text where samples were expected")
        size = _frame_bytes(head)
        if size is None:
            return True
        if len(head) < size + 4:
            return len(head) >= HEAD_BYTES
        if _frame_bytes(head[size:]) is not None:
            raise self._bad("compressed frames where samples were expected")
        return True

    def _judge(self, rate_hz: int) -> None:
        sound = np.concatenate(self._sound)
        level = sound - sound.mean(dtype=np.float32)
        power = float(np.dot(level, level))
        rms = (power / len(level)) ** 0.5
        likeness = float(np.dot(level[1:], level[:-1])) / power if power else 1.0
        if rms > MAX_RMS or (rms > NOISE_RMS and likeness < NOISE_LIKENESS and not _is_tone(level)):
            raise self._bad(f"noise where speech was expected (level {rms:.0f}, likeness {likeness:.2f})")
        if sound.max() - sound.min() > JUMP_LEVEL:
            jumps = np.count_nonzero(np.abs(np.diff(sound)) > JUMP_LEVEL)
            if jumps * rate_hz > JUMPS_PER_S * len(sound):
                raise self._bad(f"{jumps} jumps in {len(sound)} samples where speech was expected")
        for begin in (0, 1):
            # A few samples rule out nearly every voice.
            if _says_nothing(sound[begin : begin + HEAD_SAMPLES]) and _says_nothing(sound[begin:]):
                raise self._bad(f"every second sample says nothing: this is no mono audio of {rate_hz} Hz")

    def _release(self) -> list[SpeechEvent]:
        held, self._held, self._sound, self._head = self._held, [], [], b""
        self.is_over = True
        return held

    def _bad(self, what: str) -> ProviderProtocolError:
        self._held.clear()
        return ProviderProtocolError(what, provider=self._provider)


def _says_nothing(sound: np.ndarray) -> bool:
    """Whether every second sample repeats the one before it, or has one and the same level."""
    evens, odds = sound[: len(sound) // 2 * 2 : 2], sound[1::2]
    return bool((evens == odds).all() or (evens == evens[0]).all())


def _is_tone(level: np.ndarray) -> bool:
    power = np.abs(np.fft.rfft(level * np.hanning(len(level)))) ** 2
    return bool(np.sort(power)[-TONE_LINES:].sum() > TONE_SHARE * power.sum())


def _samples(audio: bytes, fmt: AudioFormat) -> np.ndarray:
    """float32 in the range of s16, of at most the time that is looked at."""
    audio = audio[: (MAX_FLAT_MS + MAX_SOUND_MS + 1000) * fmt.rate_hz // 1000 * fmt.bytes_per_sample]
    if fmt.encoding == "pcmu":
        audio = g711.pcmu_to_bytes(audio)
    elif fmt.encoding == "pcma":
        audio = g711.pcma_to_bytes(audio)
    return np.frombuffer(audio, np.int16).astype(np.float32)


def _frame_bytes(head: bytes) -> int | None:
    """Length of the MP3 or AAC (ADTS) frame that begins here; None when none does.

    Source: ISO/IEC 11172-3 2.4.2.3 and 13818-3 (layer III), 13818-7 6.2 (ADTS).
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        size = (head[3] & 3) << 11 | (head[4] if len(head) > 4 else 0) << 3 | (head[5] if len(head) > 5 else 0) >> 5
        return size if size > 7 and head[2] >> 2 & 15 < 13 else None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    kbits = (_BITRATES_1 if version == 3 else _BITRATES_2)[bitrate]
    return (144 if version == 3 else 72) * kbits * 1000 // _RATES_HZ[version][rate] + (head[2] >> 1 & 1)
