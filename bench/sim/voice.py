"""Synthesised callers: SVOX Pico by its own package, labelled as what they are.

The product's offline synthesiser is Pico too, so a caller never uses the agent's voice: another language variant and
another pitch. Rendering takes some 10 ms for each second of speech.
"""

from __future__ import annotations

from functools import cache

import ttspico

from bench.sim.sound import Clip

PICO_RATE_HZ = 16000


@cache
def _engine(language: str) -> ttspico.TtsEngine:
    return ttspico.TtsEngine(language)


def pico_clip(text: str, *, language: str = "en-GB", pitch_percent: int = 100, rate_percent: int = 100) -> Clip:
    """What a synthesised caller says. `pitch_percent` 50-200 and `rate_percent` 20-500, 100 is the voice's own."""
    engine = _engine(language)
    engine.pitch = pitch_percent
    engine.rate = rate_percent
    s16 = engine.speak(text)
    if not s16:
        raise ValueError(f"Pico rendered nothing for {text!r}")
    return Clip.from_s16(s16, PICO_RATE_HZ, text=text, source=f"synthesised: SVOX Pico {language}")
