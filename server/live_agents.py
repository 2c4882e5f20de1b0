"""What the agents name of one account: models, voices and languages that `talkspurt doctor --live` looks up.

    agents ─► their providers in each channel (server/agent/choice.py) ─► those of the account that name something

An agent that leaves everything to the account's defaults is not here: these are looked up once for all. Of Azure Speech
there is always something, because recognition and voice depend on the language.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from providers.check import Check, Checked
from server.agent.choice import Choice, choices
from server.agent.importer import AgentDefinition
from server.agent.settings import AgentSettings
from server.catalogue import Catalogue, azure_options, hearers, speakers
from server.config import ProviderConfig
from server.errors import ConfigError
from server.live_probe import Probe, find_voice, hear, speak
from server.readiness import variants

AZURE = ("azure", "azure-2")
"""Speech by the first account, and by the one that stands in for it."""


@dataclass(frozen=True, slots=True)
class Where:
    """Who asks for it, and by which setting."""

    slug: str
    setting: str


@dataclass(frozen=True, slots=True)
class LookUp:
    """One question to one service.

    Args:
        service: as the doctor calls it, e.g. azure-tts. own: a model or voice.
        language: of the agent, where the service has others for each.
    """

    service: str
    provider: str
    own: str = ""
    style: str = ""
    language: str = ""

    def probe(self, catalogue: Catalogue, config: ProviderConfig) -> Probe:
        """Asks the list of voices or models where there is one, else for something small."""
        name = self.provider
        azure = {"azure": config.azure_speech, "azure-2": config.azure_speech.second}.get(name)
        if azure is not None and self.service.endswith("-stt"):
            return lambda: hear(catalogue.transcriber(name), self.language, self.own)
        if azure is not None:
            options = azure_options(azure, "_2" if name == "azure-2" else "")
            return lambda: find_voice(options, self.language, self.own, self.style)
        if name.endswith("-tts"):
            return lambda: speak(catalogue.synthesizer(name), self.language, self.own, self.style)
        one = catalogue.transcriber(name) if name.endswith("-stt") else catalogue.model(name)

        async def look() -> Check:
            assert isinstance(one, Checked)
            return await one.check(self.own)

        return look


def look_ups(
    agents: Sequence[AgentDefinition], config: ProviderConfig, account: str
) -> Iterator[tuple[LookUp, Where]]:
    """Everything to look up at `account`, each once for an agent. Raises ConfigError for fallbacks that cannot be."""
    for agent in agents:
        seen: set[LookUp] = set()
        for settings in variants(agent.settings):
            try:
                named = list(_named(settings, config))
            except ConfigError as error:
                raise ConfigError(f"agent {agent.slug}: {error.variable}", error.expected, error.got) from None
            for one, setting in named:
                if _account(one.provider) == account and one not in seen:
                    seen.add(one)
                    yield one, Where(agent.slug, setting)


def _named(settings: AgentSettings, config: ProviderConfig) -> Iterator[tuple[LookUp, str]]:
    heard = settings.stt.language or settings.language
    for one in hearers(settings, config):
        if one.provider in AZURE:
            own = "stt.model" if one.own else "stt.language" if settings.stt.language else "language"
            yield LookUp(f"{one.provider}-stt", one.provider, one.own, language=heard), _setting(one, own)
        elif one.own:
            yield LookUp(one.provider, one.provider, one.own), _setting(one, "stt.model")
    for one in choices("llm", settings.llm, config.llm):
        if one.own:
            yield LookUp(one.provider, one.provider, one.own), _setting(one, "llm.model")
    for one in speakers(settings, config):
        own = "tts.voice" if one.own else "tts.style" if one.style else "language"
        if one.provider in AZURE:
            look_up = LookUp(f"{one.provider}-tts", one.provider, one.own, one.style, settings.language)
            yield look_up, _setting(one, own)
        elif one.own:
            yield LookUp(one.provider, one.provider, one.own, one.style), _setting(one, own)


def _setting(one: Choice, own: str) -> str:
    """Where the name stands: a fallback's with the fallback, the agent's own in a setting of its own."""
    return own if one.setting.startswith(("stt.provider", "llm.provider", "tts.provider")) else one.setting


def _account(provider: str) -> str:
    return "azure" if provider in AZURE else provider.removesuffix("-stt").removesuffix("-tts")
