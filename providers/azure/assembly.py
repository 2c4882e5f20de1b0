"""From the service's phrases to our utterances: exactly one Final for each that was committed.

The service recognises one endless stream and cuts it into phrases where it likes; we cut it into utterances where our
VAD does. Offsets decide which phrase belongs to which utterance:

    utterances   ├──── 1 ────┤  ├──────── 2 ────────┤
    phrases        └─ a ─┘ └b┘     └── c ──┘ └── d ──┘      Final 1 = "a b", Final 2 = "c d"

An utterance is open (Interims come), then committed (waits for its last phrase), then settled (its Final was given);
`resume` opens it again with everything it had. What arrives for a settled utterance is kept for that case, counted, and
given to nobody. Pure: no clock, no SDK.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from providers.azure.timeline import TICKS_PER_MS, Timeline
from providers.base import Final, Interim, TranscriptEvent

MAX_UTTERANCES = 32
# The service's end of a phrase lies before ours: our commit comes after hangover and endpointing delay.
TAIL_TICKS = 1500 * TICKS_PER_MS


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the service believes at the moment about ticks [start, end); replaces the one before."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Phrase:
    """What the service holds for final about ticks [start, end). `token` is our commit that it answers, or 0."""

    text: str
    start: int
    end: int
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    token: int = 0


@dataclass(slots=True)
class Counters:
    """What was not as it should be, for metrics."""

    late_phrases: int = 0  # for an utterance that had its Final
    late_changes: int = 0  # of these, with other words than the Final had
    guessed_finals: int = 0  # an interim taken for the final
    empty_finals: int = 0
    orphan_phrases: int = 0  # of no utterance that we know
    split_phrases: int = 0  # over two utterances


@dataclass(slots=True)
class _Part:
    start: int
    text: str
    confidence: float | None


@dataclass(slots=True)
class _Utterance:
    number: int
    start_ms: int
    fed_bytes: int = 0
    signs_before: int = 0
    parts: list[_Part] = field(default_factory=list)
    guess: Hypothesis | None = None
    state: str = "open"  # open, committed, settled
    token: int = 0
    end: int = 0  # tick of the commit

    def text(self) -> str:
        texts = [part.text for part in self.parts]
        if self.guess is not None:
            texts.append(self.guess.text)
        return " ".join(one for one in texts if one)

    def confidence(self) -> float | None:
        """Mean over the phrases, by their length; None when a part of the text is a guess."""
        known = [(len(one.text), one.confidence) for one in self.parts if one.confidence is not None and one.text]
        if not known or self.guess is not None or len(known) < sum(1 for one in self.parts if one.text):
            return None
        return round(sum(size * value for size, value in known) / sum(size for size, _ in known), 4)


class Assembly:
    """The utterances of one call. Methods return the events to give on, in order."""

    __slots__ = ("_bytes_per_ms", "_current", "_signs", "_timeline", "_utterances", "counters")

    def __init__(self, bytes_per_s: int) -> None:
        self.counters = Counters()
        self._bytes_per_ms = bytes_per_s // 1000
        self._signs = 0
        self._timeline = Timeline(bytes_per_s)
        self._utterances: dict[int, _Utterance] = {}
        self._current: _Utterance | None = None

    # ── from the call ─────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, number: int, start_ms: int) -> None:
        self._current = self._utterances[number] = _Utterance(number, start_ms, signs_before=self._signs)
        while len(self._utterances) > MAX_UTTERANCES:
            del self._utterances[next(iter(self._utterances))]

    @property
    def is_open(self) -> bool:
        return self._current is not None and self._current.state == "open"

    def feed(self, size_bytes: int) -> None:
        """Audio of the open utterance was given to the service."""
        assert self._current is not None
        self._current.fed_bytes += size_bytes
        self._timeline.feed(self._current.number, size_bytes)

    def feed_silence(self, size_bytes: int) -> None:
        """Silence of ours was given to the service."""
        self._timeline.feed(None, size_bytes)

    def may_commit(self, number: int) -> bool:
        return self.is_open and self._current is not None and self._current.number == number

    def commit(self, number: int, token: int) -> None:
        """The open utterance is over; `token` is the one that its last phrase will hold, 0 if silence was fed."""
        assert self._current is not None and self._current.number == number
        self._current.state = "committed"
        self._current.token = token
        self._current.end = self._timeline.position

    def expect(self, number: int, token: int) -> None:
        """The committed utterance was committed once more: its last phrase will hold `token`."""
        one = self._utterances.get(number)
        if one is not None and one.state == "committed":
            one.token = token

    def resume(self, number: int) -> bool:
        """Open again; False when `number` is not the last utterance."""
        now = self._current
        if now is None or now.number != number:
            return False
        now.state = "open"
        now.token = 0
        return True

    def seems_whole(self, number: int) -> bool:
        """Whether the service had ended its phrase before we committed and has begun no other that we know of."""
        one = self._utterances.get(number)
        return one is not None and bool(one.parts) and one.guess is None

    def is_committed(self, number: int) -> bool:
        one = self._utterances.get(number)
        return one is not None and one.state == "committed"

    def text(self, number: int) -> str:
        one = self._utterances.get(number)
        return one.text() if one is not None else ""

    def is_unheard(self, number: int) -> bool:
        """Whether audio of the utterance was fed and the service has shown no sign of life since it began."""
        one = self._utterances.get(number)
        return one is not None and one.fed_bytes > 0 and one.signs_before == self._signs

    @property
    def has_signs(self) -> bool:
        """Whether the service has shown any sign of life in this call."""
        return self._signs > 0

    def settle(self, number: int) -> list[TranscriptEvent]:
        """Give the Final of a committed utterance with what is known by now; nothing in any other state."""
        one = self._utterances.get(number)
        if one is None or one.state != "committed":
            return []
        one.state = "settled"
        if one.guess is not None and one.guess.text:
            self.counters.guessed_finals += 1
        text = one.text()
        if not text:
            self.counters.empty_finals += 1
        end_ms = one.start_ms + one.fed_bytes // self._bytes_per_ms
        return [Final(number, text, one.start_ms, end_ms, one.confidence())]

    # ── from the service ──────────────────────────────────────────────────────────────────────────────────────

    def on_sign(self) -> None:
        """Anything at all, even that speech was noticed or that there was nothing to understand."""
        self._signs += 1

    def on_hypothesis(self, guess: Hypothesis) -> list[TranscriptEvent]:
        owners = [number for number, _ in self._timeline.overlaps(guess.start, guess.end)]
        one = self._utterances.get(owners[-1]) if owners else None
        if one is None:
            return []
        if len(owners) > 1:
            # The service did not end its phrase where we ended the utterance: what was said before is not repeated.
            before = self._utterances.get(owners[-2])
            said = len(before.guess.text.split()) if before is not None and before.guess is not None else 0
            guess = Hypothesis(" ".join(guess.text.split()[said:]), guess.start, guess.end)
        if not guess.text or (one.parts and guess.start < one.parts[-1].start):
            return []
        one.guess = guess
        return [Interim(one.number, one.text())] if one.state == "open" else []

    def on_phrase(self, phrase: Phrase) -> list[TranscriptEvent]:
        touched = self._share_out(phrase)
        events: list[TranscriptEvent] = []
        for one in touched:
            if one.state == "open" and one.text():
                events.append(Interim(one.number, one.text()))
        for one in list(self._utterances.values()):
            if phrase.token and phrase.token == one.token:
                one.guess = None  # everything up to the commit is final now: what was only guessed was wrong
            if one.state == "committed" and self._is_whole(one, phrase, one in touched):
                events += self.settle(one.number)
        return events

    @staticmethod
    def _is_whole(one: _Utterance, phrase: Phrase, is_touched: bool) -> bool:
        """Whether nothing more is to come for a committed utterance now that `phrase` has."""
        if phrase.token and one.token:
            return phrase.token >= one.token  # an answer to a later commit answers the earlier ones too
        if phrase.start >= one.end and phrase.text:
            return True
        return not one.token and is_touched and phrase.end + TAIL_TICKS >= one.end

    def _share_out(self, phrase: Phrase) -> list[_Utterance]:
        if not phrase.text:
            # Nothing was understood there: a guess about the same ticks was wrong.
            owner = self._timeline.owner(phrase.start, phrase.end)
            one = self._utterances.get(owner) if owner is not None else None
            if one is None or phrase.end <= phrase.start:
                return [one] if one is not None and phrase.token == 0 else []
            one.guess = None
            return [one]
        shares = self._shares(phrase)
        touched = []
        for number, text in shares.items():
            one = self._utterances.get(number)
            if one is None or not text:
                continue
            if one.state == "settled":
                self.counters.late_phrases += 1
                self.counters.late_changes += _words(text) != _words(one.guess.text if one.guess else "")
            if one.guess is not None and one.guess.start < phrase.end:
                one.guess = None
            # A service that was reconnected may say again what it said before.
            one.parts = [part for part in one.parts if part.start != phrase.start or len(shares) > 1]
            one.parts.append(_Part(phrase.start, text, phrase.confidence))
            touched.append(one)
        if not touched:
            self.counters.orphan_phrases += 1
        return touched

    def _shares(self, phrase: Phrase) -> dict[int, str]:
        owners = [number for number, _ in self._timeline.overlaps(phrase.start, phrase.end)]
        if len(owners) > 1 and phrase.words:
            self.counters.split_phrases += 1
            words: dict[int, list[str]] = {}
            for word in phrase.words:
                owner = self._timeline.owner(word.start, word.end)
                if owner is not None:
                    words.setdefault(owner, []).append(word.text)
            if len(words) > 1:
                return {number: " ".join(texts) for number, texts in words.items()}
            owners = list(words) or owners
        owner = owners[0] if len(owners) == 1 else self._timeline.owner(phrase.start, phrase.end)
        return {} if owner is None else {owner: phrase.text}


def _words(text: str) -> list[str]:
    return ["".join(c for c in word.lower() if c.isalnum()) for word in text.split()]
