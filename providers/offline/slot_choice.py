"""One of several things that a caller may choose, also when its word was misheard."""

from __future__ import annotations

from functools import lru_cache

from providers.offline.lexicon import Lexicon
from providers.offline.name_sense import is_a_name
from providers.offline.slot_spec import Found, Slot
from providers.offline.words import (
    LONG_TELEPHONE_SOUNDS,
    SLIP_SIMILARITY,
    Vocabulary,
    ordinary_stems,
    similarity,
    stem,
    telephone_sound,
)

CHOICE_SIMILARITY = 0.65
CHOICE_MARGIN = 0.1  # a second choice that sounds as near leaves it open: "a ceiling" is a filling or a cleaning
STRICT_SIMILARITY = 0.75  # less is enough for what was asked for
MIN_MISHEARD_CHARS = 5
REMEMBERED = 4096


def find_choice(slot: Slot, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    least = STRICT_SIMILARITY if strict else 0.0
    best: tuple[float, Found] | None = None
    for value, spoken in slot.choices.items():
        for phrase in spoken:
            wanted = _wanted(phrase, lexicon)[0]
            nearest = [_near(phrase, lexicon, word) for word in words]
            hits = [at for at, (found, sure) in enumerate(nearest) if found and sure >= least]
            exact = [at for at in hits if nearest[at][1] == 1]
            # "Anna Colin would like a clean": beside the word itself what resembles it is something else.
            hits = exact if {nearest[at][0] for at in exact} == wanted else hits
            if {nearest[at][0] for at in hits} != wanted:
                continue
            sure = sum(nearest[at][1] for at in hits) / len(hits) + 0.1 * len(wanted)
            if best is None or sure > best[0]:
                best = sure, Found(value, hits[0], hits[-1] + 1, is_sure=all(nearest[at][1] == 1 for at in hits))
    if best is None and not strict:
        best = _sounds_like_a_choice(slot, words, lexicon)
    return best[1] if best is not None else None


def _sounds_like_a_choice(slot: Slot, words: list[str], lexicon: Lexicon) -> tuple[float, Found] | None:
    """A choice was asked for, and something like one was heard: "a silly". It is read back before it counts."""
    best: dict[str, tuple[float, Found]] = {}
    ordinary = ordinary_stems(lexicon)
    phrases = [(value, phrase) for value, spoken in slot.choices.items() for phrase in spoken if " " not in phrase]
    for at, word in enumerate(words):
        if len(word) < MIN_MISHEARD_CHARS or stem(word, lexicon) in ordinary:
            continue
        for value, phrase in phrases:
            near = similarity(word, phrase)
            if near > best.get(value, (0.0,))[0]:
                best[value] = near, Found(value, at, at + 1, is_sure=False)
    ranked = sorted(best.values(), key=lambda one: -one[0])
    if not ranked or ranked[0][0] < CHOICE_SIMILARITY:
        return None
    return ranked[0] if len(ranked) == 1 or ranked[0][0] - ranked[1][0] >= CHOICE_MARGIN else None


@lru_cache(REMEMBERED)
def _wanted(phrase: str, lexicon: Lexicon) -> tuple[frozenset[str], Vocabulary]:
    wanted = frozenset(stem(word, lexicon) for word in phrase.split())
    return wanted, Vocabulary(wanted, ordinary_stems(lexicon))


@lru_cache(8 * REMEMBERED)
def _near(phrase: str, lexicon: Lexicon, word: str) -> tuple[str, float]:
    """The stem of `phrase` that `word` is, or may be misheard; a phrase of one word also by its whole sound."""
    found, sure = _wanted(phrase, lexicon)[1].nearest(stem(word, lexicon))
    if sure < 1 and is_a_name(word, lexicon):
        return "", 0.0  # "Collins" is no cleaning that was misheard
    if not found and len(word) >= MIN_MISHEARD_CHARS and stem(word, lexicon) not in ordinary_stems(lexicon):
        key = telephone_sound(phrase)
        if len(key) >= LONG_TELEPHONE_SOUNDS and telephone_sound(word) == key:
            return stem(phrase, lexicon), SLIP_SIMILARITY
    return found, sure
