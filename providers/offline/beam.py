"""Several hypotheses side by side, so that a word that is expected can win although another one began better.

    logits of all hypotheses → the likeliest next tokens of each → with the phrases' bonus, the best WIDTH go on

Pure but for `advance`, which runs the decoder. Guarantees: at most `limit` tokens; a token is looked at only when it is
at most MARGIN less likely than the best one there; the same audio and phrases give the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from providers.offline.bias import NOWHERE, Bias, Place

START_TOKEN = 1
END_TOKEN = 2
WIDTH = 4  # hypotheses
OPTIONS = 12  # next tokens of each
MARGIN = 5.0  # nats

Advance = Callable[[list[int], list[int] | None], np.ndarray]


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    tokens: tuple[int, ...] = ()
    score: float = 0.0
    place: Place = NOWHERE


def search(advance: Advance, bias: Bias, limit: int, keep_going: Callable[[], bool]) -> list[int] | None:
    """The best tokens without START_TOKEN and END_TOKEN; None when `keep_going` said no."""
    alive = [_Hypothesis()]
    logits = advance([START_TOKEN], None)
    done: _Hypothesis | None = None
    for _ in range(limit):
        if not keep_going():
            return None
        grown: list[tuple[_Hypothesis, int]] = []
        for at, one in enumerate(alive):
            for token, likely in _likely(logits[at]):
                if token == END_TOKEN:
                    ended = _Hypothesis(one.tokens, one.score + likely + bias.end(one.place))
                    if done is None or ended.score > done.score:
                        done = ended
                    continue
                place, bonus = bias.step(one.place, token)
                grown.append((_Hypothesis((*one.tokens, token), one.score + likely + bonus, place), at))
        grown.sort(key=lambda pair: -pair[0].score)
        grown = grown[:WIDTH]
        if not grown or (done is not None and grown[0][0].score <= done.score):
            break
        alive = [one for one, _ in grown]
        while len(grown) < WIDTH:
            grown.append(grown[-1])  # the decoder wants the same number each time; these rows are not read
        logits = advance([one.tokens[-1] for one, _ in grown], [at for _, at in grown])
    best = done if done is not None else alive[0]
    return list(best.tokens)


def _likely(logits: np.ndarray) -> list[tuple[int, float]]:
    """The likeliest next tokens and their log probabilities."""
    best = np.argpartition(logits, -OPTIONS)[-OPTIONS:]
    top = float(logits[best].max())
    total = top + float(np.log(np.exp(logits - top).sum()))
    return [(int(token), float(logits[token]) - total) for token in best if logits[token] >= top - MARGIN]
