"""Audio that must not come: what of a cancelled answer still arrives after `clear`.

    answer 4: code 4 ▒▒▒▒▒▒ clear │ ▒▒ stale ▒▒ │ code 5 ▒▒▒▒▒▒▒ …
                                  └── counted ──┘

Every answer of the scripted providers begins with the tone code of its turn. So what is audible between `clear` and the
first code of a later turn belongs to the answer that was cancelled.
"""

from __future__ import annotations

from bench.load.tone import find_codes
from bench.sim.sound import FRAME_SAMPLES, is_audible

MAX_KEPT_BYTES = 60 * 8000


class AfterClear:
    """What has arrived since the last `clear`. Fed with arrivals, in order; settled when the turn is judged."""

    __slots__ = ("_audio", "_is_open", "_turn")

    def __init__(self) -> None:
        self._audio = bytearray()
        self._is_open = False
        self._turn = 0

    def cleared(self, turn: int) -> None:
        """`turn` is that of the last code heard: later ones are answers of their own."""
        self._audio.clear()
        self._is_open = True
        self._turn = turn

    def arrived(self, pcmu: bytes) -> None:
        if self._is_open and len(self._audio) < MAX_KEPT_BYTES:
            self._audio += pcmu

    def settle(self) -> int:
        """Audible frames before the first code of a later turn; all of them where none came."""
        audio = bytes(self._audio)
        self._audio.clear()
        self._is_open = False
        if not audio:
            return 0
        end = len(audio)
        for at, code in find_codes(audio):
            # A code that is itself cut short belongs to a later answer that was cleared in its turn.
            if code is None or 0 < (code.turn - self._turn) % 256 < 128:
                # Its beginning is known to a few milliseconds, and answers begin with whole frames.
                end = round(at / FRAME_SAMPLES) * FRAME_SAMPLES
                break
        whole = range(0, end - end % FRAME_SAMPLES, FRAME_SAMPLES)
        return sum(is_audible(audio[at : at + FRAME_SAMPLES]) for at in whole)
