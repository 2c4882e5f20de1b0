"""How fast a simulated language service is: seeded samples of a profile's distributions."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import NormalDist

_Z95 = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A delay by its median and 95th percentile, ms. Equal values: always that."""

    median_ms: float
    p95_ms: float

    def sample_s(self, dice: random.Random) -> float:
        if self.p95_ms <= self.median_ms:
            return self.median_ms / 1000
        return self.median_ms / 1000 * math.exp(dice.gauss() * math.log(self.p95_ms / self.median_ms) / _Z95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One profile.

    tokens_per_s 0: as fast as the client reads. audio_times: speech is sent that many times faster than it lasts, 0:
    at once; cold_ms: its first byte comes later on a new connection. slow_share of first tokens take slow_ms;
    hung_share of streams fall silent after hung_after_tokens; stall_share of speech answers pause for stall_ms.
    """

    first_token: LogNormal
    tokens_per_s: float
    speech_first_byte: LogNormal
    audio_times: float
    transcription: LogNormal
    cold_ms: float = 0.0
    slow_share: float = 0.0
    slow_ms: float = 3000.0
    hung_share: float = 0.0
    hung_after_tokens: int = 10
    stall_share: float = 0.0
    stall_ms: float = 600.0


_USUAL = Pace(
    first_token=LogNormal(150, 280),
    tokens_per_s=250,
    speech_first_byte=LogNormal(120, 250),
    cold_ms=180,
    audio_times=20,
    transcription=LogNormal(250, 500),
)
PACES = {
    "instant": Pace(
        first_token=LogNormal(0, 0), tokens_per_s=0, speech_first_byte=LogNormal(0, 0), audio_times=0,
        transcription=LogNormal(0, 0),
    ),
    "fast": Pace(
        first_token=LogNormal(5, 10), tokens_per_s=1000, speech_first_byte=LogNormal(5, 10), audio_times=100,
        transcription=LogNormal(5, 10),
    ),
    "azure-groq": _USUAL,
    "brownout": replace(_USUAL, slow_share=0.05, hung_share=0.02, stall_share=0.01),
}  # fmt: skip
