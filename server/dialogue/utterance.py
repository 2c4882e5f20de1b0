"""What the caller has said since the agent's last turn: utterances, open or committed, with their words.

An utterance is *aside* while the agent has the floor and the caller has not taken it: its words are dropped
unless it is adopted. Words of an answer that was taken back stand before what follows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Utterance:
    number: int
    start_ms: int
    end_ms: int = 0
    aside: bool = False
    is_open: bool = True
    is_final: bool = False
    text: str = ""
    confidence: float | None = None
    recorded: bool = False


class Utterances:
    """The caller's current turn. Numbers count up over the whole call."""

    __slots__ = ("_items", "_number")

    def __init__(self) -> None:
        self._items: list[Utterance] = []
        self._number = 0

    def begin(self, start_ms: int, *, aside: bool) -> int:
        self._items = [one for one in self._items if not (one.aside and not one.is_open)]
        self._number += 1
        self._items.append(Utterance(self._number, start_ms, aside=aside))
        return self._number

    def resume(self) -> int:
        """The last utterance goes on; what was final of it no longer is."""
        last = self._items[-1]
        last.is_open, last.is_final = True, False
        return last.number

    def adopt(self) -> None:
        """The caller took the floor, or will get it: what is being said counts."""
        if self._items:
            self._items[-1].aside = False

    def stop(self, end_ms: int) -> int | None:
        """The talkspurt closed. Returns the utterance to commit, None when none is open."""
        if not self.is_open():
            return None
        last = self._items[-1]
        last.is_open, last.end_ms = False, end_ms
        return last.number

    def interim(self, number: int, text: str) -> bool:
        """Returns whether the words of the current turn changed."""
        for one in self._items:
            if one.number == number and not one.is_final:
                changed = one.text != text
                one.text = text
                return changed and not one.aside
        return False

    def final(self, number: int, text: str, confidence: float | None) -> bool:
        """Returns False for an utterance that is unknown, reopened, or settled already."""
        for one in self._items:
            if one.number == number and not one.is_open and not one.is_final:
                one.text, one.confidence, one.is_final = text, confidence, True
                return not one.aside
        return False

    def give_up(self) -> None:
        """No final will come: the last interim stands."""
        for one in self._items:
            one.is_final = one.is_final or not one.is_open

    def put_before(self, text: str) -> None:
        """`text` was answered too early and belongs before what is being said now; it is on record already."""
        if text:
            said = Utterance(0, 0, is_open=False, is_final=True, text=text, recorded=True)
            self._items.insert(0, said)

    def is_open(self) -> bool:
        return bool(self._items) and self._items[-1].is_open

    def is_settled(self) -> bool:
        """Every utterance that counts has its final."""
        return all(one.is_final for one in self._items if not one.aside)

    def has_words_pending(self) -> bool:
        return any(not one.aside for one in self._items)

    def text(self) -> str:
        return " ".join(one.text for one in self._items if one.text and not one.aside)

    def take(self) -> list[Utterance]:
        """The turn is taken: returns the utterances to put on record, and starts anew."""
        taken = [one for one in self._items if not one.aside and not one.recorded]
        self.clear()
        return taken

    def drop(self) -> None:
        """The stream is gone, and with it whatever was open."""
        self._items = []

    def clear(self) -> None:
        self._items = [one for one in self._items if one.is_open]
