"""The corpus of the turn-taking score: turns with pauses inside, short sounds, noise, rooms; made once, then cached.

    python -m bench.turns.corpus [--cache DIR]      makes it, says what is in it

Everything is drawn from seeds that are hashes of names: the same packages give the same samples, as `digest` shows.
Pauses inside turns are log-normal, median 400 ms, 90th percentile 1.2 s. A turn's phrases are rendered one by one and
trimmed, so its pauses are exact; so is its end. The cache lies outside the repository ($XDG_CACHE_HOME/talkspurt).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.sim.clipbook import BookClip, Word, split_words
from bench.sim.sound import RATE_HZ
from bench.turns import surroundings
from bench.turns.source import SourceMissing, fetch
from bench.turns.speaker import Half, Samples, Speaker, half_of, levelled, seed_of, speakers

VERSION = 1
"""Raise it when other samples are made from the same packages, texts and figures."""
TEXTS = Path(__file__).parent / "text.yaml"
LANGUAGES = ("en", "es")
TURNS_A_SPEAKER = 20
PAUSE_MEDIAN_MS, PAUSE_P90_MS = 400.0, 1200.0
PAUSE_RANGE_MS = (60.0, 4000.0)
PAUSES_A_TURN = {0: 0.25, 1: 0.5, 2: 0.25}
_Z90 = 1.2816
PER_MS = RATE_HZ // 1000


@dataclass(frozen=True, slots=True)
class Phrase:
    """A part of a turn without a pause; its span in samples."""

    text: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Turn:
    """All that a caller says before the other has the floor. `samples` end with the last sample of speech."""

    name: str
    speaker: str
    language: str
    phrases: tuple[Phrase, ...]
    samples: Samples = field(repr=False, compare=False)

    @property
    def pauses_ms(self) -> tuple[float, ...]:
        return tuple((after.begin - before.end) / PER_MS for before, after in pairwise(self.phrases))

    def book_clip(self, on_the_line: Samples) -> BookClip:
        """For a simulated recogniser: the turn as it sounds on the line without noise; its words with their times."""
        words: list[Word] = []
        for phrase in self.phrases:
            at_ms = phrase.begin / PER_MS
            spoken = self.samples[phrase.begin : phrase.end].tobytes()
            words += [
                Word(one.text, at_ms + one.start_ms, at_ms + one.end_ms) for one in split_words(phrase.text, spoken)
            ]
        return BookClip(self.name, on_the_line.tobytes(), tuple(words), self.language)


@dataclass(frozen=True, slots=True)
class Sound:
    """Something short that is said or heard while the agent speaks. `kind`: backchannel, interruption or cough."""

    name: str
    kind: str
    speaker: str
    language: str
    text: str
    samples: Samples = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Corpus:
    """`sources` of speakers by name; `beds` of noise at 0 dB signal to noise, `tails` of rooms."""

    digest: str
    sources: Mapping[str, str]
    turns: tuple[Turn, ...]
    sounds: tuple[Sound, ...]
    beds: Mapping[str, surroundings.Floats]
    tails: Mapping[str, surroundings.Floats]

    def speakers(self, half: Half, language: str) -> list[str]:
        found = {one.speaker for one in self.turns if one.language == language and half_of(one.speaker) == half}
        return sorted(found, key=seed_of)

    def turns_of(self, speaker: str) -> list[Turn]:
        return [one for one in self.turns if one.speaker == speaker]

    def sounds_of(self, speaker: str, kind: str) -> list[Sound]:
        return [one for one in self.sounds if one.speaker == speaker and one.kind == kind]


def texts() -> Any:
    return yaml.safe_load(TEXTS.read_text())


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "talkspurt" / "turns"


def corpus(cache: Path) -> Corpus:
    """As it lies in the cache, made when it does not. Raises SourceMissing, OSError."""
    path = cache / f"corpus-{recipe()}.npz"
    if not path.is_file():
        print(f"making the corpus in {cache} (once, a minute)", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        fetch(cache)
        save(build(cache), path)
    return load(path)


def recipe() -> str:
    """What the samples depend on beside the packages; not what agents say."""
    said = [{kind: lines for kind, lines in texts()[one].items() if kind != "agent"} for one in LANGUAGES]
    drawn = [TURNS_A_SPEAKER, PAUSE_MEDIAN_MS, PAUSE_P90_MS, PAUSE_RANGE_MS, list(PAUSES_A_TURN.items())]
    return hashlib.sha256(json.dumps([VERSION, said, drawn]).encode()).hexdigest()[:12]


def pause_ms(dice: np.random.Generator) -> float:
    sigma = math.log(PAUSE_P90_MS / PAUSE_MEDIAN_MS) / _Z90
    return float(np.clip(PAUSE_MEDIAN_MS * math.exp(sigma * dice.standard_normal()), *PAUSE_RANGE_MS))


def build(cache: Path) -> Corpus:
    """From the packages in `cache`. Raises OSError, ValueError."""
    found, written = speakers(cache), texts()
    turns = [one for speaker in found for one in _turns(speaker, written[speaker.language]["turns"])]
    sounds = [one for speaker in found for one in _sounds(speaker, written[speaker.language])]
    beds = {name: surroundings.recorded(name, cache) for name in surroundings.RECORDED}
    for language in LANGUAGES:
        talk = [
            speaker.say(text)
            for speaker in found if speaker.say is not None and speaker.language == language
            for text in written[language]["table_talk"]
        ]  # fmt: skip
        beds[f"babble {language}"] = surroundings.babble(talk, np.random.default_rng(seed_of("babble", language)))
    tails = {name: surroundings.tail(name, cache) for name in surroundings.ROOMS}
    return Corpus("", {one.name: one.source for one in found}, tuple(turns), tuple(sounds), beds, tails)


def _turns(speaker: Speaker, written: list[str]) -> Iterable[Turn]:
    dice = np.random.default_rng(seed_of("turns", speaker.name))
    dealt = dice.permutation(len(written)).tolist()
    for no in range(TURNS_A_SPEAKER):
        name = f"{speaker.name} {no}"
        count = int(dice.choice(list(PAUSES_A_TURN), p=list(PAUSES_A_TURN.values())))
        if speaker.say is None:
            chosen = [speaker.prompts[int(at)] for at in dice.choice(len(speaker.prompts), count + 1, replace=False)]
            parts = [(text, _prompt(path)) for text, path in chosen]
        else:
            text = written[dealt[no]]
            parts = [(one, speaker.say(one)) for one in _split(text, count, dice)]
        yield joined(name, speaker, parts, dice)


def _split(text: str, pauses: int, dice: np.random.Generator) -> list[str]:
    """`text` in phrases: at `pauses` of its places, at all of them where it has fewer."""
    pieces = [one.strip() for one in text.split("|")]
    places = sorted(dice.choice(len(pieces) - 1, min(pauses, len(pieces) - 1), replace=False).tolist())
    edges = [0, *(place + 1 for place in places), len(pieces)]
    return [" ".join(pieces[low:high]) for low, high in pairwise(edges)]


def joined(name: str, speaker: Speaker, parts: list[tuple[str, Samples]], dice: np.random.Generator) -> Turn:
    """Phrases with pauses between them."""
    line: list[Samples] = []
    phrases: list[Phrase] = []
    at = 0
    for text, samples in parts:
        if phrases:
            gap = round(pause_ms(dice) * PER_MS)
            line.append(np.zeros(gap, np.int16))
            at += gap
        line.append(samples)
        phrases.append(Phrase(text, at, at + samples.size))
        at += samples.size
    return Turn(name, speaker.name, speaker.language, tuple(phrases), np.concatenate(line))


def _sounds(speaker: Speaker, written: Any) -> Iterable[Sound]:
    for no in range(4):
        dice = np.random.default_rng(seed_of("cough", speaker.name, str(no)))
        samples = np.clip(surroundings.cough(dice), -28_000, 28_000).astype(np.int16)
        yield Sound(f"{speaker.name} cough {no}", "cough", speaker.name, speaker.language, "", samples)
    if speaker.say is None:
        return
    for kind in ("backchannel", "interruption"):
        for text in written[f"{kind}s"]:
            name = f"{speaker.name} {text}"
            yield Sound(name, kind, speaker.name, speaker.language, text, speaker.say(text))


def _prompt(path: Path) -> Samples:
    with wave.open(str(path), "rb") as file:
        return levelled(file.readframes(file.getnframes()), file.getframerate())


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def save(made: Corpus, path: Path) -> None:
    """Renamed when whole."""
    listed = {
        "sources": dict(made.sources),
        "turns": [
            [one.name, one.speaker, one.language, [[p.text, p.begin, p.end] for p in one.phrases]] for one in made.turns
        ],
        "sounds": [[one.name, one.kind, one.speaker, one.language, one.text] for one in made.sounds],
    }
    arrays = {f"turn {no}": one.samples for no, one in enumerate(made.turns)}
    arrays |= {f"sound {no}": one.samples for no, one in enumerate(made.sounds)}
    arrays |= {f"bed {name}": bed.astype(np.float32) for name, bed in made.beds.items()}
    arrays |= {f"tail {name}": one.astype(np.float32) for name, one in made.tails.items()}
    meta = json.dumps(listed, ensure_ascii=False, sort_keys=True).encode()
    digest = hashlib.sha256(meta)
    for name, array in sorted(arrays.items()):
        digest.update(name.encode() + array.tobytes())
    fresh = path.with_suffix(".fresh.npz")
    np.savez(
        fresh, meta=np.frombuffer(meta, np.uint8), digest=np.array(digest.hexdigest()[:16]), allow_pickle=False,
        **arrays,
    )  # fmt: skip
    fresh.rename(path)


def load(path: Path) -> Corpus:
    """Raises OSError, ValueError, KeyError."""
    with np.load(path) as file:
        listed = json.loads(file["meta"].tobytes())
        turns = tuple(
            Turn(name, speaker, language, tuple(Phrase(*one) for one in phrases), file[f"turn {no}"])
            for no, (name, speaker, language, phrases) in enumerate(listed["turns"])
        )
        sounds = tuple(Sound(*one, file[f"sound {no}"]) for no, one in enumerate(listed["sounds"]))
        beds = {name[4:]: file[name].astype(np.float64) for name in file.files if name.startswith("bed ")}
        tails = {name[5:]: file[name].astype(np.float64) for name in file.files if name.startswith("tail ")}
        return Corpus(str(file["digest"]), listed["sources"], turns, sounds, beds, tails)


def summary(made: Corpus) -> str:
    """What is in it, by half and language."""
    lines = [f"corpus {made.digest}"]
    for half in ("tuning", "reporting"):
        for language in LANGUAGES:
            names = made.speakers(half, language)
            turns = [turn for name in names for turn in made.turns_of(name)]
            pauses = [pause for turn in turns for pause in turn.pauses_ms]
            spoken_s = sum(turn.samples.size for turn in turns) / RATE_HZ
            middle, most = np.percentile(pauses, [50, 90]) if pauses else (0, 0)
            lines.append(
                f"  {half:<9} {language}: {len(names)} speakers, {len(turns)} turns, {spoken_s:.0f} s, {len(pauses)}"
                f" pauses of {middle:.0f} ms median, {most:.0f} p90: {', '.join(names)}"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.turns.corpus", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    try:
        print(summary(corpus(parser.parse_args().cache)))
    except (SourceMissing, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
