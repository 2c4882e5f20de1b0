"""Synthesised callers: SVOX Pico by its own package, labelled as what they are.

The product's offline synthesiser is Pico too, so a caller never uses the agent's voice: another language variant and
another pitch. Rendering takes some 10 ms for each second of speech.
"""

from __future__ import annotations

import threading

import ttspico

from bench.sim.sound import Clip

PICO_RATE_HZ = 16000
_speaking = threading.Lock()


def pico_s16(text: str, *, language: str = "en-GB", pitch_percent: int = 100, rate_percent: int = 100) -> bytes:
    """`text` as spoken, s16 at PICO_RATE_HZ; the same in each process. Thread: any; one rendering at a time.

    An engine's noise goes on where its last sentence ended, so each sentence has a new one (under a millisecond).

    Raises:
        ValueError: nothing was rendered.
    """
    with _speaking:
        engine = ttspico.TtsEngine(language)
        engine.pitch = pitch_percent
        engine.rate = rate_percent
        s16 = bytes(engine.speak(text))
    if not s16:
        raise ValueError(f"Pico rendered nothing for {text!r}")
    return s16


def pico_clip(text: str, *, language: str = "en-GB", pitch_percent: int = 100, rate_percent: int = 100) -> Clip:
    """What a synthesised caller says. `pitch_percent` 50-200 and `rate_percent` 20-500, 100 is the voice's own."""
    s16 = pico_s16(text, language=language, pitch_percent=pitch_percent, rate_percent=rate_percent)
    return Clip.from_s16(s16, PICO_RATE_HZ, text=text, source=f"synthesised: SVOX Pico {language}")
