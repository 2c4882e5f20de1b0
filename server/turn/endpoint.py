"""When the caller's turn is over: silence, weighed by whether the words sound finished.

The wait counts from the last speech sample, so that detection time is not added on top. Words that leave a
sentence open ("and", "the", "y", a half-spoken number) wait for the longer delay.
"""

from __future__ import annotations

import re

# Words after which a speaker of the language goes on. Function words only: a content word can end a turn.
OPEN_ENDED: dict[str, frozenset[str]] = {
    "en": frozenset(
        "a an the and but or so because if when that which with to for from of in on at by about as is are am was"
        " my your his her our their i'm i'd i'll it's um uh er hmm well like maybe between until".split()
    ),
    "es": frozenset(
        "el la los las un una unos unas y e o u pero porque si cuando que con para por de del al en a sobre como es"
        " mi tu su nuestro este esta pues bueno eh em hasta desde entre sin".split()
    ),
}
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def is_open_ended(text: str, language: str) -> bool:
    """Whether `text` ends in a word that asks for more. `language` is BCP 47."""
    words = _WORD.findall(text.lower())
    if not words:
        return False
    if text.rstrip().endswith((",", "…", "...", "-", "—")):
        return True
    return words[-1].replace("’", "'") in OPEN_ENDED.get(language.split("-")[0].lower(), frozenset())


def endpoint_delay_ms(text: str, language: str, min_delay_ms: int, max_delay_ms: int) -> int:
    """Silence after the last speech sample that ends the turn, given the words so far."""
    return max_delay_ms if is_open_ended(text, language) else min_delay_ms
