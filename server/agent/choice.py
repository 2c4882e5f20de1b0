"""Who may hear, think or speak for an agent, in which order, and which model or voice each of them is asked for.

    stt: {provider: azure, model: X, fallbacks: [groq-stt, openai-stt/whisper-1]}
      ─► azure with X · groq-stt with its default · openai-stt with whisper-1

Names of models, voices and styles are a provider's own: the agent's belong to the provider that the agent names, and
are sent to nobody else, also when a variable of the process puts another one in that one's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from server.agent.settings import LlmSettings, SttSettings, TtsSettings
from server.errors import ConfigError

Service = Literal["stt", "llm", "tts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate.

    Args:
        provider: its name. own: its model or voice; empty is its default. style: of the voice.
        setting: where it is named, for errors.
    """

    provider: str
    own: str = ""
    style: str = ""
    setting: str


def choices(service: Service, settings: SttSettings | LlmSettings | TtsSettings, override: str = "") -> list[Choice]:
    """The candidates in their order; `override` is the process's provider in place of the agent's.

    Raises:
        ConfigError: a fallback has an empty model or voice, or is there before.
    """
    own, style = (settings.voice, settings.style) if isinstance(settings, TtsSettings) else (settings.model, "")

    def choice(text: str, setting: str) -> Choice:
        provider, slash, named = text.partition("/")
        if slash and not named.strip():
            what = "voice" if service == "tts" else "model"
            raise ConfigError(setting, f"provider, or provider/{what}", text)
        if provider == settings.provider and named in ("", own):
            return Choice(provider=provider, own=own, style=style, setting=setting)
        return Choice(provider=provider, own=named, setting=setting)

    first_setting = f"{service}.provider by {service.upper()}_PROVIDER" if override else f"{service}.provider"
    preferred = Choice(provider=settings.provider, own=own, style=style, setting=first_setting)
    listed = [choice(text, f"{service}.fallbacks[{at}]") for at, text in enumerate(settings.fallbacks)]
    _check_distinct([preferred, *listed], settings.fallbacks)
    if not override or override == settings.provider:
        return [preferred, *listed]
    first = Choice(provider=override, setting=first_setting)
    # It may be one of the agent's fallbacks: nobody is asked twice.
    return [first, *(one for one in listed if (one.provider, one.own) != (first.provider, first.own))]


def with_standby(found: Sequence[Choice], of: str, standby: str, *, has_its_models: bool) -> list[Choice]:
    """Right behind each candidate `of` the one that stands in for it; unless somebody has put that one in a place.

    It speaks with the same voice and style, and hears by the same model where `has_its_models`.
    """
    if any(one.provider == standby for one in found):
        return list(found)
    both: list[Choice] = []
    for one in found:
        both.append(one)
        if one.provider == of:
            both.append(replace(one, provider=standby, own=one.own if has_its_models else ""))
    return both


def _check_distinct(found: Sequence[Choice], fallbacks: Sequence[str]) -> None:
    before: dict[tuple[str, str], str] = {}
    for at, one in enumerate(found):
        if (there := before.get((one.provider, one.own))) is not None:
            raise ConfigError(one.setting, f"another one than {there}", fallbacks[at - 1])
        before[one.provider, one.own] = one.setting.partition(" ")[0]
