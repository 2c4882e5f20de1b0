"""From what a recogniser wrote to words that can be compared: plain form, stems, and tolerant lookup.

    "What's the price of 2 cleanings?" → what is the price of 2 cleanings → what is the pric of 2 clean

A vocabulary finds a word that is not in it by sound or by one slip of a letter, because recognisers mishear. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from providers.offline.lexicon import LEXICONS, Lexicon

MIN_STEM_CHARS = 4
MIN_TOLERANT_CHARS = 4  # shorter words are a slip away from everything
SOUND_SIMILARITY = 0.85
SLIP_SIMILARITY = 0.8
TELEPHONE_SIMILARITY = 0.7
REMEMBERED_WORDS = 8192
REMEMBERED_TEXTS = 2048

_TOKEN = re.compile(r"[a-z']+|\d+(?::\d\d)?")
# English spelling to sound, coarse on purpose; the first letter's vowel stays, the others are dropped.
_SOUNDS = (
    ("ght", "t"), ("tch", "c"), ("ph", "f"), ("ck", "k"), ("sch", "sk"), ("kn", "n"), ("wr", "r"), ("qu", "k"),
    ("sh", "x"), ("ch", "x"), ("th", "t"), ("ce", "se"), ("ci", "si"), ("cy", "si"), ("c", "k"), ("q", "k"),
    ("z", "s"), ("dg", "j"), ("ll", "l"), ("v", "b"), ("h", ""), ("w", ""), ("y", ""),
)  # fmt: skip
# What 300 to 3400 Hz do not tell apart: the hisses, voiced and unvoiced stops, m and n. Vowels are one, they count the
# syllables.
_TELEPHONE_SPELLED = (
    ("ght", "t"), ("tch", "f"), ("ph", "f"), ("ck", "k"), ("sch", "f"), ("kn", "n"), ("wr", "r"), ("qu", "k"),
    ("sh", "f"), ("ch", "f"), ("th", "f"), ("ce", "fe"), ("ci", "fi"), ("cy", "fi"), ("ge", "fe"), ("gi", "fi"),
    ("c", "k"), ("x", "f"),
    ("h", ""), ("w", ""), ("y", "i"),
)  # fmt: skip
_TELEPHONE = str.maketrans("aeioubgqdmszvj", "aaaaapkktnffff")
MIN_TELEPHONE_SOUNDS = 4  # shorter keys fit everything
LONG_TELEPHONE_SOUNDS = 6  # as sure as a slip of a letter


def language_of(tag: str) -> Lexicon:
    """The lexicon of a BCP 47 tag. Raises KeyError with the primary language."""
    return LEXICONS[tag.split("-")[0].lower()]


@lru_cache(REMEMBERED_TEXTS)
def plain(text: str, lexicon: Lexicon) -> str:
    """Lower case, no accents, contractions written out, single spaces; times keep their colon: "10:30"."""
    text = unicodedata.normalize("NFKD", text.replace("\u2019", "'").lower())
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    text = re.sub(r"(\d)(am|pm|st|nd|rd|th|h)\b", r"\1 \2", text)
    text = re.sub(r"(?<=\d)[.](?=\d\d\b)", ":", text)
    tokens = (lexicon.contractions.get(token, token) for token in _TOKEN.findall(text))
    return " ".join(token.replace("'s", "").replace("'", "") for token in tokens)


@lru_cache(REMEMBERED_WORDS)
def stem(word: str, lexicon: Lexicon) -> str:
    """`word` without its longest known ending; at least four letters stay."""
    if word[0].isdigit():
        return word
    for suffix in lexicon.suffixes:
        if word.endswith(suffix) and len(word) - len(suffix) >= MIN_STEM_CHARS:
            word = word[: -len(suffix)]
            break
    if len(word) > MIN_STEM_CHARS and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if len(word) > MIN_STEM_CHARS and word[-1] in "eiy" else word


@lru_cache(REMEMBERED_WORDS)
def sound(word: str) -> str:
    """A coarse key: words that sound alike share it."""
    for spelled, heard in _SOUNDS:
        word = word.replace(spelled, heard)
    if not word:
        return ""
    rest = re.sub(r"[aeiou]", "", word[1:])
    head = "a" if word[0] in "aeiou" else word[0]
    return re.sub(r"(.)\1+", r"\1", head + rest)


@lru_cache(REMEMBERED_WORDS)
def telephone_sound(word: str) -> str:
    """A coarser key: what is left of a word when a telephone has taken its hisses and the ends of its syllables.

    All hisses are one sound ("Visa" and "fever", "filling" and "silling"), so are b and p, d and t, g and k, m and n.
    """
    for spelled, heard in _TELEPHONE_SPELLED:
        word = word.replace(spelled, heard)
    key = re.sub(r"(.)\1+", r"\1", word.translate(_TELEPHONE))
    return key[:-1] if key.endswith("ar") else key


@lru_cache(REMEMBERED_WORDS)
def is_alike(heard: str, meant: str) -> bool:
    """Whether `heard` may be `meant` misheard: one letter apart, or the same on a telephone."""
    if heard == meant:
        return True
    if abs(len(heard) - len(meant)) <= 1 and len(heard) > 2 and distance(heard, meant) <= 1:
        return True
    return len(telephone_sound(meant)) >= MIN_TELEPHONE_SOUNDS and telephone_sound(heard) == telephone_sound(meant)


def similarity(one: str, other: str) -> float:
    """How near two words sound on a telephone: 1 the same, 0 nothing in common."""
    left, right = telephone_sound(one), telephone_sound(other)
    return 1 - distance(left, right) / max(len(left), len(right), 1)


def distance(one: str, other: str) -> int:
    """Letters to put in, take out or replace."""
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, wanted in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (letter != wanted))
    return row[-1]


@lru_cache(8)
def ordinary_stems(lexicon: Lexicon) -> frozenset[str]:
    """Stems of the words that a recogniser seldom writes for another one, because they are so frequent."""
    words = {*lexicon.stop_words, *lexicon.ordinary, *lexicon.numbers, *lexicon.name_noise}
    for phrase in (*lexicon.yes, *lexicon.no, *lexicon.leave, *lexicon.name_before):
        words.update(phrase.split())
    return frozenset(stem(word, lexicon) for word in words)


class Vocabulary:
    """Known stems; finds the nearest of an unknown one in a time that does not depend on their number."""

    __slots__ = ("_by_slip", "_by_sound", "_by_telephone", "_ordinary", "_stems")

    def __init__(self, stems: Iterable[str], ordinary: frozenset[str] = frozenset()) -> None:
        """`ordinary` stems are words of their own: they are never taken for a known one misheard."""
        self._stems = frozenset(stems)
        self._ordinary = ordinary
        self._by_sound: dict[str, str] = {}
        self._by_slip: dict[str, str] = {}
        self._by_telephone: dict[str, str] = {}
        for one in sorted(self._stems):
            if len(one) < MIN_TOLERANT_CHARS or one[0].isdigit() or one[0] == "@":
                continue
            key = sound(one)
            if len(key) >= 3:
                self._by_sound.setdefault(key, one)
            for slip in _slips(one):
                self._by_slip.setdefault(slip, one)
            if len(key := telephone_sound(one)) >= MIN_TELEPHONE_SOUNDS:
                self._by_telephone.setdefault(key, one)

    def __contains__(self, one: str) -> bool:
        return one in self._stems

    def nearest(self, one: str) -> tuple[str, float]:
        """The known stem for `one` and how sure that is: 1 exact, less by sound or slip, ("", 0) when there is none."""
        if one in self._stems:
            return one, 1.0
        if len(one) < MIN_TOLERANT_CHARS or one[0].isdigit() or one in self._ordinary:
            return "", 0.0
        for slip in _slips(one):
            found = self._by_slip.get(slip)
            # The first letter is what recognisers get right: without this rule "book" is "cook".
            if found is not None and found[0] == one[0]:
                return found, SLIP_SIMILARITY
        found = self._by_sound.get(sound(one))
        if found is not None:
            return found, SOUND_SIMILARITY
        key = telephone_sound(one)
        found = self._by_telephone.get(key)
        if found is None:
            return "", 0.0
        return found, SLIP_SIMILARITY if len(key) >= LONG_TELEPHONE_SOUNDS else TELEPHONE_SIMILARITY


@lru_cache(REMEMBERED_WORDS)
def _slips(word: str) -> tuple[str, ...]:
    """`word` and all that is left of it after losing one letter: two words that share one differ by one slip."""
    if len(word) <= MIN_TOLERANT_CHARS:
        return (word,)
    return (word, *(word[:at] + word[at + 1 :] for at in range(len(word))))
