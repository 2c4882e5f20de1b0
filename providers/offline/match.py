"""Which intent a caller means: weighted words against the examples of a script, tolerant of what recognisers mishear.

    text → stems → concepts (synonyms, nearest known word, kind of value) → score for each intent, 0 to 1

A word weighs more the fewer intents use it, and so does a pair of neighbours; articles and courtesies weigh little;
words that no intent knows weigh against all. The score joins two views: a ridge regression over all examples, solved
once when the script is compiled, which learns what tells the intents apart, and the single best example, which rewards
saying the same. A few hundred examples: 50 ms to compile, under 1 ms a text. Pure; a text's result is remembered
(bounded).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

import numpy as np

from providers.offline.lexicon import Lexicon
from providers.offline.slot import find
from providers.offline.slot_spec import Slot
from providers.offline.synonym import groups
from providers.offline.words import Vocabulary, is_alike, ordinary_stems, plain, stem

# Chosen on tests/data/dialogue_development.yaml and paraphrases as a recogniser heard them; each may be off by a third
# without changing more than one answer in a hundred.
STOP_WEIGHT = 0.25
PAIR_WEIGHT = 0.5  # of two neighbours
RIDGE = 0.3  # how little a single example decides
SQUARE_SHARE = 1.0  # of the part of the kernel in which words count only together
LEARNT_SHARE = 0.6  # of the score; the nearest example has the rest
KIND_WEIGHT = 0.5  # of "@date" and the like
UNKNOWN_WEIGHT = 0.55
UNKNOWN_STOP_WEIGHT = 0.05
UNKNOWN_PAIR_WEIGHT = 0.1
BARE_EVIDENCE, ENOUGH_EVIDENCE = 0.15, 0.45  # weight of rare words below which a score shrinks
KEYWORD_SHARE = 0.3  # how far a keyword lifts a score towards 1
REMEMBERED = 512
MIN_ORDERED_WORDS = 4
MIN_GAP_WORDS = 3  # of a phrase, so that one of them may be misheard

_PART = re.compile(r"[.?!;]+\s*|,?\s+\b(?:and|but|y|pero|also|además)\b\s+", re.IGNORECASE)
_NAME = re.compile(r"(?<=[\w,] )[A-ZÁÉÍÓÚÑ][^\W\d_]{2,}")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Matcher:
    """Scores texts against the intents of one script.

    Args:
        examples: intent -> (example sentences, keyword phrases). `{slot}` in an example stands for any value of it.
        synonyms: word or phrase -> plain phrases that mean the same.
        slots: their kinds ("@date") count as words.
    """

    __slots__ = ("_column", "_keywords", "_lexicon", "_longest", "_misheard", "_names", "_of", "_rows", "_slots",
                 "_solved", "_stops", "_synonyms", "_vocabulary", "_weights", "parts", "scores")  # fmt: skip

    def __init__(
        self,
        examples: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
        synonyms: Mapping[str, tuple[str, ...]],
        slots: tuple[Slot, ...],
        lexicon: Lexicon,
    ) -> None:
        self._lexicon = lexicon
        self._slots = slots
        self._synonyms = self._all_synonyms(synonyms)
        self._stops = {stem(word, lexicon) for word in lexicon.stop_words}
        self._longest = max((len(said) for said in self._synonyms), default=0)
        self._misheard = _with_a_gap(self._synonyms)
        sentences = [(name, one) for name, (given, phrases) in examples.items() for one in (*given, *phrases)]
        stems = [self._stems(one) for _, one in sentences]
        self._keywords = {
            name: [tuple(self._concepts(one)) for one in phrases] for name, (_, phrases) in examples.items()
        }
        self._vocabulary = Vocabulary({one for many in stems for one in many}, ordinary_stems(lexicon))
        self._names = list(examples)
        self._weights = self._weigh([name for name, _ in sentences], stems)
        self._column = {one: at for at, one in enumerate(self._weights)}
        self._rows = np.stack([self._vector(dict.fromkeys(many, 1.0), many, 0.0)[0] for many in stems])
        of = np.array([self._names.index(name) for name, _ in sentences])
        self._of = [np.flatnonzero(of == at) for at in range(len(self._names))]
        kernel = _kernel(self._rows @ self._rows.T)
        wanted = (of[:, None] == np.arange(len(self._names))).astype(np.float32)
        # Kernel ridge regression in closed form, one target an intent; rare ones count as much as those with many
        # examples.
        balance = np.sqrt(len(of) / len(self._names) / np.maximum(1, wanted.sum(axis=0)))[of]
        ridge = np.diag(RIDGE / balance).astype(np.float32)
        self._solved = np.linalg.solve(kernel + ridge, wanted).astype(np.float32)
        self.scores = lru_cache(REMEMBERED)(self._scores)
        self.parts = lru_cache(REMEMBERED)(self._parts)

    def _parts(self, text: str) -> tuple[str, ...]:
        """`text` cut into sentences and at "and"; the text itself when there is nothing to cut."""
        found = tuple(part for part in (piece.strip(" ,") for piece in _PART.split(text)) if part)
        return found if len(found) > 1 else (text,)

    def _scores(self, text: str) -> tuple[tuple[str, float], ...]:
        """(intent, score) of all intents, the best first; scores from 0 to 1."""
        heard: dict[str, float] = {}
        order: list[str] = []
        unknown = 0.0
        names = self._proper(text)
        for one in self._stems(text):
            found, similarity = self._vocabulary.nearest(one)
            if similarity < 1 and one in names:
                found, similarity = "", 0.0  # "Carter" is no card that was misheard
            order.append(found or "?")
            if found:
                heard[found] = max(heard.get(found, 0.0), similarity)
                # A word that only resembles a known one is half an unknown one: names resemble everything.
                unknown += (2 * UNKNOWN_WEIGHT * (1 - similarity)) ** 2
            else:
                unknown += (UNKNOWN_STOP_WEIGHT if one in self._stops else UNKNOWN_WEIGHT) ** 2
        if not heard:
            return tuple((name, 0.0) for name in self._names)
        vector, content = self._vector(heard, order, unknown)
        # A few words of courtesy fit something everywhere: they are no evidence.
        evidence = min(1.0, (content + BARE_EVIDENCE) / ENOUGH_EVIDENCE)
        alike = self._rows @ vector
        learnt = np.clip(_kernel(alike) @ self._solved, 0.0, 1.0)
        said = {name: [one for one in many if _has(one, heard, order)] for name, many in self._keywords.items()}
        longest = [set(one) for many in said.values() for one in many]
        scored = []
        for at, name in enumerate(self._names):
            score = LEARNT_SHARE * float(learnt[at]) + (1 - LEARNT_SHARE) * float(alike[self._of[at]].max())
            # "Am I talking to a person?": the longer phrase decides, not the "talk to a person" that is in it.
            if any(not any(set(one) < more for more in longest) for one in said[name]):
                score += KEYWORD_SHARE * (1 - score)
            scored.append((name, score * evidence))
        return tuple(sorted(scored, key=lambda pair: -pair[1]))

    def _proper(self, text: str) -> set[str]:
        """Stems of the words that are written as names: with a capital, and not at the beginning."""
        words = _NAME.findall(text)
        return {stem(word, self._lexicon) for written in words for word in plain(written, self._lexicon).split()}

    def _vector(self, heard: Mapping[str, float], order: list[str], unknown: float) -> tuple[np.ndarray, float]:
        """A text as a row of length 1 (less by what is unknown), and the weight of its rare words."""
        row = np.zeros(len(self._column), dtype=np.float32)
        content = 0.0
        for one, similarity in heard.items():
            weight = self._weights[one] * similarity
            row[self._column[one]] = weight
            content += weight if weight > STOP_WEIGHT else 0.0
        for pair in _pairs(order):
            at = self._column.get(pair)
            if at is not None:
                row[at] = self._weights[pair]
            else:
                unknown += UNKNOWN_PAIR_WEIGHT**2
        return row / math.sqrt(float(row @ row) + unknown + 1e-9), content

    def _weigh(self, names: list[str], stems: list[list[str]]) -> dict[str, float]:
        """Stem or pair -> how much it says: the fewer intents use it, the more."""
        used: dict[str, set[str]] = {}
        for name, many in zip(names, stems, strict=True):
            for one in (*many, *_pairs(many)):
                used.setdefault(one, set()).add(name)
        count = len(set(names))
        weights = {}
        for one, by in used.items():
            rarity = math.log(1 + count / len(by)) / math.log(1 + count)
            if " " in one:
                weights[one] = PAIR_WEIGHT * rarity
            elif one in self._stops:
                weights[one] = STOP_WEIGHT
            else:
                weights[one] = KIND_WEIGHT * rarity if one[0] == "@" else rarity
        return weights

    def _stem_all(self, text: str) -> tuple[str, ...]:
        return tuple(stem(word, self._lexicon) for word in plain(text, self._lexicon).split())

    def _all_synonyms(self, own: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
        """The script's synonyms, then the language's: a group goes where the script sends one of its words."""
        known = {self._stem_all(said): self._stem_all(name) for name, many in own.items() for said in many}
        kept = {self._stem_all(name) for name in own}
        mapped = dict(known)
        for concept, phrases in groups(self._lexicon).items():
            said = [self._stem_all(one) for one in (concept, *phrases)]
            meant = next((mapped.get(one, one) for one in said if one in mapped or one in kept), said[0])
            for one in said:
                if one not in kept and one != meant:
                    known.setdefault(one, meant)
        return known

    def _concepts(self, text: str) -> list[str]:
        """Stems of `text`, with the longest synonyms replaced by what they stand for."""
        stems = self._stem_all(text)
        said: list[str] = []
        at = 0
        while at < len(stems):
            for size in range(min(self._longest, len(stems) - at), 0, -1):
                meant = self._synonym(stems[at : at + size])
                if meant is not None:
                    said.extend(meant)
                    at += size
                    break
            else:
                said.append(stems[at])
                at += 1
        return said

    def _synonym(self, said: tuple[str, ...]) -> tuple[str, ...] | None:
        """What a phrase stands for, also when one word of three or more was misheard by one letter: "sit me in"."""
        meant = self._synonyms.get(said)
        if meant is not None or len(said) < MIN_GAP_WORDS:
            return meant
        for at, word in enumerate(said):
            for whole, right in self._misheard.get((at, *said[:at], *said[at + 1 :]), ()):
                if is_alike(word, right):
                    return whole
        return None

    def _stems(self, text: str) -> list[str]:
        """Stems in the order of the words, then the kinds of the values in `text`."""
        kinds = [slot.name for slot in self._slots if f"{{{slot.name}}}" in text]
        bare = _PLACEHOLDER.sub(" ", text)
        words = plain(bare, self._lexicon).split()
        for slot in self._slots:
            # A name or a free text is found nearly everywhere: it says nothing.
            found = find(slot, bare, self._lexicon, strict=True) if slot.type not in ("name", "text") else None
            if found is not None:
                kinds.append(slot.name)
                if slot.type != "choice":
                    words[found.start : found.end] = [""] * (found.end - found.start)
        stems = self._concepts(" ".join(words))
        of = {slot.name: slot for slot in self._slots}
        named = [f"@{name}" if of[name].type == "choice" else f"@{of[name].type}" for name in kinds]
        return [*stems, *dict.fromkeys(named)]


def _with_a_gap(
    synonyms: Mapping[tuple[str, ...], tuple[str, ...]],
) -> dict[tuple[int | str, ...], list[tuple[tuple[str, ...], str]]]:
    """(place of the gap, the other words) -> (what the phrase stands for, the word that belongs there)."""
    found: dict[tuple[int | str, ...], list[tuple[tuple[str, ...], str]]] = {}
    for said, meant in synonyms.items():
        if len(said) >= MIN_GAP_WORDS:
            for at, word in enumerate(said):
                found.setdefault((at, *said[:at], *said[at + 1 :]), []).append((meant, word))
    return found


def _has(phrase: tuple[str, ...], heard: Mapping[str, float], order: list[str]) -> bool:
    """Whether the concepts of a keyword phrase were heard; of a long one in its order: "am I" asks, "I am" does not."""
    if not all(one in heard for one in phrase):
        return False
    if len(phrase) < MIN_ORDERED_WORDS:
        return True
    rest = iter(order)
    return all(one in rest for one in phrase)


def _pairs(stems: list[str]) -> list[str]:
    """Neighbours, with the beginning: "^ where", "where are"."""
    words = ["^", *(one for one in stems if one[0] != "@")]
    return [f"{one} {other}" for one, other in pairwise(words)]


def _kernel(alike: np.ndarray) -> np.ndarray:
    """Similarity of two texts for learning: their cosine, and its square for words that count only together."""
    return np.asarray((alike + SQUARE_SHARE * alike * alike) / (1 + SQUARE_SHARE))
