"""Words to expect, as a bounded help to the recogniser's decoder: what cloud services call a phrase list.

    phrases → tokens → trie;  a hypothesis that spells a phrase gets BONUS a token, and gives it back if it does not

Guarantees: no more than MAX_BONUS for one phrase; nothing for a part of a word or of a phrase, so a hypothesis is never
better for having begun one; the decoder offers only what is nearly as likely as what it hears (`beam.MARGIN`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

BONUS = 1.2  # nats a token; of 0.6 to 2.4 the best on development sentences that did not change others
MAX_BONUS = 3.0
MAX_PHRASES = 1000
MAX_PHRASE_TOKENS = 24
WORD_START = "\u2581"


@dataclass(slots=True)
class Node:
    """A place in the trie. `is_end`: a phrase is whole here."""

    next: dict[int, Node] = field(default_factory=dict)
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a hypothesis stands: `given` so far, and `whole`, what of that it keeps if the word ends here."""

    node: Node | None = None
    tokens: int = 0
    given: float = 0.0
    whole: float = 0.0


class Bias:
    """The phrases of one call. Immutable; threads may share it.

    Args:
        pieces: token -> its bytes.
        phrases: words to expect; those after MAX_PHRASES and longer ones than MAX_PHRASE_TOKENS are left out.
    """

    __slots__ = ("_root", "_starts", "phrases")

    def __init__(self, pieces: Sequence[bytes], phrases: Iterable[str]) -> None:
        numbers = {piece: number for number, piece in enumerate(pieces)}
        self._root = Node()
        start = WORD_START.encode()
        # What may follow a whole word: a new one, punctuation, or the end.
        self._starts = frozenset(
            number for piece, number in numbers.items() if piece.startswith(start) or not piece.isalnum()
        )
        self.phrases = 0
        for phrase in phrases:
            if self.phrases >= MAX_PHRASES:
                break
            for spelled in {phrase.strip(), phrase.strip().lower(), phrase.strip()[:1].upper() + phrase.strip()[1:]}:
                self._add(spelled, numbers)
            self.phrases += 1

    def _add(self, phrase: str, numbers: Mapping[bytes, int]) -> None:
        tokens = _tokens(WORD_START + phrase.replace(" ", WORD_START), numbers)
        if not phrase or not tokens or len(tokens) > MAX_PHRASE_TOKENS:
            return
        node = self._root
        for token in tokens:
            node = node.next.setdefault(token, Node())
        node.is_end = True

    def step(self, place: Place, token: int) -> tuple[Place, float]:
        """Go on with `token`: where that leads, and what to add to the hypothesis' score."""
        change = 0.0
        if place.node is not None:
            following = place.node.next.get(token)
            if following is not None:
                return self._enter(following, place.tokens + 1, place)
            # The phrase is left: what was given for it stays only if it was whole and the word ends here.
            change = (place.whole if token in self._starts else 0.0) - place.given
        first = self._root.next.get(token)
        if first is None:
            return NOWHERE, change
        entered, more = self._enter(first, 1, NOWHERE)
        return entered, change + more

    def end(self, place: Place) -> float:
        """What to add when the hypothesis ends at `place`."""
        return place.whole - place.given if place.node is not None else 0.0

    def _enter(self, node: Node, tokens: int, before: Place) -> tuple[Place, float]:
        given = min(MAX_BONUS, BONUS * tokens)
        return Place(node, tokens, given, given if node.is_end else before.whole), given - before.given


NOWHERE = Place()


def _tokens(text: str, numbers: Mapping[bytes, int]) -> list[int]:
    """The pieces that the model writes for `text`; empty when it cannot.

    Byte pairs are joined in the order in which the vocabulary learnt them, which is the order of its numbers.
    """
    parts = [letter.encode() for letter in text]
    while True:
        joined = [(numbers.get(one + other, len(numbers)), at) for at, (one, other) in enumerate(pairwise(parts))]
        number, at = min(joined, default=(len(numbers), 0))
        if number == len(numbers):
            return [numbers[part] for part in parts] if all(part in numbers for part in parts) else []
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
