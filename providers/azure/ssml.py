"""A clause as the document that the service speaks, and where its words are in the clause.

Source: the vendor's pages on SSML structure, voice and pronunciation. Order inside `voice`: lexicon, silences, style,
prosody. Leading and trailing silence are exactly nothing: the pauses between clauses are ours.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

from providers.azure.voice import default_voice
from providers.base import SpeechRequest
from providers.errors import ProviderRejected

MAX_SSML_BYTES = 64 * 1024  # of one request, by the service; more is refused there after it was sent
# XML 1.0 has no way to write these at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TELEPHONE_EFFECT = "eq_telecomhp8k"
STYLE_DEGREE = (0.01, 2.0)


def voice_of(request: SpeechRequest, provider: str) -> str:
    """The voice by name or by language. Raises ProviderRejected."""
    voice = request.voice or default_voice(request.language)
    if not voice:
        raise ProviderRejected(
            f"language {request.language!r} has no voice by default: name one", status=400, provider=provider
        )
    return voice


def build_ssml(request: SpeechRequest, *, provider: str, telephone_effect: bool = False) -> str:
    """The whole document.

    Args:
        telephone_effect: equalise for the telephone; only meant for 8 kHz.
    Raises:
        ProviderRejected: no voice, a lexicon that is no URL, or more than MAX_SSML_BYTES.
    """
    effect = f' effect="{_TELEPHONE_EFFECT}"' if telephone_effect and request.audio_format.rate_hz == 8000 else ""
    body = escape(speakable(request.text))
    prosody = _prosody(request)
    if prosody:
        body = f"<prosody{prosody}>{body}</prosody>"
    if request.style:
        degree = min(max(request.style_degree, STYLE_DEGREE[0]), STYLE_DEGREE[1])
        styled = "" if degree == 1 else f' styledegree="{degree:g}"'
        body = f"<mstts:express-as style={quoteattr(request.style)}{styled}>{body}</mstts:express-as>"
    document = (
        '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis"'
        f' xmlns:mstts="https://www.w3.org/2001/mstts" xml:lang={quoteattr(request.language)}>'
        f"<voice name={quoteattr(voice_of(request, provider))}{effect}>{_lexicon(request, provider)}"
        '<mstts:silence type="Leading-exact" value="0ms"/><mstts:silence type="Tailing-exact" value="0ms"/>'
        f"{body}</voice></speak>"
    )
    size = len(document.encode())
    if size > MAX_SSML_BYTES:
        raise ProviderRejected(f"expected at most {MAX_SSML_BYTES} bytes of SSML, got {size}", status=400,
                               provider=provider)  # fmt: skip
    return document


def speakable(text: str) -> str:
    """`text` with a space for each character that XML cannot hold: offsets stay what they were."""
    return _FORBIDDEN.sub(" ", text)


def percent(value: int) -> str:
    return f"{value:+d}%"


def _prosody(request: SpeechRequest) -> str:
    attributes = ""
    if request.rate_percent:
        attributes += f' rate="{percent(request.rate_percent)}"'
    if request.pitch_percent:
        attributes += f' pitch="{percent(request.pitch_percent)}"'
    if request.volume_percent != 100:
        attributes += f' volume="{request.volume_percent}"'
    return attributes


def _lexicon(request: SpeechRequest, provider: str) -> str:
    if not request.lexicon_url:
        return ""
    parts = urlsplit(request.lexicon_url)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise ProviderRejected(f"lexicon: expected a URL, got {request.lexicon_url!r}", status=400, provider=provider)
    return f"<lexicon uri={quoteattr(request.lexicon_url)}/>"


class WordFinder:
    """Where the service's words are in the clause.

    The service counts characters in the document, with its markup and its entities, or not at all (text streaming).
    Its words come in order, so each is looked for behind the one before.
    """

    __slots__ = ("_at", "_text", "missed")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.missed = 0

    def find(self, word: str) -> tuple[int, int] | None:
        """[start, end) of the next `word`; None, counted, when it is not there (a number that was spelled out)."""
        at = self._text.find(word, self._at) if word else -1
        if at < 0 and word:
            found = re.compile(re.escape(word), re.IGNORECASE).search(self._text, self._at)
            at = found.start() if found else -1
        if at < 0:
            self.missed += 1
            return None
        self._at = at + len(word)
        return at, self._at
