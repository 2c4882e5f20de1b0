"""The WebRTC detector: modes, rates and frames, and what it is told to refuse."""

from __future__ import annotations

import pytest

from audio_native.vad import FRAMES_MS, WebRtcDetector
from tests.audio_native.test_uplink import speech


@pytest.mark.parametrize("frame_ms", FRAMES_MS)
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_tells_speech_from_silence(mode: int, frame_ms: int) -> None:
    detector = WebRtcDetector(mode, 8000, frame_ms)
    size = 16 * frame_ms
    voice = speech(1.0).tobytes()
    votes = [detector.is_speech(voice[at : at + size]) for at in range(0, len(voice) - size, size)]
    assert sum(votes) > 0.8 * len(votes)
    quiet = [detector.is_speech(bytes(size)) for _ in range(50)]
    assert not any(quiet[-20:])


@pytest.mark.parametrize("wrong", [(4, 8000, 20), (0, 11025, 20), (0, 8000, 25)])
def test_refuses_what_it_does_not_know(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected mode"):
        WebRtcDetector(*wrong)


@pytest.mark.parametrize("size", [0, 2, 100, 318, 322, 641])
def test_only_whole_frames_are_read(size: int) -> None:
    """The detector reads as many samples as it is told that there are."""
    with pytest.raises(Exception, match="Error while processing frame"):
        WebRtcDetector(2, 8000, 20).is_speech(bytes(size))
