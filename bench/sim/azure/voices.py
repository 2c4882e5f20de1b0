"""The voices of the simulated service: names, styles and fields of the real list, spoken by SVOX Pico.

Each name has a pitch and a rate of its own, so that another voice sounds like another one. Pico speaks English (US and
British), German, Spanish, French and Italian; other locales of these languages use the nearest.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

_PICO = {"en": "en-GB", "en-us": "en-US", "de": "de-DE", "es": "es-ES", "fr": "fr-FR", "it": "it-IT"}
_LOCALE_NAMES = {
    "en-US": "English (United States)", "en-GB": "English (United Kingdom)", "en-AU": "English (Australia)",
    "de-DE": "German (Germany)", "de-AT": "German (Austria)", "de-CH": "German (Switzerland)",
    "es-ES": "Spanish (Spain)", "es-MX": "Spanish (Mexico)", "es-US": "Spanish (United States)",
    "es-AR": "Spanish (Argentina)", "fr-FR": "French (France)", "it-IT": "Italian (Italy)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Voice:
    """`pitch_percent` and `rate_percent` are Pico's, 100 being its own."""

    name: str
    gender: str
    styles: tuple[str, ...] = ()
    status: str = "GA"
    secondary: tuple[str, ...] = ()
    words_per_minute: int = 150

    @property
    def locale(self) -> str:
        return "-".join(self.name.split("-")[:2])

    @property
    def display_name(self) -> str:
        return self.name.split("-", 2)[2].removesuffix("Neural").removesuffix("Multilingual")

    @property
    def pitch_percent(self) -> int:
        own = zlib.crc32(self.name.encode()) % 16
        return 100 + own if self.gender == "Female" else 66 + own

    @property
    def rate_percent(self) -> int:
        return 92 + zlib.crc32(self.name.encode()) // 16 % 13

    def as_json(self) -> dict[str, Any]:
        """One element of the real service's list."""
        full = f"Microsoft Server Speech Text to Speech Voice ({self.locale}, {self.name.split('-', 2)[2]})"
        one: dict[str, Any] = {
            "Name": full,
            "DisplayName": self.display_name,
            "LocalName": self.display_name,
            "ShortName": self.name,
            "Gender": self.gender,
            "Locale": self.locale,
            "LocaleName": _LOCALE_NAMES[self.locale],
            "SampleRateHertz": "24000",
            "VoiceType": "Neural",
            "Status": self.status,
            "WordsPerMinute": str(self.words_per_minute),
        }
        if self.styles:
            one["StyleList"] = list(self.styles)
        if self.secondary:
            one["SecondaryLocaleList"] = list(self.secondary)
        return one


_MANY = ("de-DE", "en-GB", "es-ES", "es-MX", "fr-FR", "it-IT")
VOICES: dict[str, Voice] = {
    voice.name: voice
    for voice in (
        Voice("en-US-AvaMultilingualNeural", "Female", secondary=_MANY),
        Voice("en-US-AndrewMultilingualNeural", "Male", secondary=_MANY),
        Voice("en-US-EmmaMultilingualNeural", "Female", secondary=_MANY),
        Voice("en-US-AvaNeural", "Female"),
        Voice(
            "en-US-JennyNeural", "Female",
            ("assistant", "chat", "customerservice", "newscast", "angry", "cheerful", "sad", "excited", "friendly",
             "terrified", "shouting", "unfriendly", "whispering", "hopeful"), words_per_minute=152,
        ),
        Voice("en-US-GuyNeural", "Male", ("newscast", "angry", "cheerful", "sad", "excited", "friendly", "hopeful")),
        Voice("en-US-AriaNeural", "Female", ("chat", "customerservice", "cheerful", "empathetic")),
        Voice("en-US-DavisNeural", "Male", ("chat", "angry", "cheerful", "excited", "friendly")),
        Voice("en-US-SaraNeural", "Female", ("angry", "cheerful", "excited", "friendly", "hopeful")),
        Voice("en-US-KaiNeural", "Male", ("conversation",), "Preview"),
        Voice("en-GB-SoniaNeural", "Female", ("cheerful", "sad")),
        Voice("en-GB-RyanNeural", "Male", ("cheerful", "chat", "whispering", "sad")),
        Voice("en-GB-LibbyNeural", "Female"),
        Voice("en-AU-NatashaNeural", "Female"),
        Voice("de-DE-KatjaNeural", "Female"),
        Voice("de-DE-ConradNeural", "Male", ("cheerful", "sad")),
        Voice("de-DE-AmalaNeural", "Female"),
        Voice("de-DE-SeraphinaMultilingualNeural", "Female", secondary=("en-US", "en-GB", "es-ES", "fr-FR", "it-IT")),
        Voice("de-DE-KillianNeural", "Male"),
        Voice("de-AT-IngridNeural", "Female"),
        Voice("de-CH-LeniNeural", "Female"),
        Voice("es-ES-ElviraNeural", "Female"),
        Voice("es-ES-AlvaroNeural", "Male", ("cheerful", "sad")),
        Voice("es-ES-AbrilNeural", "Female"),
        Voice("es-ES-XimenaMultilingualNeural", "Female", (), "Preview", ("en-US", "de-DE", "fr-FR", "it-IT")),
        Voice("es-MX-DaliaNeural", "Female", ("cheerful", "sad", "whispering")),
        Voice("es-MX-JorgeNeural", "Male", ("chat", "cheerful")),
        Voice("es-US-PalomaNeural", "Female"),
        Voice("es-AR-ElenaNeural", "Female"),
        Voice("fr-FR-DeniseNeural", "Female", ("cheerful", "sad", "whispering", "excited")),
        Voice("fr-FR-HenriNeural", "Male", ("cheerful", "sad", "whispering", "excited")),
        Voice("it-IT-ElsaNeural", "Female"),
    )
}  # fmt: skip


def pico_language(locale: str) -> str:
    """The language of Pico that is nearest to a locale. Raises KeyError when it has none."""
    lower = locale.lower()
    return _PICO.get(lower) or _PICO[lower.split("-")[0]]
