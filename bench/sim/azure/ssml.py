"""SSML as the service reads it: what is to be said, by whom and how; by a real XML parser, with the service's refusals.

Carried out: voice, lang, prosody (rate, pitch, volume), express-as (style, styledegree), break, silence, bookmark, sub,
say-as of characters and digits, p and s. Recorded: lexicon. Anything else is read through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from xml.etree import ElementTree

from bench.sim.azure.voices import VOICES, pico_language

MOST_BYTES = 65_536
"""Largest SSML (the service's documented limit)."""
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_SPEAK = "http://www.w3.org/2001/10/synthesis"
_RATES = {"x-slow": 0.5, "slow": 0.64, "medium": 1.0, "fast": 1.55, "x-fast": 2.0, "default": 1.0}
_PITCHES = {"x-low": 0.55, "low": 0.8, "medium": 1.0, "high": 1.2, "x-high": 1.45, "default": 1.0}
_VOLUMES = {"silent": 0.0, "x-soft": 0.2, "soft": 0.4, "medium": 0.6, "loud": 0.8, "x-loud": 1.0, "default": 1.0}
_BREAKS_MS = {"none": 0, "x-weak": 250, "weak": 500, "medium": 750, "strong": 1000, "x-strong": 1250}
# What a style does to pitch and rate, at degree 1: enough to be told from none.
_STYLES = {"cheerful": (1.12, 1.08), "sad": (0.88, 0.88), "angry": (1.06, 1.12), "excited": (1.15, 1.12),
           "whispering": (0.8, 0.9), "calm": (0.95, 0.93)}  # fmt: skip
_STYLE = (1.05, 0.97)
_LONGEST_BREAK_MS = 20_000


class SsmlError(ValueError):
    """What the service says when it refuses; `code` is that of the close."""

    def __init__(self, message: str, code: int = 1007) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Say:
    """A piece of text in one voice. `rate`, `pitch`, `volume`: factors on the voice's own."""

    text: str
    voice: str
    locale: str
    rate: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0
    style: str = ""
    degree: float = 1.0


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int


@dataclass(frozen=True, slots=True)
class Bookmark:
    name: str


@dataclass(frozen=True, slots=True)
class Script:
    """All that one request wants."""

    parts: tuple[Say | Pause | Bookmark, ...]
    voices: tuple[str, ...]
    lexicons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts if isinstance(part, Say))


def read_ssml(ssml: str) -> Script:
    """Raises SsmlError."""
    if len(ssml.encode()) > MOST_BYTES:
        raise SsmlError(f"SSML is too large: at most {MOST_BYTES} bytes.")
    try:
        root = ElementTree.fromstring(ssml)
    except ElementTree.ParseError as error:
        raise SsmlError(f"SSML parsing error: {error}.") from None
    if root.tag != f"{{{_SPEAK}}}speak":
        raise SsmlError("SSML must have the root element speak in its namespace.")
    if not root.get("version") or not root.get(_XML_LANG):
        raise SsmlError("The root element needs the attributes version and xml:lang.")
    reader = _Reader()
    for child in root:
        if _name(child) == "voice":
            reader.voice(child)
    if not reader.voices:
        raise SsmlError("The root element needs at least one element voice.")
    return Script(tuple(reader.parts), tuple(reader.voices), tuple(reader.lexicons))


def read_text(text: str, voice: str) -> Script:
    """Streamed text: no markup. Raises SsmlError for an unknown voice."""
    _known(voice)
    say = Say(" ".join(text.split()), voice, VOICES[voice].locale)
    return Script((say,) if say.text else (), (voice,))


def _known(voice: str) -> None:
    if voice not in VOICES:
        raise SsmlError(f"Unsupported voice {voice}.")


