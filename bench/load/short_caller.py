"""A caller who does not stay: one turn, or less. Three kinds, as each ends a call in another state of the server."""

from __future__ import annotations

from enum import Enum

from bench.load.load_caller import LoadCaller
from bench.sim.sound import Clip, is_audible


class Leaves(Enum):
    """When the caller hangs up."""

    AFTER_ANSWER = "after one answer"
    IN_SPEECH = "in mid-sentence"
    IN_ANSWER = "while the agent answers"


KINDS = (*(Leaves.AFTER_ANSWER,) * 8, Leaves.IN_SPEECH, Leaves.IN_ANSWER)
"""Of ten calls."""
CUT_AFTER_FRAMES = 20
IN_ANSWER_FRAMES = 15


class ShortCaller(LoadCaller):
    """As `LoadCaller`, for one turn at most. `hung_up` has the reason once it has hung up by itself."""

    __slots__ = ("_answer_frames", "_clip_frames", "_leaves")

    def __init__(self, number: str, clips: list[Clip], leaves: Leaves) -> None:
        super().__init__(number, clips, 0)
        self._leaves = leaves
        self._clip_frames = self._answer_frames = 0

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        payload = super().step(heard, now_ns)
        if self.is_ready:
            # The greeting is over, the turn has begun: the next time that it is the caller's is the end.
            self.stopping = True
        spoken = self.record.speech_frames
        if self._leaves is Leaves.IN_SPEECH and spoken >= CUT_AFTER_FRAMES:
            return None
        if self._leaves is Leaves.IN_ANSWER and self.record.turns_expected and heard is not None and is_audible(heard):
            self._answer_frames += 1
            if self._answer_frames >= IN_ANSWER_FRAMES:
                self.record.turns_expected = 0  # this one was never meant to be heard out
                return None
        return payload
