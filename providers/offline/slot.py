"""Values in what a caller says: numbers, digits, days, times, names and choices, in English and Spanish.

A parser gets plain words (`words.plain`) and answers (value as the agent says it, words it used), or None. `strict`
finds a value anywhere in a sentence; not strict, the agent has just asked for it and less will do. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from providers.offline.lexicon import Lexicon
from providers.offline.name_sense import is_a_name
from providers.offline.slot_choice import find_choice
from providers.offline.slot_date import find_date
from providers.offline.slot_name import find_name
from providers.offline.slot_number import find_digits, find_number
from providers.offline.slot_spec import SLOT_TYPES, Found, Slot
from providers.offline.slot_time import find_time
from providers.offline.words import ordinary_stems, plain, similarity, stem

REMEMBERED = 4096
MIN_LIKE_CHARS = 4  # shorter words are like everything
CLEAR = 0.9  # a word that stands beside values of one kind only


@lru_cache(REMEMBERED)
def find(slot: Slot, text: str, lexicon: Lexicon, *, strict: bool, used: frozenset[int] = frozenset()) -> Found | None:
    """The value of `slot` in the raw words of the caller, None when there is none.

    Args:
        used: positions of plain words that already are another slot's value.
    """
    words = ["_" if at in used else word for at, word in enumerate(plain(text, lexicon).split())]
    match slot.type:
        case "number":
            return find_number(slot, words, lexicon, strict=strict)
        case "digits":
            return find_digits(slot, words, lexicon, strict=strict)
        case "date":
            return find_date(words, lexicon, strict=strict)
        case "time":
            return find_time(words, lexicon, strict=strict)
        case "name":
            return find_name(text, words, lexicon, strict=strict)
        case "choice":
            return find_choice(slot, words, lexicon, strict=strict)
        case "text":
            return None if strict or not words else Found(text.strip(" ."), 0, len(words))
    raise ValueError(f"slot type: expected one of {', '.join(SLOT_TYPES)}; got {slot.type}")


def resemblance(slot: Slot, words: list[str], lexicon: Lexicon) -> float:
    """How much a garbled sentence is like one that gives a value of `slot`, from 0 to 1: "half fast far" is a time."""
    ordinary = ordinary_stems(lexicon)
    rare = [word for word in words if len(word) >= MIN_LIKE_CHARS and stem(word, lexicon) not in ordinary]
    if slot.type == "time":
        return CLEAR if any(word in lexicon.time_words or word in lexicon.numbers for word in words) else 0.0
    if slot.type == "date":
        return _nearest(rare, lexicon.weekdays)
    if slot.type == "choice":
        return _nearest(rare, [one for spoken in slot.choices.values() for one in spoken if " " not in one])
    if slot.type == "name":
        said = " ".join(words)
        is_named = "name" in words or any(is_a_name(word, lexicon) for word in words)
        return 1.0 if is_named or (rare and any(f"{lead} {rare[0]}" in said for lead in lexicon.name_before)) else 0.0
    return 0.0


def _nearest(words: list[str], wanted: Iterable[str]) -> float:
    return max((similarity(word, one) for word in words for one in wanted), default=0.0)
