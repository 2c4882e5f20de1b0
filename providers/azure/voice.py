"""The voice of a language when an agent names none.

Source: the vendor's list of voices, autumn 2026; one neural voice for each locale that is generally available and has
spoken in the regions of Europe and North America for years. `voices.py` asks the service what it has.
"""

from __future__ import annotations

DEFAULT_VOICES: dict[str, str] = {
    "ar-EG": "ar-EG-SalmaNeural", "ar-SA": "ar-SA-ZariyahNeural",
    "bg-BG": "bg-BG-KalinaNeural", "ca-ES": "ca-ES-JoanaNeural", "cs-CZ": "cs-CZ-VlastaNeural",
    "da-DK": "da-DK-ChristelNeural",
    "de-DE": "de-DE-KatjaNeural", "de-AT": "de-AT-IngridNeural", "de-CH": "de-CH-LeniNeural",
    "el-GR": "el-GR-AthinaNeural",
    "en-US": "en-US-AvaMultilingualNeural", "en-GB": "en-GB-SoniaNeural", "en-AU": "en-AU-NatashaNeural",
    "en-CA": "en-CA-ClaraNeural", "en-IE": "en-IE-EmilyNeural", "en-IN": "en-IN-NeerjaNeural",
    "en-NZ": "en-NZ-MollyNeural", "en-ZA": "en-ZA-LeahNeural",
    "es-ES": "es-ES-ElviraNeural", "es-MX": "es-MX-DaliaNeural", "es-AR": "es-AR-ElenaNeural",
    "es-CL": "es-CL-CatalinaNeural", "es-CO": "es-CO-SalomeNeural", "es-PE": "es-PE-CamilaNeural",
    "es-US": "es-US-PalomaNeural",
    "et-EE": "et-EE-AnuNeural", "fi-FI": "fi-FI-SelmaNeural",
    "fr-FR": "fr-FR-DeniseNeural", "fr-BE": "fr-BE-CharlineNeural", "fr-CA": "fr-CA-SylvieNeural",
    "fr-CH": "fr-CH-ArianeNeural",
    "he-IL": "he-IL-HilaNeural", "hi-IN": "hi-IN-SwaraNeural", "hr-HR": "hr-HR-GabrijelaNeural",
    "hu-HU": "hu-HU-NoemiNeural", "id-ID": "id-ID-GadisNeural",
    "it-IT": "it-IT-ElsaNeural", "ja-JP": "ja-JP-NanamiNeural", "ko-KR": "ko-KR-SunHiNeural",
    "lt-LT": "lt-LT-OnaNeural", "lv-LV": "lv-LV-EveritaNeural", "nb-NO": "nb-NO-PernilleNeural",
    "nl-NL": "nl-NL-FennaNeural", "nl-BE": "nl-BE-DenaNeural", "pl-PL": "pl-PL-ZofiaNeural",
    "pt-PT": "pt-PT-RaquelNeural", "pt-BR": "pt-BR-FranciscaNeural",
    "ro-RO": "ro-RO-AlinaNeural", "ru-RU": "ru-RU-SvetlanaNeural", "sk-SK": "sk-SK-ViktoriaNeural",
    "sl-SI": "sl-SI-PetraNeural", "sv-SE": "sv-SE-SofieNeural", "th-TH": "th-TH-PremwadeeNeural",
    "tr-TR": "tr-TR-EmelNeural", "uk-UA": "uk-UA-PolinaNeural", "vi-VN": "vi-VN-HoaiMyNeural",
    "zh-CN": "zh-CN-XiaoxiaoNeural", "zh-HK": "zh-HK-HiuMaanNeural", "zh-TW": "zh-TW-HsiaoChenNeural",
}  # fmt: skip


def default_voice(language: str) -> str:
    """The voice of a BCP 47 tag, of its language where the region is unknown; empty if there is none."""
    wanted = language.lower()
    by_locale = {locale.lower(): voice for locale, voice in DEFAULT_VOICES.items()}
    if wanted in by_locale:
        return by_locale[wanted]
    first = wanted.split("-")[0]
    return next((voice for locale, voice in by_locale.items() if locale.split("-")[0] == first), "")
