"""Who calls: people of installable recordings and synthesised speakers, each wholly in one half of the corpus.

The half is decided by a hash of the speaker's name alone, so what a policy is tuned on holds no voice of those that it
is judged by. A speaker gives phrases: s16 at 8000 Hz without silence at either end, all at one level of speech.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.demo.flite import find_flite
from bench.sim.sound import AUDIBLE_PEAK, FRAME_SAMPLES, at_8khz, from_pcmu
from bench.sim.voice import PICO_RATE_HZ, pico_s16
from bench.turns.espeak import Espeak
from bench.turns.source import soundfile

Samples = NDArray[np.int16]
Half = Literal["tuning", "reporting"]
HALVES: tuple[Half, Half] = ("tuning", "reporting")
SPEECH_RMS = 2000.0
"""Of the frames that hold speech: -24 dBFS, a usual telephone level; signal to noise is told from here."""
MAX_PEAK = 28_000
PROMPT_WORDS = (2, 12)
# Of three that were looked at the one that leaves a person and about as many speakers in each half.
_SALT = "turns 3 "
_PICO = {"en": ("en-GB", (72, 88, 118, 135)), "es": ("es-ES", (70, 84, 122, 140))}
# Those variants that sound the same in every process: f2, f3 and f5 breathe at random.
_ESPEAK = {
    "en": ("en-us+m2", "en-us+linda", "en-gb-x-rp+m4", "en-gb-scotland+f4", "en-us+m7", "en-us+f1"),
    "es": ("es+m1", "es+steph", "es-419+m3", "es-419+f1", "es+m7", "es-419+f4"),
}
_FLITE = ("rms", "slt", "awb")
_PEOPLE = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison"}


@dataclass(frozen=True, slots=True)
class Speaker:
    """`say` renders a text; a person has `prompts`, (text, file) each, instead."""

    name: str
    language: str
    source: str
    say: Callable[[str], Samples] | None = None
    prompts: tuple[tuple[str, Path], ...] = ()

    @property
    def half(self) -> Half:
        return half_of(self.name)


def half_of(name: str) -> Half:
    return HALVES[hashlib.sha256((_SALT + name).encode()).digest()[0] % 2]


def seed_of(*parts: str) -> int:
    """A seed that depends on the words alone, in every process."""
    return int.from_bytes(hashlib.sha256("|".join(parts).encode()).digest()[:8], "big")


def speakers(cache: Path) -> list[Speaker]:
    """All there are, in a fixed order. Raises OSError, SourceMissing: a package is missing or broken."""
    found: list[Speaker] = []
    engine = Espeak(cache)
    flite, problem = find_flite(cache)
    if flite is None:
        raise OSError(f"Flite: {problem}")
    for language, (variety, pitches) in _PICO.items():
        found += [_pico(language, variety, pitch) for pitch in pitches]
        found += [_espeak(language, voice, engine) for voice in _ESPEAK[language]]
        found.append(_person(language, cache))
    for voice in _FLITE:
        said = lambda text, voice=voice: levelled(from_pcmu(flite.clip(text, voice).pcmu), 8000)  # noqa: E731
        found.append(Speaker(f"flite {voice}", "en", "Flite 2.2, BSD-like, (C) Carnegie Mellon University", said))
    return found


def levelled(s16: bytes, rate_hz: int) -> Samples:
    """A phrase at 8000 Hz, trimmed to what is audible, its speech at SPEECH_RMS. Raises ValueError: it is silent."""
    line = np.frombuffer(at_8khz(s16, rate_hz), "<i2").astype(np.float64)
    peak = float(np.abs(line).max(initial=0.0))
    if peak == 0:
        raise ValueError("the phrase is silent")
    line *= min(SPEECH_RMS / speech_rms(line), MAX_PEAK / peak)
    loud = np.flatnonzero(np.abs(line) >= AUDIBLE_PEAK)
    if not loud.size:
        raise ValueError("the phrase is silent")
    return line[int(loud[0]) : int(loud[-1]) + 1].astype(np.int16)


def speech_rms(line: NDArray[np.float64]) -> float:
    """Root mean square of the frames within 20 dB of the loudest: those that hold speech."""
    frames = line[: max(1, line.size // FRAME_SAMPLES) * FRAME_SAMPLES]
    if frames.size < FRAME_SAMPLES:
        return float(np.sqrt((line**2).mean()))
    power = (frames.reshape(-1, FRAME_SAMPLES) ** 2).mean(axis=1)
    return float(np.sqrt(power[power >= 0.01 * power.max()].mean()))


def _pico(language: str, variety: str, pitch: int) -> Speaker:
    def said(text: str) -> Samples:
        return levelled(pico_s16(text, language=variety, pitch_percent=pitch, rate_percent=90), PICO_RATE_HZ)

    return Speaker(f"pico {variety} {pitch}", language, "SVOX Pico, Apache-2.0", said)


def _espeak(language: str, voice: str, engine: Espeak) -> Speaker:
    return Speaker(
        f"espeak {voice}", language, "eSpeak NG, GPL-3",
        lambda text: levelled(engine.speak(text, voice), engine.rate_hz),
    )  # fmt: skip


def _person(language: str, cache: Path) -> Speaker:
    package = f"asterisk-core-sounds-{language}"
    folder = cache / f"{package}-wav" / "usr/share/asterisk/sounds" / _PEOPLE[language]
    listed = cache / package / "usr/share/doc" / package / f"core-sounds-{language}.txt.gz"
    prompts = []
    for line in gzip.decompress(listed.read_bytes()).decode("utf-8", "replace").splitlines():
        name, _, text = line.partition(":")
        words = text.split()
        usable = PROMPT_WORDS[0] <= len(words) <= PROMPT_WORDS[1] and not re.search(r"[\[\]\d.!?].*\w", text)
        if usable and "[" not in text and (folder / f"{name}.wav").is_file():
            prompts.append((text.strip(" .!?;"), folder / f"{name}.wav"))
    return Speaker(
        f"asterisk {_PEOPLE[language]}", language, "a person: Debian asterisk-core-sounds, CC-BY-SA-3.0",
        prompts=tuple(sorted(prompts)),
    )  # fmt: skip


def read_sound(path: Path, cache: Path) -> NDArray[np.float64]:
    """A sound file at 8000 Hz, its first channel, full scale 32767."""
    sound, rate_hz = soundfile(cache).read(str(path), always_2d=True)
    s16 = (np.clip(sound[:, 0], -1, 1) * 32767).astype("<i2").tobytes()
    return np.frombuffer(at_8khz(s16, int(rate_hz)), "<i2").astype(np.float64)
