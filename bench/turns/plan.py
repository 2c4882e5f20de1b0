"""Who calls in a run: speakers of one half, their surroundings, their turns and what they do while the agent speaks.

Drawn from the corpus by fixed seeds, so two runs with the same number of calls have the same callers. Surroundings are
dealt out in turn; each caller keeps theirs for the whole call. Echo callers have no noise, so that what stopped the
agent is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.sim.clipbook import BookClip
from bench.turns.call_log import Kind, Surroundings
from bench.turns.corpus import LANGUAGES, Corpus, Sound, Turn
from bench.turns.speaker import Half, seed_of
from bench.turns.surroundings import PLACES, Floats, heard_in, response

LINES: tuple[tuple[str, float | None, str], ...] = (
    ("", None, "handset"),
    ("babble", 10.0, "handset"),
    ("", None, "speakerphone"),
    ("babble", 20.0, "handset"),
    ("", None, "room"),
    ("babble", 10.0, "handset"),
    ("office", 10.0, "handset"),
    ("", None, "handset"),
    ("babble", 5.0, "handset"),
    ("", None, "speakerphone"),
    ("crowd", 20.0, "handset"),
    ("city", 10.0, "handset"),
)
EVENTS: dict[Kind | None, float] = {None: 0.4, "cough": 0.2, "backchannel": 0.2, "interruption": 0.2}
EVENT_AFTER_MS = (900.0, 2600.0)
"""Of the agent's speech in an answer: its opener has been heard, and seconds are left."""
THINK_MS = (300.0, 1200.0)


@dataclass(frozen=True, slots=True)
class Utter:
    """Something to be put on the line: `line` is longer than the speech, `speech_samples`, where the room goes on."""

    name: str
    line: Floats
    speech_samples: int
    pauses: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """What the caller does `after_ms` of the agent's answer."""

    kind: Kind
    after_ms: float
    sound: Utter


@dataclass(frozen=True, slots=True)
class Step:
    """One turn, and what happens in its answer."""

    think_ms: float
    turn: Utter
    event: Event | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One caller. `bed` is the noise at its level, None on a clean line."""

    where: Surroundings
    bed: Floats | None
    steps: tuple[Step, ...]


def plans(corpus: Corpus, half: Half, calls: int) -> tuple[list[Plan], list[BookClip]]:
    """`calls` callers, languages in turn; and what a simulated recogniser must know. Raises ValueError: no speaker."""
    turn = {language: iter(_forever(corpus.speakers(half, language))) for language in LANGUAGES}
    made: list[Plan] = []
    book: dict[str, BookClip] = {}
    for no in range(calls):
        language = LANGUAGES[no % len(LANGUAGES)]
        # Languages alternate, so the lines are dealt to each language by itself, the second one from the middle on.
        line = LINES[(no // 2 + (no % 2) * len(LINES) // 2) % len(LINES)]
        made.append(_plan(corpus, half, language, next(turn[language]), line, no, book))
    return made, list(book.values())


def _plan(
    corpus: Corpus, half: Half, language: str, speaker: str, line: tuple[str, float | None, str], no: int,
    book: dict[str, BookClip],
) -> Plan:  # fmt: skip
    noise, snr_db, place = line
    noise = f"babble {language}" if noise == "babble" else noise
    dice = np.random.default_rng(seed_of("plan", half, speaker, str(no)))
    room = response(PLACES[place], dict(corpus.tails))

    def put(one: Turn | Sound) -> Utter:
        made = heard_in(one.samples, room)
        name = f"{one.name} / {place}"
        if isinstance(one, Turn) or one.text:
            on_line = np.clip(made, -32768, 32767).astype(np.int16)
            book.setdefault(name, _book_clip(one, name, on_line))
        gaps = one.phrases if isinstance(one, Turn) else ()
        pauses = tuple((a.end, b.begin) for a, b in pairwise(gaps))
        return Utter(name, made, one.samples.size, pauses)

    turns = [put(one) for one in corpus.turns_of(speaker)]
    # Recorded people have no such sounds of their own.
    donor = speaker if corpus.sounds_of(speaker, "interruption") else _donor(corpus, half, language)
    sounds = {kind: [put(one) for one in corpus.sounds_of(donor, kind)] for kind in EVENTS if kind is not None}
    steps = []
    for _ in range(4):
        for at in dice.permutation(len(turns)).tolist():
            kind = list(EVENTS)[int(dice.choice(len(EVENTS), p=list(EVENTS.values())))]
            event = None
            if kind is not None:
                sound = sounds[kind][int(dice.integers(len(sounds[kind])))]
                event = Event(kind, float(dice.uniform(*EVENT_AFTER_MS)), sound)
            steps.append(Step(float(dice.uniform(*THINK_MS)), turns[at], event))
    bed = None
    if noise and snr_db is not None:
        bed = np.roll(corpus.beds[noise], int(dice.integers(corpus.beds[noise].size))) * 10 ** (-snr_db / 20)
    where = Surroundings(language=language, speaker=speaker, noise=noise, snr_db=snr_db, place=place)
    return Plan(where, bed, tuple(steps))


def _book_clip(one: Turn | Sound, name: str, line: np.ndarray) -> BookClip:
    if isinstance(one, Turn):
        clip = one.book_clip(line)
        return BookClip(name, clip.s16, clip.words, clip.language)
    return BookClip.of(name, one.text, line.tobytes(), language=one.language)


def _donor(corpus: Corpus, half: Half, language: str) -> str:
    return next(one for one in corpus.speakers(half, language) if corpus.sounds_of(one, "interruption"))


def _forever(names: Sequence[str]) -> Iterator[str]:
    if not names:
        raise ValueError("the corpus has no speaker of a language in this half")
    while True:
        yield from names
