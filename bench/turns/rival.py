"""What other policies would have scored on the turns that were said: by computation, from their pauses alone.

    VAD silence only    begins T after the last speech, T such that its median latency is the server's
    wait for the final  begins when the recogniser's own final has come; no speculation
    oracle              knows the end: begins as soon as model and voice allow, never before

Their voice detection is perfect (the corpus says where speech is), which favours them; the time that model and voice
take is drawn from the same profile as the simulators'. A caller who goes on before anything was heard takes the turn
back, as the server allows too, so a pause is cut only when it is longer than everything together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.sim.profile import Profile
from bench.turns.call_log import Said
from bench.turns.score import TurnMark

SEED = 7
CLAUSE_MS = 30.0
"""From the first token to the end of the first clause: its tokens at the profile's rate, about."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a policy has to do with: the pauses, each with the answer time it would meet, and that at the end."""

    said: Said
    pauses: tuple[tuple[float, float, float], ...]  # (length, model and voice, the recogniser's final), ms
    answer_ms: float
    final_ms: float


def drawn(turns: Sequence[Said], profile: Profile) -> list[Turn]:
    """The same draws for all policies."""
    dice = random.Random(SEED)

    def answer_ms() -> float:
        return profile.first_token.sample_ms(dice) + CLAUSE_MS + profile.first_audio.sample_ms(dice)

    def final_ms() -> float:
        return max(float(profile.segmentation_ms), profile.final.sample_ms(dice))

    return [
        Turn(
            one,
            tuple((end - begin, answer_ms(), final_ms()) for begin, end in one.pauses),
            answer_ms(),
            final_ms(),
        )
        for one in turns
    ]


def silence_only(turns: Sequence[Turn], median_ms: float) -> list[TurnMark]:
    """With the one threshold at which the median latency is `median_ms` (at least none)."""
    wait_ms = max(0.0, median_ms - median(one.answer_ms for one in turns))
    return [_mark(one, [wait_ms + answer for _, answer, _ in one.pauses], wait_ms + one.answer_ms) for one in turns]


def wait_for_final(turns: Sequence[Turn]) -> list[TurnMark]:
    return [
        _mark(one, [answer + final for _, answer, final in one.pauses], one.final_ms + one.answer_ms) for one in turns
    ]


def oracle(turns: Sequence[Turn]) -> list[TurnMark]:
    return [TurnMark(one.said, False, latency_ms=one.answer_ms) for one in turns]


def _mark(turn: Turn, begins_ms: Sequence[float], latency_ms: float) -> TurnMark:
    """The first pause that is longer than what passes in it before the agent begins is cut."""
    for (length_ms, _, _), begin_ms in zip(turn.pauses, begins_ms, strict=True):
        if length_ms > begin_ms:
            # It notices at once: its detector is perfect.
            return TurnMark(turn.said, True, margin_ms=length_ms - begin_ms)
    return TurnMark(turn.said, False, latency_ms=latency_ms)
