"""Speech or not, frame by frame: the detectors that `Uplink` can be given.

WebRTC's detector answers within a frame and raises false alarms on noise, so Uplink asks it only about frames above
an adaptive level; a second detector (`decider`) may have the last word on those that it takes for speech.
"""

from __future__ import annotations

from typing import Protocol

import webrtcvad

RATES_HZ = (8000, 16000, 32000, 48000)
FRAMES_MS = (10, 20, 30)


class VadDetector(Protocol):
    """Judges frames of one stream, in order. `frame_bytes` is what `is_speech` wants, s16 at `rate_hz`."""

    rate_hz: int
    frame_ms: int

    def is_speech(self, frame: bytes) -> bool: ...


class WebRtcDetector:
    """WebRTC's detector (GMM over six bands). `mode` 0 misses least, 3 raises the fewest false alarms.

    Raises:
        ValueError: a mode, rate or frame that it does not know.
    """

    __slots__ = ("_is_speech", "frame_ms", "mode", "rate_hz")

    def __init__(self, mode: int = 2, rate_hz: int = 8000, frame_ms: int = 20) -> None:
        if mode not in (0, 1, 2, 3) or rate_hz not in RATES_HZ or frame_ms not in FRAMES_MS:
            raise ValueError(
                f"expected mode 0 to 3, one of {RATES_HZ} Hz, {FRAMES_MS} ms; got {mode, rate_hz, frame_ms}"
            )
        self.mode = mode
        self.rate_hz = rate_hz
        self.frame_ms = frame_ms
        self._is_speech = webrtcvad.Vad(mode).is_speech

    def is_speech(self, frame: bytes) -> bool:
        return bool(self._is_speech(frame, self.rate_hz))
