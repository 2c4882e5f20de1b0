from typing import final

from audio_native.order import Order
from audio_native.ring import WireRing
from audio_native.talkspurt import Talkspurt

@final
class Intake:
    def __init__(self, codec: str, rate_hz: int, order: Order, talkspurt: Talkspurt, ring: WireRing) -> None: ...
    @property
    def frames(self) -> int: ...
    @property
    def gap_samples(self) -> int: ...
