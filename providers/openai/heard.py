"""What a transcription's JSON says was heard, and whether it is to be believed. Pure.

Recognisers of the Whisper family answer silence and noise with sentences they were trained on, with the credits of
subtitles above all; their own figures give most of them away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from providers.errors import ProviderProtocolError

# Whisper's own limits (openai/whisper, transcribe.py): a segment is silence above the first together with less than
# the second, and goes round in circles above the third.
NO_SPEECH, LOGPROB, COMPRESSION = 0.6, -1.0, 2.4
DOUBTFUL_NO_SPEECH = 0.3
MAX_TEXT_CHARS = 16_000
# What subtitles end with; nobody says it on the phone.
_CREDITS = re.compile(
    r"(?i)\W*(?:thank(?:s| you)(?: so much| very much)? for (?:watching|listening)|please subscribe|you|"
    r"subt[ií]tulos (?:realizados )?por .*|gracias por ver.*|suscr[ií]bete.*|subtitles by .*|"
    r"untertitel(?:ung)? .*|sous-titr.*|sottotitoli .*)\W*"
)


@dataclass(frozen=True, slots=True)
class Heard:
    """`confidence` 0 to 1, None where the service does not say."""

    text: str
    confidence: float | None = None


def read_transcript(body: object) -> Heard:
    """The JSON of a transcription, plain or verbose. Raises ProviderProtocolError."""
    if not isinstance(body, Mapping) or not isinstance(body.get("text"), str):
        raise ProviderProtocolError("expected a transcription with its text")
    if len(body["text"]) > MAX_TEXT_CHARS:
        raise ProviderProtocolError(f"a transcription of more than {MAX_TEXT_CHARS} characters")
    segments = body.get("segments")
    if isinstance(segments, list) and segments:
        heard = _of_segments([one for one in segments if isinstance(one, Mapping)])
        if len(heard.text) > MAX_TEXT_CHARS:
            raise ProviderProtocolError(f"segments of more than {MAX_TEXT_CHARS} characters")
        return heard
    return Heard(body["text"].strip(), confidence_of(body.get("logprobs")))


def confidence_of(logprobs: object) -> float | None:
    """The geometric mean of the tokens' probabilities."""
    found = [_number(one.get("logprob"), 0.0) for one in logprobs or () if isinstance(one, Mapping)] \
        if isinstance(logprobs, list) else []  # fmt: skip
    return math.exp(min(0.0, sum(found) / len(found))) if found else None


def loudest_dbfs(s16: bytes, rate_hz: int) -> float:
    """Level of the loudest 100 ms, relative to a full-scale square wave."""
    samples = np.frombuffer(s16[: len(s16) & ~1], np.int16).astype(np.float32)
    step = rate_hz // 10
    if not len(samples):
        return -math.inf
    whole = samples[: max(1, len(samples) // step) * step] if len(samples) >= step else samples
    rows = whole.reshape(-1, step) if len(samples) >= step else whole.reshape(1, -1)
    power = float(np.square(rows).mean(axis=1).max())
    return 10 * math.log10(power / 32768**2) if power > 0 else -math.inf


def _of_segments(segments: list[Mapping[str, Any]]) -> Heard:
    texts: list[str] = []
    weighed = seconds = 0.0
    for one in segments:
        text = one.get("text")
        logprob = _number(one.get("avg_logprob"), 0.0)
        if not isinstance(text, str) or not text.strip() or _is_invented(text, one, logprob):
            continue
        length_s = max(0.01, _number(one.get("end"), 0.0) - _number(one.get("start"), 0.0))
        texts.append(text.strip())
        weighed += logprob * length_s
        seconds += length_s
    return Heard(" ".join(texts), math.exp(min(0.0, weighed / seconds)) if seconds else None)


def _is_invented(text: str, segment: Mapping[str, Any], logprob: float) -> bool:
    no_speech = _number(segment.get("no_speech_prob"), 0.0)
    if no_speech > NO_SPEECH and logprob < LOGPROB:
        return True
    if _number(segment.get("compression_ratio"), 0.0) > COMPRESSION and logprob < LOGPROB / 2:
        return True
    return no_speech > DOUBTFUL_NO_SPEECH and _CREDITS.fullmatch(text) is not None


def _number(value: object, otherwise: float) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fine else otherwise  # type: ignore[arg-type]
