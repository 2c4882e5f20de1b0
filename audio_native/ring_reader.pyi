from typing import final

from audio_native.ring import WireRing

@final
class RingReader:
    def __init__(self, ring: WireRing, codec: str, rate_hz: int, is_wire: bool, out_rate_hz: int) -> None: ...
    @property
    def out_rate_hz(self) -> int: ...
    @property
    def overruns(self) -> int: ...
