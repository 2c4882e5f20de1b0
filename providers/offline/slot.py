"""Values in what a caller says: numbers, digits, days, times, names and choices, in English and Spanish.

A parser gets plain words (`words.plain`) and answers (value as the agent says it, words it used), or None. `strict`
finds a value anywhere in a sentence; not strict, the agent has just asked for it and less will do. Pure.
"""

from __future__ import annotations

from functools import lru_cache

from providers.offline.lexicon import Lexicon
from providers.offline.slot_choice import find_choice
from providers.offline.slot_date import find_date
from providers.offline.slot_name import find_name
from providers.offline.slot_number import find_digits, find_number
from providers.offline.slot_spec import SLOT_TYPES, Found, Slot
from providers.offline.slot_time import find_time
from providers.offline.words import plain

REMEMBERED = 4096


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
