"""How fast a voice speaks: learnt from its own clauses, so that audio of a wrong rate is told from a slow voice.

One object for a provider, shared by all calls. What is compared is the time for what is spoken, not for what is
written: a digit is a word, an ideogram a syllable, the end of a sentence a pause.
"""

from __future__ import annotations

import re
from collections import deque
from statistics import median

from providers.base import SpeechRequest, WordMark

MAX_VOICES = 64
KEPT = 15
# Clauses of a voice before its pace is known, and what a clause must hold to be compared: short ones differ too much.
MIN_KNOWN = 5
MIN_CHARS = 20.0
# Of the time that the clause should take. Half and double, which a wrong rate makes, lie outside.
SHORTEST, LONGEST = 0.55, 1.65
SLACK_MS = 200

_WEIGHTS = (
    (re.compile(r"\d"), 4.0),
    (re.compile(r"[\u3040-\u30ff\u3400-\u9fff]"), 2.0),
    (re.compile(r"[\uac00-\ud7af]"), 1.5),
    (re.compile(r"[%$€£@&+=#*/]"), 5.0),
    (re.compile(r"(?<=[A-Z])[A-Z]|[A-Z](?=[A-Z])"), 2.0),  # spelled out
    (re.compile(r"[.!?;:,…](?=\s|$)"), 3.0),  # a pause
)

_Voice = tuple[str, str, str, int]


def spoken_chars(text: str) -> float:
    """What there is to speak, in letters of usual prose."""
    text = text.strip()
    return len(text) + sum(weight * len(pattern.findall(text)) for pattern, weight in _WEIGHTS)


class Pace:
    """Milliseconds for each spoken character, of each voice, language, style and rate. Bounded: 64 of them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[_Voice, deque[float]] = {}

    def bounds_ms(self, request: SpeechRequest) -> tuple[float, float] | None:
        """How short and how long the clause can be; None while that is not known."""
        known, chars = self._known.get(_voice(request)), spoken_chars(request.text)
        if known is None or len(known) < MIN_KNOWN or chars < MIN_CHARS:
            return None
        usual_ms = chars * median(known)
        return SHORTEST * usual_ms - SLACK_MS, LONGEST * usual_ms + SLACK_MS

    def learn(self, request: SpeechRequest, took_ms: float) -> None:
        """The clause was good and lasted so long."""
        chars = spoken_chars(request.text)
        if chars < MIN_CHARS:
            return
        voice = _voice(request)
        if voice not in self._known:
            while len(self._known) >= MAX_VOICES:
                del self._known[next(iter(self._known))]
            self._known[voice] = deque(maxlen=KEPT)
        self._known[voice].append(took_ms / chars)


def outlasts_its_words(marks: list[WordMark], text_end: int, took_ms: float) -> bool:
    """Whether the audio goes on long after its last word began, where the service says when that was."""
    last = marks[-1] if marks else None
    if last is None or last.end < text_end or last.offset_ms < 1000:
        return False
    return took_ms > 1.5 * last.offset_ms + 1200


def _voice(request: SpeechRequest) -> _Voice:
    return request.voice, request.language, request.style, request.rate_percent
