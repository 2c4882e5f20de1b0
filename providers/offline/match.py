"""Which intent a caller means: weighted words against the examples of a script, tolerant of what recognisers mishear.

    text → stems → concepts (synonyms, nearest known word, kind of value) → score for each intent, 0 to 1

A word weighs more the fewer intents use it; articles and courtesies weigh little; words that no intent knows weigh
against all. The score joins two views: all examples of an intent as one bag of words, which forgives order and length,
and the single best example, which rewards saying the same. Pure; a text's result is remembered (bounded).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from providers.offline.lexicon import Lexicon
from providers.offline.slot import Slot, find
from providers.offline.words import Vocabulary, plain, stem

STOP_WEIGHT = 0.12
KIND_WEIGHT = 0.5  # of "@date" and the like
UNKNOWN_WEIGHT = 0.45
UNKNOWN_STOP_WEIGHT = 0.03
KEYWORD_SHARE = 0.45  # how far a keyword lifts a score towards 1
BAG_SHARE = 0.6
REMEMBERED = 512

_PART = re.compile(r"[.?!;]+\s*|,?\s+\b(?:and|but|y|pero|also|además)\b\s+", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Matcher:
    """Scores texts against the intents of one script.

    Args:
        examples: intent -> (example sentences, keyword phrases). `{slot}` in an example stands for any value of it.
        synonyms: word or phrase -> plain phrases that mean the same.
        slots: their kinds ("@date") count as words.
    """

    __slots__ = ("_bags", "_examples", "_intent_count", "_keywords", "_lexicon", "_longest", "_slots", "_synonyms",
                 "_vocabulary", "_weights", "parts", "scores")  # fmt: skip

    def __init__(
        self,
        examples: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
        synonyms: Mapping[str, tuple[str, ...]],
        slots: tuple[Slot, ...],
        lexicon: Lexicon,
    ) -> None:
        self._lexicon = lexicon
        self._slots = slots
        self._synonyms = {
            self._stem_all(said): self._stem_all(name) for name, many in synonyms.items() for said in many
        }
        self._longest = max((len(said) for said in self._synonyms), default=0)
        self._examples = {
            name: [frozenset(self._stems(one)) for one in sentences] for name, (sentences, _) in examples.items()
        }
        self._keywords = {
            name: [frozenset(self._concepts(one)) for one in phrases]
            for name, (_, phrases) in examples.items()
        }
        counts = {name: _frequencies(sentences) for name, sentences in self._examples.items()}
        known = {one for bag in counts.values() for one in bag} | {
            one for phrases in self._keywords.values() for phrase in phrases for one in phrase
        }
        self._vocabulary = Vocabulary(known)
        self._intent_count = len(examples)
        stops = {stem(word, lexicon) for word in lexicon.stop_words}
        self._weights = {one: self._weight(one, counts, stops) for one in known | stops}
        totals = {one: sum(bag.get(one, 0.0) for bag in counts.values()) for one in known}
        self._bags = {name: {one: share / totals[one] for one, share in bag.items()} for name, bag in counts.items()}
        self.scores = lru_cache(REMEMBERED)(self._scores)
        self.parts = lru_cache(REMEMBERED)(self._parts)

    def _parts(self, text: str) -> tuple[str, ...]:
        """`text` cut into sentences and at "and"; the text itself when there is nothing to cut."""
        found = tuple(part for part in (piece.strip(" ,") for piece in _PART.split(text)) if part)
        return found if len(found) > 1 else (text,)

    def _scores(self, text: str) -> tuple[tuple[str, float], ...]:
        """(intent, score) of all intents, the best first; scores from 0 to 1."""
        heard: dict[str, float] = {}
        unknown = 0.0
        for one in self._stems(text):
            found, similarity = self._vocabulary.nearest(one)
            if found:
                heard[found] = max(heard.get(found, 0.0), similarity)
                # A word that only resembles a known one is half an unknown one: names resemble everything.
                unknown += UNKNOWN_WEIGHT * 2 * (1 - similarity)
            else:
                unknown += UNKNOWN_STOP_WEIGHT if one in self._weights else UNKNOWN_WEIGHT
        scored = [(name, self._score(name, heard, unknown)) for name in self._examples]
        return tuple(sorted(scored, key=lambda pair: -pair[1]))

    def _score(self, name: str, heard: Mapping[str, float], unknown: float) -> float:
        if not heard:
            return 0.0
        weights = {one: self._weights[one] * similarity for one, similarity in heard.items()}
        total = sum(weights.values()) + unknown
        bag = self._bags[name]
        in_bag = sum(weight * bag.get(one, 0.0) for one, weight in weights.items()) / total
        best = 0.0
        for example in self._examples[name]:
            shared = sum(weights[one] for one in example if one in weights)
            size = sum(self._weights[one] for one in example)
            best = max(best, 2 * shared / (size + total))
        score = BAG_SHARE * in_bag + (1 - BAG_SHARE) * best
        if any(phrase <= heard.keys() for phrase in self._keywords[name]):
            score += KEYWORD_SHARE * (1 - score)
        return score

    def _weight(self, one: str, counts: Mapping[str, Mapping[str, float]], stops: set[str]) -> float:
        if one in stops:
            return STOP_WEIGHT
        used_by = sum(one in bag for bag in counts.values())
        rarity = math.log(1 + self._intent_count / max(1, used_by)) / math.log(1 + self._intent_count)
        return KIND_WEIGHT * rarity if one[0] == "@" else rarity

    def _stem_all(self, text: str) -> tuple[str, ...]:
        return tuple(stem(word, self._lexicon) for word in plain(text, self._lexicon).split())

    def _concepts(self, text: str) -> list[str]:
        """Stems of `text`, with the longest synonyms replaced by what they stand for."""
        stems = self._stem_all(text)
        said: list[str] = []
        at = 0
        while at < len(stems):
            for size in range(min(self._longest, len(stems) - at), 0, -1):
                meant = self._synonyms.get(stems[at : at + size])
                if meant is not None:
                    said.extend(meant)
                    at += size
                    break
            else:
                said.append(stems[at])
                at += 1
        return said

    def _stems(self, text: str) -> list[str]:
        """Stems in the order of the words, then the kinds of the values in `text`."""
        kinds = [slot.name for slot in self._slots if f"{{{slot.name}}}" in text]
        bare = _PLACEHOLDER.sub(" ", text)
        stems = self._concepts(bare)
        for slot in self._slots:
            # A name or a free text is found nearly everywhere: it says nothing.
            if slot.type not in ("name", "text") and find(slot, bare, self._lexicon, strict=True) is not None:
                kinds.append(slot.name)
        of = {slot.name: slot for slot in self._slots}
        named = [f"@{name}" if of[name].type == "choice" else f"@{of[name].type}" for name in kinds]
        return list(dict.fromkeys(stems + named))


def _frequencies(sentences: list[frozenset[str]]) -> dict[str, float]:
    """Stem -> share of the sentences that hold it, smoothed so that one mention counts among many examples."""
    counts: dict[str, int] = {}
    for sentence in sentences:
        for one in sentence:
            counts[one] = counts.get(one, 0) + 1
    return {one: math.sqrt(count / len(sentences)) for one, count in counts.items()}
