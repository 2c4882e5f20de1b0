"""Received audio as linear samples at 8000 Hz: the RIFF header that comes first says what it is."""

from __future__ import annotations

import struct

import numpy as np

from bench.sim.sound import audioop

_TAPS = 31
_HALF = np.hamming(_TAPS) * np.sinc((np.arange(_TAPS) - _TAPS // 2) / 2)
_HALF = (_HALF / _HALF.sum()).astype(np.float32)


class Ear:
    """One stream. `format` is (tag, rate, bits) once the header has come; without one it is 16 kHz PCM.

    Understood: tag 1 (16 bit), 6 and 7 at 8000 Hz, tag 1 at 16000 Hz. Raises ValueError for others.
    """

    __slots__ = ("_kept", "_odd", "_rest", "format")

    def __init__(self) -> None:
        self.format: tuple[int, int, int] | None = None
        self._rest = b""
        self._kept = np.zeros(_TAPS - 1, np.float32)
        self._odd = 0

    @property
    def bytes_per_ms(self) -> float:
        _, rate_hz, bits = self.format or (1, 16_000, 16)
        return rate_hz * bits / 8000

    def hear(self, payload: bytes) -> bytes:
        """s16 at 8000 Hz of one message."""
        if self.format is None:
            payload = self._head(payload)
        tag, rate_hz, _ = self.format or (1, 16_000, 16)
        if tag == 7:
            return bytes(audioop.ulaw2lin(payload, 2))
        if tag == 6:
            return bytes(audioop.alaw2lin(payload, 2))
        payload = self._rest + payload
        whole = len(payload) // 2 * 2
        self._rest = payload[whole:]
        return payload[:whole] if rate_hz == 8000 else self._halved(payload[:whole])

    def _head(self, payload: bytes) -> bytes:
        self.format = (1, 16_000, 16)
        if not payload.startswith(b"RIFF") or len(payload) < 44:
            return payload
        tag, channels, rate_hz = struct.unpack_from("<HHI", payload, 20)
        bits = struct.unpack_from("<H", payload, 34)[0]
        known = (tag, rate_hz, bits) in ((1, 8000, 16), (1, 16_000, 16), (7, 8000, 8), (6, 8000, 8))
        if channels != 1 or not known:
            raise ValueError(f"audio: tag {tag}, {channels} channels, {rate_hz} Hz, {bits} bits is not understood")
        self.format = (tag, rate_hz, bits)
        size = struct.unpack_from("<I", payload, 16)[0]
        return payload[28 + size :]

    def _halved(self, s16: bytes) -> bytes:
        samples = np.concatenate([self._kept, np.frombuffer(s16, "<i2").astype(np.float32)])
        self._kept = samples[-(_TAPS - 1) :]
        out = np.convolve(samples, _HALF, "valid")
        kept = out[self._odd :: 2]
        self._odd = (self._odd + out.size) % 2
        return bytes(np.clip(kept, -32768, 32767).astype("<i2").tobytes())
