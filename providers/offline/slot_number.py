"""Numbers and digits in plain words, in English and Spanish."""

from __future__ import annotations

from providers.offline.lexicon import Lexicon
from providers.offline.slot_spec import Found, Slot
from providers.offline.words import stem


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


def find_number(slot: Slot, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
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


def find_digits(slot: Slot, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
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
