"""Times of day in plain words, in English and Spanish."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from providers.offline.lexicon import ENGLISH, Lexicon
from providers.offline.slot_number import read_number
from providers.offline.slot_spec import Found
from providers.offline.words import similarity, sound

_Read = Callable[[list[str], int, Lexicon, bool], Found | None]

BOUND_WORDS = 3  # so near before an hour a bound is about it: "until about two", "finish work at four"
NEW_THOUGHT = ("so", "but", "then", "and")
QUARTER_SIMILARITY, MIN_QUARTER_CHARS = 0.7, 5
HOUR_SIMILARITY = 0.6
_JOINERS = ("past", "passed", "to", "after")
_NO_HOURS = ("couple", "pair", "dozen")


def find_time(words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    if lexicon is ENGLISH:
        return _find_english_time(words, lexicon, strict=strict)
    return next(_times(_read_spanish_time, words, lexicon, strict), None)


def _find_english_time(words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    """Of several hours the one that is wanted: "I finish at four, so half past four would be good"."""
    found = list(_times(_read_english_time, words, lexicon, True))
    hours = [one for one in found if not is_part_of_day(one)]
    free = [one for one in hours if not _is_bound(words, one, lexicon.bounds + lexicon.busy)]
    if free:
        return free[-1]
    parts = [one for one in found if is_part_of_day(one)]
    if parts:
        named = _with_its_hour(parts[0], words, lexicon, strict=strict)
        if not is_part_of_day(named):
            return named
    if not strict:
        likely = [one for one in _times(_read_english_time, words, lexicon, False) if not is_part_of_day(one)]
        free = [one for one in likely if not _is_bound(words, one, lexicon.bounds + lexicon.busy)]
        if free:
            return free[0]
    near = [one for one in hours if not _is_bound(words, one, lexicon.busy)]
    return near[-1] if near else named if parts else None


def _times(read: _Read, words: list[str], lexicon: Lexicon, strict: bool) -> Iterator[Found]:
    at = 0
    while at < len(words):
        found = read(words, at, lexicon, strict)
        if found is not None:
            yield found
        at = found.end if found is not None else at + 1


def _is_bound(words: list[str], found: Found, bounds: tuple[str, ...]) -> bool:
    for word in reversed(words[max(0, found.start - BOUND_WORDS) : found.start]):
        if word in bounds:
            return True
        if word in NEW_THOUGHT or word in ENGLISH.numbers:
            return False
    return False


def is_part_of_day(found: Found) -> bool:
    """ "In the morning": no hour."""
    return found.value.startswith("in the ")


def _with_its_hour(found: Found, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found:
    """ "Eleven would pull up in the morning": beside a part of the day a bare number is the hour."""
    if not is_part_of_day(found):
        return found
    for at in range(found.start):
        hour = _read_english_time(words, at, lexicon, False)
        if hour is not None and words[at] != "one" and hour.end <= found.start:
            return Found(hour.value, at, found.end)
    return found if strict else _misheard_hour(found, words, lexicon)


def _misheard_hour(found: Found, words: list[str], lexicon: Lexicon) -> Found:
    """ "At you in the afternoon", "to it lock in the afternoon": just before a part of the day it was an hour."""
    before = words[: found.start]
    while before and (before[-1] in ("in", "the", "it", "of", "at", "add") or similarity(before[-1], "oclock") >= 0.5):
        before.pop()
    hour = lexicon.hour_sounds.get(before[-1]) if before and (before[-1] != "and" or len(before) == 1) else None
    if hour is None or len(found.value.split()) != 3:
        return found
    return _english(hour, 0, words, len(before) - 1, found.end) or found


def _read_english_time(words: list[str], at: int, lexicon: Lexicon, strict: bool) -> Found | None:
    word, left = words[at], words[at + 1 :]
    if word in ("noon", "midday", "midnight"):
        return Found("noon" if word != "midnight" else word, at, at + 1)
    if word == "half" and left and (hour := _hour(words, at + 1, lexicon)) is not None:
        return _english(hour[0], 30, words, at, at + 1 + hour[1])  # "half four"
    part = _part_of_hour(word, left[0], lexicon, strict) if left and left[0] in _JOINERS else 0
    if part:
        hour = _hour(words, at + 2, lexicon) or _misheard_number(words, at + 2, lexicon)
        if hour is not None:
            before = left[0] == "to"
            return _english(hour[0] - before or 12, 60 - part if before else part, words, at, at + 2 + hour[1])
    if ":" in word:
        hour_text, minute_text = word.split(":")
        return _english(int(hour_text), int(minute_text), words, at, at + 1)
    hour = _hour(words, at, lexicon)
    if hour is None and left[:1] == ["oclock"]:
        hour = _misheard_number(words, at, lexicon)  # "too o'clock"
    if hour is None and not strict and at and words[at - 1] == "at" and not left:
        hour = _misheard_number(words, at, lexicon)  # "at free"
    if hour is not None:
        end = at + hour[1]
        minute = read_number(words, end, lexicon) if end < len(words) else None
        if minute is not None and minute[0] in (*range(10, 60, 5), 0) and minute[0] >= 10:
            return _english(hour[0], minute[0], words, at, end + minute[1])
        follows = words[end] if end < len(words) else ""
        leads = words[at - 1] if at else ""
        sure = follows in ("am", "pm", "oclock") or words[end : end + 2] == ["a", "clock"]
        sure = sure or leads in ("at", "around", "about", "by", "after", "before")
        sure = sure or (follows in ("in",) and words[end + 1 : end + 3] in (["the", "morning"], ["the", "afternoon"]))
        if sure or (not strict and follows not in ("st", "nd", "rd", "th", "people")):
            return _english(hour[0], 0, words, at, end)
    if word in ("morning", "afternoon", "evening", "lunchtime") and not (at and words[at - 1] == "good"):
        return Found(f"in the {word}", at, at + 1)
    return None


def _part_of_hour(word: str, joiner: str, lexicon: Lexicon, strict: bool) -> int:
    """Minutes of "half" and "quarter", also misheard before "past" or "to"; 0 for other words."""
    if word == "quarter":
        return 15
    if word in lexicon.numbers:
        minutes = lexicon.numbers[word]
        return minutes if joiner in ("past", "passed") and minutes in (5, 10, 20) else 0
    if word == "half" or (word == "have" and joiner == "past"):
        return 30
    if len(word) >= MIN_QUARTER_CHARS and similarity(word, "quarter") >= QUARTER_SIMILARITY:
        return 15
    return 30 if not strict and joiner in ("past", "passed") else 0


def _hour(words: list[str], at: int, lexicon: Lexicon) -> tuple[int, int] | None:
    """The hour that begins at word `at`: (1 to 12, words used)."""
    read = read_number(words, at, lexicon) if at < len(words) else None
    return read if read is not None and 1 <= read[0] <= 12 else None


def _misheard_number(words: list[str], at: int, lexicon: Lexicon) -> tuple[int, int] | None:
    """The hour that word `at` sounds like, where there must be one: "half past far". It is read back."""
    if at >= len(words):
        return None
    word = words[at]
    if word in lexicon.hour_sounds:
        return lexicon.hour_sounds[word], 1
    if word in lexicon.stop_words or word in lexicon.time_words:
        return None
    hours = [(said, value) for said, value in lexicon.numbers.items() if 1 <= value <= 12 and said not in _NO_HOURS]
    alike = [value for said, value in hours if sound(said) == sound(word)]
    if len(alike) == 1:
        return alike[0], 1
    near, hour = max((similarity(word, said), value) for said, value in hours)
    return (hour, 1) if near >= HOUR_SIMILARITY else None


def _english(hour: int, minute: int, words: list[str], start: int, end: int) -> Found | None:
    if hour > 23 or minute > 59:
        return None
    while end < len(words) and words[end] in ("am", "pm", "oclock"):
        end += 1
    rest = " ".join(words[start:])
    part = ""
    if " pm" in rest or "afternoon" in rest or "evening" in rest or hour > 12:
        part = " PM"
    elif " am" in rest or "morning" in rest:
        part = " AM"
    hour = hour - 12 if hour > 12 else hour
    spoken = f"{hour}:{minute:02d}" if minute else f"{hour}" if part else f"{hour} o'clock"
    return Found(f"{spoken}{part}", start, end)


def _read_spanish_time(words: list[str], at: int, lexicon: Lexicon, strict: bool) -> Found | None:
    word = words[at]
    if word in ("mediodia", "medianoche"):
        return Found(f"{'el mediodía' if word == 'mediodia' else 'la medianoche'}", at, at + 1)
    led = at and words[at - 1] in ("las", "la")
    if ":" in word:
        hour_text, minute_text = word.split(":")
        return _spanish(int(hour_text), int(minute_text), words, at, at + 1)
    hour = (lexicon.numbers.get(word) if not word.isdigit() else int(word)) if (led or not strict) else None
    if hour is None or not 1 <= hour <= 23:
        return None
    end, minute = at + 1, 0
    rest = words[end : end + 3]
    if rest[:2] in (["y", "media"], ["y", "cuarto"]):
        end, minute = end + 2, 30 if rest[1] == "media" else 15
    elif rest[:2] == ["menos", "cuarto"]:
        end, minute, hour = end + 2, 45, hour - 1 or 12
    elif rest[:1] == ["y"] or (rest and rest[0] in lexicon.numbers):
        first = end + (rest[0] == "y")
        read = read_number(words, first, lexicon) if first < len(words) else None
        if read is not None and read[0] in range(5, 60, 5):
            end, minute = first + read[1], read[0]
    follows = words[end : end + 1]
    if not led and follows and follows[0] in ("personas", "persona"):
        return None
    return _spanish(hour, minute, words, at, end)


_ES_HOURS = "una dos tres cuatro cinco seis siete ocho nueve diez once doce".split()
_ES_MINUTES = {15: " y cuarto", 30: " y media", 45: " y cuarenta y cinco", 0: ""}


def _spanish(hour: int, minute: int, words: list[str], start: int, end: int) -> Found | None:
    if hour > 23 or minute > 59:
        return None
    rest = " ".join(words[start:])
    part = next((f" {said}" for said in ("de la noche", "de la tarde") if said in rest), "")
    if not part and ("de la manana" in rest or "por la manana" in rest):
        part = " de la mañana"
    if hour > 12:
        part = part or (" de la noche" if hour >= 20 else " de la tarde")
        hour -= 12
    spoken = _ES_HOURS[hour - 1] if hour else "doce"
    article = "la" if spoken == "una" else "las"
    return Found(f"{article} {spoken}{_ES_MINUTES.get(minute, f' y {minute}')}{part}", start, end)
