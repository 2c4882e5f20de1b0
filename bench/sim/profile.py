"""How fast simulated providers are: one profile for recognition, language model and synthesis, as data.

Delays are log-normal by median and 95th percentile, and drawn from the caller's seeded dice, so a run can be repeated.
The figures are those of docs/architecture.md; where nobody has published one it is marked as assumed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import NormalDist

_Z95 = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True, slots=True)
class Delay:
    """A delay by its median and 95th percentile, ms. Equal values: always exactly that."""

    median_ms: float
    p95_ms: float

    def __post_init__(self) -> None:
        if not 0 <= self.median_ms <= self.p95_ms:
            raise ValueError(f"delay: expected 0 <= median <= p95; got {self.median_ms}, {self.p95_ms}")

    def sample_ms(self, dice: random.Random) -> float:
        if self.p95_ms <= self.median_ms or self.median_ms <= 0:
            return self.median_ms
        return self.median_ms * math.exp(dice.gauss() * math.log(self.p95_ms / self.median_ms) / _Z95)

    def sample_s(self, dice: random.Random) -> float:
        return self.sample_ms(dice) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One profile.

    Recognition: interims start after `interim_after_ms` of speech and follow every `interim_every_ms`;
    `revised_share` of words are heard otherwise at first. `final` is measured from the last speech sample, with the
    service's own segmentation of `segmentation_ms`; another segmentation moves it by the difference. `commit`: final
    after a forced commit.
    Language model: `tokens_per_s` 0 is as fast as the client reads; `slow_share` of first tokens take `slow_ms`;
    `hung_share` of streams fall silent after `hung_after_tokens`.
    Synthesis: `cold_ms` more on the first request of a connection; audio comes `audio_times` faster than it lasts
    (0: at once); `stall_share` of answers pause once for `stall_ms`.
    """

    name: str
    interim_after_ms: int = 350
    interim_every_ms: int = 300
    revised_share: float = 0.08
    segmentation_ms: int = 500  # the service's documented default, about
    final: Delay = Delay(1016, 1345)
    commit: Delay = Delay(150, 300)  # assumed: nothing is published
    first_token: Delay = Delay(150, 280)
    tokens_per_s: float = 250
    slow_share: float = 0.0
    slow_ms: float = 3000
    hung_share: float = 0.0
    hung_after_tokens: int = 10
    first_audio: Delay = Delay(120, 250)
    cold_ms: float = 180
    audio_times: float = 20
    stall_share: float = 0.0
    stall_ms: float = 600
    transcription: Delay = Delay(250, 500)  # a whole utterance in, its text out; assumed

    def final_after_silence_ms(self, dice: random.Random) -> float:
        """From the moment that enough silence has come to the final, ms."""
        return max(0.0, self.final.sample_ms(dice) - self.segmentation_ms)

    def is_slow(self, dice: random.Random) -> bool:
        return dice.random() < self.slow_share

    def is_hung(self, dice: random.Random) -> bool:
        return dice.random() < self.hung_share

    def stalls(self, dice: random.Random) -> bool:
        return dice.random() < self.stall_share


_USUAL = Profile(name="azure-groq")
_SOON = Delay(5, 10)
_FAST = Profile(
    name="fast", final=Delay(505, 510), commit=_SOON, first_token=_SOON, tokens_per_s=1000,
    first_audio=_SOON, cold_ms=0, audio_times=100, transcription=_SOON,
)  # fmt: skip
_NOW = Delay(0, 0)

PROFILES: dict[str, Profile] = {
    "azure-groq": _USUAL,
    "brownout": replace(_USUAL, name="brownout", slow_share=0.05, hung_share=0.02, stall_share=0.01),
    "fast": _FAST,
    # For tests of what is said, not when: nothing waits, nothing is revised.
    "instant": replace(
        _FAST, name="instant", revised_share=0.0, final=Delay(500, 500), commit=_NOW, first_token=_NOW,
        tokens_per_s=0, first_audio=_NOW, audio_times=0, transcription=_NOW,
    ),
}  # fmt: skip


def profile(name: str) -> Profile:
    """Raises ValueError for a name that is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"profile: expected one of {sorted(PROFILES)}; got {name!r}") from None
