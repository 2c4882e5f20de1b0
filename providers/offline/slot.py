"""Values in what a caller says: numbers, digits, days, times, names and choices, in English and Spanish.

A parser gets plain words (`words.plain`) and answers (value as the agent says it, words it used), or None. `strict`
finds a value anywhere in a sentence; not strict, the agent has just asked for it and less will do. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from providers.offline.lexicon import ENGLISH, SPANISH, Lexicon
from providers.offline.words import (
    LONG_TELEPHONE_SOUNDS,
    SLIP_SIMILARITY,
    Vocabulary,
    ordinary_stems,
    plain,
    similarity,
    stem,
    telephone_sound,
)

MAX_NAME_WORDS = 4
CHOICE_SIMILARITY = 0.65
CHOICE_MARGIN = 0.1  # a second choice that sounds as near leaves it open: "a ceiling" is a filling or a cleaning
STRICT_SIMILARITY = 0.75  # less is enough for what was asked for
DAY_SIMILARITY, MIN_MISHEARD_CHARS = 0.8, 5
REMEMBERED = 4096
SLOT_TYPES = ("number", "digits", "date", "time", "name", "choice", "text")


@dataclass(frozen=True, slots=True)
class Found:
    """`value` is for the agent's mouth; `start`, `end` are the words used."""

    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """What the script says about one value. Compared by identity.

    `choices` maps the value to the plain words for it; `cues` are words beside which a number is this one; `labels` are
    what callers call it ("no, the day").
    """

    name: str
    type: str
    ask: tuple[str, ...]
    reask: tuple[str, ...] = ()
    invalid: str = ""
    low: int = 0
    high: int = 10**9
    refuse: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep: bool = False
    cues: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@lru_cache(REMEMBERED)
def find(slot: Slot, text: str, lexicon: Lexicon, *, strict: bool, used: frozenset[int] = frozenset()) -> Found | None:
    """The value of `slot` in the raw words of the caller, None when there is none.

    Args:
        used: positions of plain words that already are another slot's value.
    """
    words = ["_" if at in used else word for at, word in enumerate(plain(text, lexicon).split())]
    match slot.type:
        case "number":
            return _number(slot, words, lexicon, strict=strict)
        case "digits":
            return _digits(slot, words, lexicon, strict=strict)
        case "date":
            return _date(words, lexicon, strict=strict)
        case "time":
            return _time(words, lexicon, strict=strict)
        case "name":
            return _name(text, words, lexicon, strict=strict)
        case "choice":
            return _choice(slot, words, lexicon, strict=strict)
        case "text":
            return None if strict or not words else Found(text.strip(" ."), 0, len(words))
    raise ValueError(f"slot type: expected one of {', '.join(SLOT_TYPES)}; got {slot.type}")


def read_number(words: list[str], at: int, lexicon: Lexicon) -> tuple[int, int] | None:
    """The number that begins at word `at`: (value, words used)."""
    total = used = 0
    last = 10**9
    while at + used < len(words):
        word = words[at + used]
        if word == lexicon.joiner and used and at + used + 1 < len(words) and last >= 10:
            following = lexicon.numbers.get(words[at + used + 1], 10**9)
            if following < last and following < 100:
                used += 1
                continue
        if word.isdigit() and not used:
            return int(word), 1
        if word == lexicon.hundred and used and total < 10:
            total, last = total * 100, 100
        elif word in lexicon.numbers and (not used or _continues(total, last, lexicon.numbers[word])):
            last = lexicon.numbers[word]
            total += last
        else:
            break
        used += 1
    return (total, used) if used else None


def _continues(total: int, last: int, value: int) -> bool:
    """Whether `value` adds to a number that ended in `last`: "twenty three" does, "three twenty" does not."""
    return (20 <= last < 100 and value < 10) or (last >= 100 and value < 100)


