"""What a call notes in its capture beside its steps; nothing where it is not captured.

Apart from the session, so that nothing that the session owns leads back to it: a call that is over goes at once, and
its rings of audio do not wait for the garbage collector.
"""

from __future__ import annotations

from providers.base import AudioChunk, Final
from server.call.capture import Capture


class CaptureNotes:
    __slots__ = ("_capture",)

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture

    def message(self, message: bytes, is_text: bool) -> None:
        """Of the carrier, and no audio."""
        if self._capture is not None:
            self._capture.text(message, is_text=is_text)

    def final(self, final: Final) -> None:
        """One that settles nothing."""
        if self._capture is not None:
            self._capture.note("final", {"utterance_no": final.utterance_no, "text": final.text})

    def audio(self, clause_no: int, chunk: AudioChunk) -> None:
        """The synthesizer gave it."""
        if self._capture is not None:
            form = chunk.audio_format
            self._capture.audio(clause_no, len(chunk.audio), form.encoding, form.rate_hz)