class _Reader:
    def __init__(self) -> None:
        self.parts: list[Say | Pause | Bookmark] = []
        self.voices: list[str] = []
        self.lexicons: list[str] = []

    def voice(self, element: ElementTree.Element) -> None:
        name = element.get("name", "")
        _known(name)
        self.voices.append(name)
        self._children(element, Say("", name, VOICES[name].locale))

    def _children(self, element: ElementTree.Element, say: Say) -> None:
        self._text(element.text, say)
        for child in element:
            self._element(child, say)
            self._text(child.tail, say)

    def _text(self, text: str | None, say: Say) -> None:
        words = " ".join((text or "").split())
        if words:
            self.parts.append(replace(say, text=words))

    def _element(self, one: ElementTree.Element, say: Say) -> None:
        match _name(one):
            case "prosody":
                self._children(one, _prosody(one, say))
            case "express-as":
                self._children(one, _style(one, say))
            case "lang":
                self._children(one, replace(say, locale=_locale(one.get(_XML_LANG, say.locale))))
            case "break" | "silence":
                self.parts.append(Pause(_pause_ms(one)))
            case "bookmark":
                self.parts.append(Bookmark(one.get("mark", "")))
            case "lexicon":
                self.lexicons.append(one.get("uri", ""))
            case "sub":
                self._text(one.get("alias"), say)
            case "say-as":
                self._text(_spelled(one), say)
            case "voice":
                raise SsmlError("An element voice must not stand in another one.")
            case _:
                self._children(one, say)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _locale(tag: str) -> str:
    try:
        pico_language(tag)
    except KeyError:
        raise SsmlError(f"Unsupported language {tag}.") from None
    return tag


def _prosody(one: ElementTree.Element, say: Say) -> Say:
    rate = _factor(one.get("rate"), _RATES, "rate")
    pitch = _factor(one.get("pitch"), _PITCHES, "pitch")
    volume = _volume(one.get("volume"))
    return replace(say, rate=min(max(say.rate * rate, 0.5), 2.0), pitch=min(max(say.pitch * pitch, 0.5), 1.5),
                   volume=min(say.volume * volume, 1.5))  # fmt: skip


def _factor(value: str | None, names: dict[str, float], what: str) -> float:
    if value is None:
        return 1.0
    if value in names:
        return names[value]
    found = re.fullmatch(r"([+-]?)(\d+(?:\.\d+)?)(%|st|Hz|)", value)
    if found is None:
        raise SsmlError(f"Invalid value {value!r} of prosody {what}.")
    sign, number, unit = -1 if found[1] == "-" else 1, float(found[2]), found[3]
    if unit == "%":
        return 1 + sign * number / 100
    if unit == "st":
        return float(2 ** (sign * number / 12))
    if unit == "Hz":
        return 1 + sign * number / 200 if found[1] else number / 200
    return 1 + sign * number if found[1] else number


def _volume(value: str | None) -> float:
    if value is None:
        return 1.0
    if value in _VOLUMES:
        return _VOLUMES[value]
    found = re.fullmatch(r"([+-]?)(\d+(?:\.\d+)?)%?", value)
    if found is None:
        raise SsmlError(f"Invalid value {value!r} of prosody volume.")
    return max(0.0, 1 + float(value.rstrip("%")) / 100) if found[1] else float(found[2]) / 100


def _style(one: ElementTree.Element, say: Say) -> Say:
    """A style that the voice does not have is ignored, as documented."""
    style = one.get("style", "")
    if style not in VOICES[say.voice].styles:
        return say
    try:
        degree = min(max(float(one.get("styledegree", "1")), 0.01), 2.0)
    except ValueError:
        raise SsmlError("Invalid value of styledegree.") from None
    pitch, rate = _STYLES.get(style, _STYLE)
    return replace(say, style=style, degree=degree, pitch=say.pitch * (1 + (pitch - 1) * degree),
                   rate=say.rate * (1 + (rate - 1) * degree))  # fmt: skip


def _pause_ms(one: ElementTree.Element) -> int:
    value = one.get("time") or one.get("value") or ""
    if not value:
        strength = one.get("strength", "medium")
        if strength not in _BREAKS_MS:
            raise SsmlError(f"Invalid strength {strength!r} of break.")
        return _BREAKS_MS[strength]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", value)
    if found is None:
        raise SsmlError(f"Invalid time {value!r}.")
    return min(int(float(found[1]) * (1000 if found[2] == "s" else 1)), _LONGEST_BREAK_MS)


def _spelled(one: ElementTree.Element) -> str:
    text = "".join(one.itertext())
    if one.get("interpret-as") in ("characters", "spell-out", "number_digit", "telephone"):
        return " ".join(char for char in text if char.isalnum())
    return text