def _number(slot: Slot, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    for at in range(len(words)):
        read = read_number(words, at, lexicon)
        if read is None:
            continue
        value, used = read
        if not strict:
            if words[at] in ("one", "un", "una", "uno") and len(words) > 3 and used == 1 and at > 0:
                continue  # "the one for ..." is seldom a count
            return Found(str(value), at, at + used)
        if _is_cued(slot, words, at, used, lexicon):
            return Found(str(value), at, at + used)
    return None


def _is_cued(slot: Slot, words: list[str], at: int, used: int, lexicon: Lexicon) -> bool:
    """Whether a cue stands beside the number: "four people", "somos cuatro", "para unas cuatro"."""
    cues = {stem(cue, lexicon) for cue in slot.cues}
    before = at - 1
    if before > 0 and words[before] in lexicon.stop_words and stem(words[before], lexicon) not in cues:
        before -= 1
    after = at + used
    return any(0 <= near < len(words) and stem(words[near], lexicon) in cues for near in (before, after))


def _digits(slot: Slot, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    said: list[str] = []
    start = end = 0
    repeat = 1
    for at, word in enumerate(words):
        if word in ("double", "doble"):
            repeat = 2
            continue
        piece = word if word.isdigit() else lexicon.digits.get(word)
        if piece is None and (read := read_number(words, at, lexicon)) is not None and read[1] == 1:
            piece = str(read[0])
        if piece is not None:
            start = at if not said else start
            end = at + 1
            said.append(piece * repeat)
        repeat = 1
    value = "".join(said)
    wanted = max(slot.low, 3) if strict else 1
    return Found(" ".join(value), start, end) if len(value) >= wanted else None


def _date(words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    text = " ".join(words)
    is_to_come = any(said in text for said in lexicon.next_week) and any(word in lexicon.weekdays for word in words)
    for said, value in lexicon.relative_days.items():
        if is_to_come and said in lexicon.next_week:
            continue  # "Thursday of next week"
        # "por la mañana" is a time of day, "mañana" alone is a day.
        match = re.search(rf"(?<!por la )(?<!de la )(?<!en la )\b{said}\b", text)
        if match is not None:
            start = text[: match.start()].count(" ")
            return Found(value, start, start + said.count(" ") + 1)
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
            return Found(value, at - is_led, at + 1)
    found = _month_day(words, lexicon)
    return found if found is not None or strict else _sounds_like_a_day(words, lexicon)


def _sounds_like_a_day(words: list[str], lexicon: Lexicon) -> Found | None:
    """A day was asked for, and something like one was heard: "how about Cersei". It is read back before it counts."""
    best: tuple[float, Found] | None = None
    for said, start, end, is_rare in _misheard(words, lexicon):
        for day in lexicon.weekdays:
            near = similarity(said, day) if is_rare or said[0] == day[0] else 0.0
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
        if month is None or (word == "may" and (at == 0 or words[at - 1] in ("i", "we", "you"))):
            continue
        for near in (at + 1, at + 2, at - 1, at - 2, at - 3):
            number = _day_number(words, near, lexicon) if 0 <= near < len(words) else None
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


def _time(words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    read = _read_english_time if lexicon is ENGLISH else _read_spanish_time
    for at in range(len(words)):
        found = read(words, at, lexicon, strict)
        if found is not None:
            return _with_its_hour(found, words, lexicon) if lexicon is ENGLISH else found
    return None


def _with_its_hour(found: Found, words: list[str], lexicon: Lexicon) -> Found:
    """ "Eleven would pull up in the morning": beside a part of the day a bare number is the hour."""
    if not found.value.startswith("in the "):
        return found
    for at in range(found.start):
        hour = _read_english_time(words, at, lexicon, False)
        if hour is not None and words[at] != "one" and hour.end <= found.start:
            return Found(hour.value, at, found.end)
    return found


def _read_english_time(words: list[str], at: int, lexicon: Lexicon, strict: bool) -> Found | None:
    word, left = words[at], words[at + 1 :]
    if word in ("noon", "midday", "midnight"):
        return Found("noon" if word != "midnight" else word, at, at + 1)
    misheard_half = not strict and left[:1] == ["past"] and word not in lexicon.numbers and word != "quarter"
    is_part = misheard_half or word in ("half", "quarter")
    if is_part and len(left) > 1 and left[0] in ("past", "to", "after"):
        hour = read_number(words, at + 2, lexicon)
        if hour is not None and 1 <= hour[0] <= 12:
            minutes = 15 if word == "quarter" else 30
            before = left[0] == "to"
            end = at + 2 + hour[1]
            return _english(hour[0] - before or 12, 60 - minutes if before else minutes, words, at, end)
    if ":" in word:
        hour_text, minute_text = word.split(":")
        return _english(int(hour_text), int(minute_text), words, at, at + 1)
    hour = read_number(words, at, lexicon)
    if hour is not None and 1 <= hour[0] <= 12:
        end = at + hour[1]
        minute = read_number(words, end, lexicon) if end < len(words) else None
        if minute is not None and minute[0] in (*range(10, 60, 5), 0) and minute[0] >= 10:
            return _english(hour[0], minute[0], words, at, end + minute[1])
        follows = words[end] if end < len(words) else ""
        leads = words[at - 1] if at else ""
        sure = follows in ("am", "pm", "oclock") or leads in ("at", "around", "about", "by", "after", "before")
        sure = sure or (follows in ("in",) and words[end + 1 : end + 3] in (["the", "morning"], ["the", "afternoon"]))
        if sure or (not strict and follows not in ("st", "nd", "rd", "th", "people")):
            return _english(hour[0], 0, words, at, end)
    if word in ("morning", "afternoon", "evening", "lunchtime") and not (at and words[at - 1] == "good"):
        return Found(f"in the {word}", at, at + 1)
    return None


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


def _name(text: str, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    said = " ".join(words)
    for trail in lexicon.name_trail:
        if said.endswith(f" {trail}"):
            return _name_of(text, words[: -trail.count(" ") - 1], words, lexicon, strict=False)
    for lead in sorted(lexicon.name_before, key=len, reverse=True):
        weak = lead in ("for", "under", "it is", "this is", "i am", "es", "soy", "habla", "nombre de")
        match = re.search(rf"\b{lead} (.+)", said)
        if match is not None and not (strict and weak and not _capital_after(text, lead)):
            return _name_of(text, match.group(1).split(), words, lexicon, strict=strict)
    return None if strict else _name_of(text, words, words, lexicon, strict=False)


def is_led(words: str, lexicon: Lexicon) -> bool:
    """Whether something that introduces a name is in plain words: "put it under ..."."""
    leads = (lead for lead in lexicon.name_before if lead not in ("for", "es"))
    return any(f" {lead} " in f" {words} " for lead in (*leads, *lexicon.name_trail))


def _capital_after(text: str, lead: str) -> bool:
    """Whether the recogniser wrote a capital after `lead`: the only sign that "this is" leads to a name."""
    last = lead.split()[-1]
    if lead in ("for", "under", "es", "it is"):
        return False
    return re.search(rf"(?i:\b{last}|\bi['’]m) [A-ZÁÉÍÓÚÑ][a-zà-ÿ]", text) is not None


def _name_of(text: str, after: list[str], words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    written = {plain(word, lexicon): word.strip(" .,!?;:¿¡\"") for word in text.split()}
    closed = {plain(word, lexicon) for word in text.split() if word[-1] in ",.;!?"}
    chosen: list[str] = []
    is_closed = False
    for word in after:
        if len(chosen) > 1 and is_closed:
            break  # a comma after two names: what follows is something else
        is_closed = written.get(word, "")[:1].isupper() and word in closed
        if word in lexicon.name_after or (chosen and word in lexicon.name_noise) or not word[0].isalpha():
            break
        if word not in lexicon.name_noise and (not strict or written.get(word, "")[:1].isupper() or not chosen):
            chosen.append(word)
        if len(chosen) == MAX_NAME_WORDS:
            break
    # "Yep, go ahead" is no name: at least one word must be one that is not in everybody's mouth.
    if not chosen or all(stem(word, lexicon) in ordinary_stems(lexicon) for word in chosen):
        return None
    start = words.index(chosen[0])
    value = " ".join((written.get(word) or word).title() for word in chosen)
    return Found(value, start, start + len(chosen))


def _choice(slot: Slot, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    least = STRICT_SIMILARITY if strict else 0.0
    best: tuple[float, Found] | None = None
    for value, spoken in slot.choices.items():
        for phrase in spoken:
            wanted = _wanted(phrase, lexicon)[0]
            nearest = [_near(phrase, lexicon, word) for word in words]
            hits = [at for at, (found, sure) in enumerate(nearest) if found and sure >= least]
            if {nearest[at][0] for at in hits} != wanted:
                continue
            sure = sum(nearest[at][1] for at in hits) / len(hits) + 0.1 * len(wanted)
            if best is None or sure > best[0]:
                best = sure, Found(value, hits[0], hits[-1] + 1)
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
                best[value] = near, Found(value, at, at + 1)
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
    if not found and len(word) >= MIN_MISHEARD_CHARS and stem(word, lexicon) not in ordinary_stems(lexicon):
        key = telephone_sound(phrase)
        if len(key) >= LONG_TELEPHONE_SOUNDS and telephone_sound(word) == key:
            return stem(phrase, lexicon), SLIP_SIMILARITY
    return found, sure


_WEEKDAYS = {lexicon: Vocabulary(lexicon.weekdays, ordinary_stems(lexicon)) for lexicon in (ENGLISH, SPANISH)}
