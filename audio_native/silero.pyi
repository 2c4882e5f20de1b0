from collections.abc import Mapping
from typing import Final, final

import numpy as np

from audio_native.tape import Tape

WINDOW_SAMPLES: Final[int]
RATE_HZ: Final[int]
LEVELS: Final[tuple[str, ...]]
LEVEL: str

def set_level(name: str) -> None: ...
@final
class SileroStream:
    score: int
    probability: float
    windows: int
    overruns: int
    tape: Tape | None
    def push(self, samples: bytes | bytearray | memoryview) -> None: ...
    @property
    def is_ready(self) -> bool: ...
    def put_score(self, score: int) -> None: ...
    def reset(self) -> None: ...

@final
class SileroNet:
    def __init__(self, weights: Mapping[str, np.ndarray]) -> None: ...
    def score(self, streams: list[SileroStream], now_ns: int = 0) -> int: ...
