"""Days in plain words, in English and Spanish: weekdays, relative days, dates; and what sounds like one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from providers.offline.lexicon import ENGLISH, SPANISH, Lexicon
from providers.offline.slot_number import read_number
from providers.offline.slot_spec import Found
from providers.offline.words import Vocabulary, ordinary_stems, similarity, stem, telephone_sound

DAY_SIMILARITY, MIN_MISHEARD_CHARS = 0.8, 5
BOUND_WORDS = 2
_WEEKDAYS = {lexicon: Vocabulary(lexicon.weekdays, ordinary_stems(lexicon)) for lexicon in (ENGLISH, SPANISH)}


def find_date(words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    """Of several days the last that is not ruled out: "I'm away until Monday, so Tuesday". A week is no day."""
    named = sorted(_named_days(words, lexicon), key=lambda one: one.start)
    if named:
        if lexicon is not ENGLISH:
            return named[0]
        free = [one for one in named if not _is_ruled_out(words, one, lexicon)]
        return (free or named)[-1]
    found = _month_day(words, lexicon)
    return found if found is not None or strict else _sounds_like_a_day(words, lexicon)


def _is_ruled_out(words: list[str], found: Found, lexicon: Lexicon) -> bool:
    return any(word in lexicon.bounds for word in words[max(0, found.start - BOUND_WORDS) : found.start])


def _named_days(words: list[str], lexicon: Lexicon) -> Iterator[Found]:
    text = " ".join(words)
    is_to_come = any(said in text for said in lexicon.next_week) and any(word in lexicon.weekdays for word in words)
    for said, value in lexicon.relative_days.items():
        # "por la mañana" is a time of day, "mañana" alone is a day.
        match = re.search(rf"(?<!por la )(?<!de la )(?<!en la )\b{said}\b", text)
        if match is not None:
            start = text[: match.start()].count(" ")
            yield Found(value, start, start + said.count(" ") + 1)
            break
    for at, word in enumerate(words):
        day = lexicon.weekdays.get(word)
        if day is None and word.endswith("s"):
            day = lexicon.weekdays.get(word[:-1])
        if day is None and len(word) > 6:
            near, _ = _WEEKDAYS[lexicon].nearest(word)
            day = lexicon.weekdays.get(near)
        if day is not None:
            is_led = lexicon is ENGLISH and at > 0 and words[at - 1] == "next"
            is_next = lexicon is ENGLISH and (is_led or is_to_come)
            value = f"next {day}" if is_next else day if lexicon is ENGLISH else f"el {day}"
            yield Found(value, at - is_led, at + 1)


def _sounds_like_a_day(words: list[str], lexicon: Lexicon) -> Found | None:
    """A day was asked for, and something like one was heard: "how about Cersei". It is read back before it counts."""
    text = f" {' '.join(words)} "
    for said, day in lexicon.day_sounds.items():
        if (at := text.find(f" {said} ")) >= 0:
            start = text[: at + 1].count(" ") - 1
            return Found(lexicon.weekdays[day], start, start + said.count(" ") + 1)
    best: tuple[float, Found] | None = None
    for said, start, end, is_rare in _misheard(words, lexicon):
        for day in lexicon.weekdays:
            near = similarity(said, day) if is_rare or telephone_sound(said)[0] == telephone_sound(day)[0] else 0.0
            if near >= DAY_SIMILARITY and (best is None or near > best[0]):
                named = lexicon.weekdays[day]
                if lexicon is not ENGLISH:
                    named = f"el {named}"
                elif start and words[start - 1] == "next":
                    named, start = f"next {named}", start - 1
                best = near, Found(named, start, end)
    return best[1] if best is not None else None


def _misheard(words: list[str], lexicon: Lexicon) -> Iterator[tuple[str, int, int, bool]]:
    """What may be one word misheard: rare words, numbers ("thirty"), and two words that were one ("to thee").

    (what was heard, first word, one past the last, whether it is a rare word)
    """
    ordinary = ordinary_stems(lexicon)
    for at, word in enumerate(words):
        is_rare = stem(word, lexicon) not in ordinary
        if len(word) >= MIN_MISHEARD_CHARS and (is_rare or word in lexicon.numbers):
            yield word, at, at + 1, is_rare
    for at, (one, other) in enumerate(pairwise(words)):
        if len(one) + len(other) >= MIN_MISHEARD_CHARS and len(one) <= 3 and stem(other, lexicon) not in ordinary:
            yield one + other, at, at + 2, False


def _month_day(words: list[str], lexicon: Lexicon) -> Found | None:
    for at, word in enumerate(words):
        month = lexicon.months.get(word)
        follows = words[at + 1] if at + 1 < len(words) else ""
        if month is None or (word == "may" and (at == 0 or words[at - 1] in ("i", "we", "you") or follows == "be")):
            continue
        for near in (at + 1, at + 2, at - 1, at - 2, at - 3):
            number = _day_number(words, near, lexicon) if 0 <= near < len(words) else None
            if near + 1 < len(words) and words[near + 1] in ("oclock", "am", "pm"):
                continue
            if number is not None:
                value = f"{month} {number}" if lexicon is ENGLISH else f"el {number} de {month}"
                return Found(value, min(at, near), max(at, near) + 1)
    for at in range(len(words)):
        led = at and words[at - 1] in ("the", "dia")
        number = _day_number(words, at, lexicon) if led else None
        follows = words[at + 1] if at + 1 < len(words) else ""
        ordinal = words[at] in lexicon.day_numbers or follows in ("st", "nd", "rd", "th")
        if number is not None and (lexicon is SPANISH or ordinal):
            return Found(f"the {number}{_ending(number)}" if lexicon is ENGLISH else f"el día {number}", at - 1, at + 1)
    return None


def _day_number(words: list[str], at: int, lexicon: Lexicon) -> int | None:
    word = words[at]
    tens = lexicon.numbers.get(words[at - 1], 0) if at else 0
    if word in lexicon.day_numbers:
        number = lexicon.day_numbers[word] + (tens if tens in (20, 30) else 0)
    else:
        read = read_number(words, at, lexicon)
        number = read[0] if read is not None else 0
    return number if 1 <= number <= 31 else None


def _ending(number: int) -> str:
    return "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
