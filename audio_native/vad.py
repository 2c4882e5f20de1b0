"""Speech or not, frame by frame: the detectors that `Uplink` can be given.

WebRTC's detector answers within a frame and raises false alarms on noise, so Uplink asks it only about frames above
an adaptive level; a second detector (`decider`) may have the last word on those that it takes for speech.
"""

from __future__ import annotations

from typing import Protocol

import _webrtcvad

_process = _webrtcvad.process

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

    __slots__ = ("_vad", "frame_ms", "mode", "rate_hz")

    def __init__(self, mode: int = 2, rate_hz: int = 8000, frame_ms: int = 20) -> None:
        if mode not in (0, 1, 2, 3) or rate_hz not in RATES_HZ or frame_ms not in FRAMES_MS:
            raise ValueError(
                f"expected mode 0 to 3, one of {RATES_HZ} Hz, {FRAMES_MS} ms; got {mode, rate_hz, frame_ms}"
            )
        self.mode = mode
        self.rate_hz = rate_hz
        self.frame_ms = frame_ms
        self._vad = _webrtcvad.create()
        _webrtcvad.init(self._vad)
        _webrtcvad.set_mode(self._vad, mode)

    def is_speech(self, frame: bytes) -> bool:
        # Safety: the detector reads as many samples as it is told to, and refuses lengths that are no frame. Its own
        # Python class adds nothing but a check of that length, for a sixth of what a frame costs.
        voiced: bool = _process(self._vad, self.rate_hz, frame, len(frame) >> 1)
        return voiced
