"""What a name is: words that are names, and what a recogniser made of one that it did not expect. Pure.

    "kevin right" → Kevin Wright      "so she adams" → Sophie Adams      "it marks to her" → none
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from providers.offline.lexicon import Lexicon
from providers.offline.words import distance, ordinary_stems, similarity, stem, telephone_sound

SURE = 0.84  # so alike on a telephone that a word which is none is taken for the name
MIN_SNAP_CHARS, MIN_SNAP_SOUNDS = 4, 3
MAX_LETTERS = 2  # that differ, whatever it sounds like
MAX_JOINED = 3  # words that were one name: "so she"
REMEMBERED = 1024


@lru_cache(4)
def _names(lexicon: Lexicon) -> tuple[frozenset[str], frozenset[str]]:
    """(first, last) names that are nothing else."""
    words = lexicon.name_words
    return frozenset(lexicon.first_names) - words, frozenset(lexicon.last_names) - words


def is_a_name(word: str, lexicon: Lexicon) -> bool:
    """Whether `word`, in plain form, is a common name and no everyday word."""
    first, last = _names(lexicon)
    return word in first or word in last


def is_a_first_name(word: str, lexicon: Lexicon) -> bool:
    return word in _names(lexicon)[0]


def is_a_last_name(word: str, lexicon: Lexicon) -> bool:
    return word in _names(lexicon)[1]


def may_be_a_name(word: str, lexicon: Lexicon) -> bool:
    """Whether `word` is in everybody's mouth as something else, and no common name."""
    return word in lexicon.name_words or is_a_name(word, lexicon) or stem(word, lexicon) not in ordinary_stems(lexicon)


def mend(words: list[str], written: list[bool], lexicon: Lexicon) -> tuple[list[str], bool]:
    """`words` with those put right that only sound like names, and whether the whole is plausible as a name.

    Args:
        written: for each word whether the recogniser wrote it with a capital, as it does with what it takes for a name.
    """
    first, last = _names(lexicon)
    if not first:
        return words, True
    if len(words) > 1 and (words[-1] in last or words[-1] in lexicon.name_words) and words[0] not in first:
        for size in range(min(MAX_JOINED, len(words) - 1), 0, -1):
            whole = _nearest("".join(words[-1 - size : -1]), True, lexicon)
            if whole and not (size == 1 and written[-2]):
                return [whole, words[-1]], True
    mended, is_plausible = list(words), True
    for at, word in enumerate(words):
        if is_a_name(word, lexicon) or word in lexicon.name_words:
            continue
        is_common = stem(word, lexicon) in ordinary_stems(lexicon)
        if is_common or not written[at]:
            # A small letter: the recogniser took it for a word.
            near = _nearest(word, at == 0, lexicon)
            mended[at] = near or word
            is_plausible &= bool(near) or not is_common
    is_plausible &= any(written) or any(is_a_name(one, lexicon) for one in mended)
    return mended, is_plausible


@lru_cache(REMEMBERED)
def _nearest(word: str, is_first: bool, lexicon: Lexicon) -> str:
    """The most frequent common name that sounds like `word`; empty when none is near enough."""
    key = telephone_sound(word)
    if len(word) < MIN_SNAP_CHARS or len(key) < MIN_SNAP_SOUNDS + is_first:
        return ""
    found = _by_sound(lexicon, is_first)
    near = {name for one in _slips(key) for name in found.get(one, ())}
    likely = [name for name in near if similarity(word, name) >= SURE and distance(word, name) <= MAX_LETTERS]
    rank = {name: at for at, name in enumerate(lexicon.first_names if is_first else lexicon.last_names)}
    return min(likely, key=lambda one: (-similarity(word, one), distance(word, one), rank[one]), default="")


@lru_cache(4)
def _by_sound(lexicon: Lexicon, is_first: bool) -> Mapping[str, list[str]]:
    """Names by their telephone sound and by what is left of it less one: there are too many to look at each."""
    found: dict[str, list[str]] = {}
    for name in lexicon.first_names if is_first else lexicon.last_names:
        for one in _slips(telephone_sound(name)):
            found.setdefault(one, []).append(name)
    return found


def _slips(key: str) -> tuple[str, ...]:
    """`key`, and less one sound: two that are SURE alike share one of these."""
    return (key, *(key[:at] + key[at + 1 :] for at in range(len(key))))
