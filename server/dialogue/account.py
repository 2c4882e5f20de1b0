"""The latency account of one turn: every millisecond between the caller's last sample and our first has one owner.

    speech_end ─detect─ detected ─endpointing─ endpoint ─stt─ text ─own─ llm_request ─llm─ first_token
        ─clause─ first_clause ─own─ tts_request ─tts─ tts_first_byte ─own─ first_sent ─playout─ first_heard

`own` is what is neither detection, policy, provider nor playout. The stages without playout sum to the turn
latency exactly (integers of nanoseconds until the last step).
"""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own")


@dataclass(slots=True)
class TurnAccount:
    """Instants of one turn, monotonic ns; 0 is "did not happen"."""

    turn_no: int
    speech_end: int = 0
    detected: int = 0
    endpoint: int = 0
    stt_text: int = 0
    llm_request: int = 0
    llm_first_token: int = 0
    first_clause: int = 0
    tts_request: int = 0
    tts_first_byte: int = 0
    first_sent: int = 0
    first_heard: int = 0

    def stages_ms(self) -> tuple[tuple[str, float], ...]:
        """(stage, ms) in order, playout last when it is known; empty when nothing was answered.

        An instant that is missing or runs ahead of an earlier one (text before the policy's instant, audio from
        memory) leaves its stage at zero: what it saved is nobody's cost.
        """
        if not self.first_sent or not self.speech_end:
            return ()
        path = (
            ("detect", self.detected),
            ("endpointing", self.endpoint),
            ("stt", self.stt_text),
            ("own", self.llm_request),
            ("llm", self.llm_first_token),
            ("clause", self.first_clause),
            ("own", self.tts_request),
            ("tts", self.tts_first_byte),
            ("own", self.first_sent),
        )
        spent = dict.fromkeys(STAGES, 0)
        at = self.speech_end
        for stage, instant in path:
            reached = min(max(instant, at), self.first_sent)
            spent[stage] += reached - at
            at = reached
        stages = [(name, spent[name] / 1e6) for name in STAGES]
        if self.first_heard:
            stages.append(("playout", max(0, self.first_heard - self.first_sent) / 1e6))
        return tuple(stages)

    def latency_ms(self) -> float | None:
        """speech_end -> first_sent, or None when the turn was not answered."""
        if not self.first_sent or not self.speech_end:
            return None
        return (self.first_sent - self.speech_end) / 1e6
