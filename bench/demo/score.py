"""Words understood against words said: the usual word error rate after the usual normalisation.

Case, punctuation, hyphens and fillers do not count; numbers are compared as words, so "10" is "ten" and "o'clock" one
word; common contractions are written out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FILLERS = frozenset(("uh", "um", "hm", "mhm", "mm", "ah"))
EXPANSIONS = {
    "i'm": "i am", "i'd": "i would", "i'll": "i will", "i've": "i have", "it's": "it is", "that's": "that is",
    "you're": "you are", "we're": "we are", "they're": "they are", "don't": "do not", "can't": "cannot",
    "isn't": "is not", "what's": "what is", "who's": "who is", "a.m": "am", "p.m": "pm", "ok": "okay",
}  # fmt: skip
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass(frozen=True, slots=True)
class WordErrors:
    """`errors` are substitutions, deletions and insertions; `words` were said."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        return self.errors / self.words if self.words else 0.0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(self.errors + other.errors, self.words + other.words)


def normalise(text: str) -> list[str]:
    """The words of a text, as they are compared."""
    plain = text.lower().replace("\u2019", "'")
    plain = re.sub(r"\b([ap])\.? ?m\b\.?", r"\1m", plain)
    plain = re.sub(r"good-?\s?bye?\b", "goodbye", plain)
    words: list[str] = []
    for raw in re.findall(r"[a-z]+(?:'[a-z]+)?|\d+", plain):
        word = EXPANSIONS.get(raw, raw)
        spoken = _number(int(word)) if word.isdigit() else word
        words += [one.replace("'", "") for one in spoken.split() if one not in FILLERS]
    return words


def word_errors(said: str, understood: str) -> WordErrors:
    """The least number of edits between the two, in words."""
    wanted, got = normalise(said), normalise(understood)
    row = list(range(len(got) + 1))
    for at, word in enumerate(wanted, 1):
        before, row[0] = row[0], at
        for column, other in enumerate(got, 1):
            keep = before + (word != other)
            before, row[column] = row[column], min(keep, row[column] + 1, row[column - 1] + 1)
    return WordErrors(row[-1], len(wanted))


def has_keyword(text: str, expect: tuple[str, ...]) -> bool:
    """True when one of `expect` is in the text, word by word; nothing expected is always there."""
    words = f" {' '.join(normalise(text))} "
    return not expect or any(f" {' '.join(normalise(one))} " in words for one in expect)


def _number(value: int) -> str:
    if value < 20:
        return ONES[value]
    if value < 100:
        return f"{TENS[value // 10]} {ONES[value % 10] if value % 10 else ''}".strip()
    if value < 1000:
        rest = f" {_number(value % 100)}" if value % 100 else ""
        return f"{ONES[value // 100]} hundred{rest}"
    return " ".join(ONES[int(digit)] for digit in str(value))
