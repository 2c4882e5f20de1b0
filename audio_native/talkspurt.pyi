from typing import final

from audio_native.silero import SileroStream
from audio_native.vad import VadDetector

@final
class Talkspurt:
    def __init__(
        self,
        rate_hz: int,
        detector: VadDetector | None,
        decider: VadDetector | None,
        scorer: SileroStream | None,
        onset_ms: int,
        hangover_ms: int,
        confirm_ms: int,
        level_gate_dbfs: float,
    ) -> None: ...
    @property
    def power(self) -> float: ...
    @property
    def onset(self) -> int: ...
    @property
    def voiced_end(self) -> int: ...
    @property
    def voiced(self) -> int: ...
    @property
    def is_open(self) -> bool: ...
