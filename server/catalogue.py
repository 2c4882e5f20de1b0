"""The services of one process: built from the configuration, watched for their health, chained for each call.

    configuration ─► adapters by name ─┐
                                       ├─► for_call(settings): ears, model and voice with their fallbacks
    agent's provider + fallbacks ──────┘

With `server.app` this is the only module that sees concrete providers. A service without an account is not in the
catalogue, and asking for it says which variable would put it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import shutdown as shut_down_azure
from providers.azure.stt import AzureTranscriber
from providers.azure.tts import AzureSynthesizer
from providers.base import ChatModel, Synthesizer, Transcriber
from providers.errors import ProviderRejected
from providers.fallback_model import FallbackModel, ModelCandidate
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.groq.chat import GroqModel
from providers.groq.speech import GroqSynthesizer
from providers.groq.transcription import GroqTranscriber
from providers.health import ProviderHealth
from providers.observer import ProviderObserver, Service
from providers.offline.dialogue import DIALOGUE, DialogueModel
from providers.offline.moonshine import MoonshineTranscriber
from providers.offline.pico import PicoSynthesizer
from providers.offline.script import compile_script
from providers.offline.scripted import ScriptedModel, ScriptedSynthesizer, ScriptedTranscriber
from providers.offline.vocabulary import Expected
from providers.openai.chat import AzureOpenAIModel, CompatibleModel, OpenAIModel
from providers.openai.limits import Limited
from providers.openai.options import AzureOpenAiOptions, CompatibleOptions, GroqOptions, OpenAiOptions
from providers.openai.speech import OpenAISynthesizer
from providers.openai.transcription import OpenAITranscriber
from server.agent.choice import Choice, choices, with_standby
from server.agent.settings import CHANNELS, AgentSettings
from server.call.providers import CallProviders
from server.call.recogniser import Ear
from server.config import AzureSpeechConfig, ProviderConfig
from server.errors import ConfigError

_P = TypeVar("_P", Transcriber, ChatModel, Synthesizer)

STANDBY_LINES = 2
"""Synthesizers kept connected at the second account."""
# What would make a known service available.
NEEDS: Mapping[str, str] = {
    "azure": "AZURE_SPEECH_KEY",
    "azure-2": "AZURE_SPEECH_KEY_2",
    "openai": "OPENAI_API_KEY",
    "openai-stt": "OPENAI_API_KEY",
    "openai-tts": "OPENAI_API_KEY",
    "groq": "GROQ_API_KEY",
    "groq-stt": "GROQ_API_KEY",
    "groq-tts": "GROQ_API_KEY",
    "azure-openai": "AZURE_OPENAI_API_KEY",
    "compatible": "COMPATIBLE_BASE_URL",
}


@dataclass(slots=True)
class _Shelf(Generic[_P]):
    """The providers of one service, each made when it is first asked for, with its health."""

    service: Service
    observer: ProviderObserver
    makers: dict[str, Callable[[], _P]] = field(default_factory=dict)
    made: dict[str, tuple[_P, ProviderHealth]] = field(default_factory=dict)

    def get(self, name: str, setting: str = "") -> tuple[_P, ProviderHealth]:
        """Raises ConfigError, naming the setting, for what is not there."""
        if name not in self.made:
            if name not in self.makers:
                hint = f"; {name} needs {NEEDS[name]}" if name in NEEDS else ""
                expected = f"one of {', '.join(self.makers)}{hint}"
                raise ConfigError(setting or f"{self.service}.provider", expected, name)
            made = self.makers[name]()
            if isinstance(made, Limited):
                made.tell_limits(partial(self.observer.on_limit, self.service, name))
            self.made[name] = made, ProviderHealth(self.service, name, self.observer)
        return self.made[name]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Who may hear, think and speak for an agent, the preferred one of each first."""

    ears: tuple[Ear, ...]
    models: tuple[ModelCandidate, ...]
    voices: tuple[SpeechCandidate, ...]

    @property
    def healths(self) -> Mapping[Service, tuple[ProviderHealth, ...]]:
        return {
            "stt": tuple(one.health for one in self.ears),
            "llm": tuple(one.health for one in self.models),
            "tts": tuple(one.health for one in self.voices),
        }


class Catalogue:
    """Belongs to one event loop. `observer` hears of every attempt, failure and use."""

    def __init__(self, config: ProviderConfig, observer: ProviderObserver) -> None:
        self._config = config
        self._expected = Expected()
        self._ears: _Shelf[Transcriber] = _Shelf("stt", observer)
        self._models: _Shelf[ChatModel] = _Shelf("llm", observer)
        self._voices: _Shelf[Synthesizer] = _Shelf("tts", observer)
        self._add_offline()
        self._add_azure_speech()
        self._add_openai()
        self._add_groq()
        self._add_models()

    def for_call(self, settings: AgentSettings) -> CallProviders:
        """The providers that this agent names, or those that the configuration puts in their place, with fallbacks.

        Raises:
            ConfigError: the agent names what this process does not have; says which setting and what would help.
        """
        found = self.candidates(settings)
        is_scripted = found.models[0].provider.name == DIALOGUE
        return CallProviders(
            ears=found.ears,
            model=FallbackModel(found.models),
            synthesizer=FallbackSynthesizer(found.voices),
            # What callers of a scripted agent say is in its script; other models answer to anything.
            phrases=self._expected.phrases(settings.script, settings.language) if is_scripted else (),
        )

    def candidates(self, settings: AgentSettings) -> Candidates:
        """Everybody who may serve this agent, with a model or voice of their own. Raises ConfigError as `for_call`."""
        config = self._config
        return Candidates(
            ears=tuple(
                Ear(*self._ears.get(one.provider, one.setting), one.own)
                for one in hearers(settings, config)
            ),
            models=tuple(
                ModelCandidate(*self._models.get(one.provider, one.setting), one.own)
                for one in choices("llm", settings.llm, config.llm)
            ),
            voices=tuple(
                SpeechCandidate(*self._voices.get(one.provider, one.setting), one.own, one.style)
                for one in speakers(settings, config)
            ),
        )

    def healths(self) -> list[ProviderHealth]:
        """Of every provider that an agent has asked for."""
        return [health for shelf in (self._ears, self._models, self._voices) for _, health in shelf.made.values()]

    def check(self, slug: str, settings: AgentSettings) -> None:
        """Whether this agent can be given its providers on every channel.

        Raises:
            ConfigError: in one line: the agent, the setting, and the variable that is missing.
        """
        for channel in CHANNELS:
            variant = settings.for_channel(channel)
            try:
                if variant.script and (self._config.llm or variant.llm.provider) == DIALOGUE:
                    compile_script(variant.script, variant.language)
                self.for_call(variant)
            except ConfigError as error:
                group, _, key = error.variable.partition(".")
                override = settings.channels.get(channel, {}).get(group, {})
                where = f"channels.{channel}.{error.variable}" if key.split("[")[0] in override else error.variable
                raise ConfigError(f"agent {slug}: {where}", error.expected, error.got) from None
            except ProviderRejected as error:
                raise ConfigError(f"agent {slug}: script", f"one that the dialogue engine takes ({error})") from None

    def deafness(self, settings: AgentSettings) -> str:
        """Why nobody can hear for this agent, on the first channel where it is so, whatever the network does.

        Empty when somebody can. Asks nobody. Raises ConfigError as `for_call`.
        """
        for channel in CHANNELS:
            variant = settings.for_channel(channel)
            ears = [one.provider for one in self.candidates(variant).ears]
            reasons = [one.refusal(variant.language) if isinstance(one, MoonshineTranscriber) else "" for one in ears]
            if all(reasons):
                return f"{ears[0].name}: {reasons[0]}"
        return ""

    @property
    def understudy(self) -> Synthesizer:
        """The voice that needs nobody: fixed texts are spoken by it when their own voice cannot be reached."""
        return self._voices.get("pico")[0]

    def transcriber(self, name: str) -> Transcriber:
        """Raises ConfigError for one that is not there."""
        return self._ears.get(name)[0]

    def model(self, name: str) -> ChatModel:
        return self._models.get(name)[0]

    def synthesizer(self, name: str) -> Synthesizer:
        return self._voices.get(name)[0]

    async def aclose(self) -> None:
        for shelf in (self._ears, self._models, self._voices):
            for provider, _ in shelf.made.values():
                await provider.aclose()
        if self._config.azure_speech.is_configured:
            # The SDK aborts the process when a callback can still come while the interpreter ends.
            shut_down_azure()

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────

    def _add_offline(self) -> None:
        spanish = self._config.spanish_stt
        folder = Path(spanish) if spanish else None
        self._ears.makers |= {
            "moonshine": MoonshineTranscriber,
            "moonshine-es": lambda: MoonshineTranscriber.spanish(folder),
            "scripted": ScriptedTranscriber,
        }
        self._models.makers.update(dialogue=DialogueModel, scripted=ScriptedModel)
        self._voices.makers.update(pico=PicoSynthesizer, scripted=ScriptedSynthesizer)

    def _add_azure_speech(self) -> None:
        azure = self._config.azure_speech
        if not azure.is_configured:
            return
        options = azure_options(azure)
        self._ears.makers["azure"] = lambda: AzureTranscriber(options)
        self._voices.makers["azure"] = lambda: AzureSynthesizer(options)
        if azure.second is not None:
            # Few lines wait there: each has six threads, and most days nobody speaks on them.
            second = replace(azure_options(azure.second, "_2"), warm_limit=STANDBY_LINES)
            self._ears.makers["azure-2"] = lambda: AzureTranscriber(second, name="azure-2")
            self._voices.makers["azure-2"] = lambda: AzureSynthesizer(second, name="azure-2")

    def _add_openai(self) -> None:
        openai = self._config.openai
        if not openai.is_configured:
            return

        def options(model: str) -> OpenAiOptions:
            return OpenAiOptions(key=openai.key, base_url=openai.base_url, model=model)

        self._models.makers["openai"] = lambda: OpenAIModel(options(openai.model))
        self._ears.makers["openai-stt"] = lambda: OpenAITranscriber(options(openai.stt_model))
        self._voices.makers["openai-tts"] = lambda: OpenAISynthesizer(options(openai.tts_model))

    def _add_groq(self) -> None:
        groq = self._config.groq
        if not groq.is_configured:
            return

        def options(model: str) -> GroqOptions:
            return GroqOptions(key=groq.key, base_url=groq.base_url, model=model)

        self._models.makers["groq"] = lambda: GroqModel(options(groq.model))
        self._ears.makers["groq-stt"] = lambda: GroqTranscriber(options(groq.stt_model))
        self._voices.makers["groq-tts"] = lambda: GroqSynthesizer(options(groq.tts_model))

    def _add_models(self) -> None:
        config, models = self._config, self._models.makers
        azure, other = config.azure_openai, config.compatible
        if azure.is_configured:
            of_azure = AzureOpenAiOptions(
                key=azure.key,
                endpoint=azure.endpoint,
                deployment=azure.deployment,
                api_version=azure.api_version,
                surface=azure.surface,
            )
            models["azure-openai"] = lambda: AzureOpenAIModel(of_azure)
        if other.is_configured:
            of_other = CompatibleOptions(base_url=other.base_url, model=other.model, key=other.key)
            models["compatible"] = lambda: CompatibleModel(of_other)


def hearers(settings: AgentSettings, config: ProviderConfig) -> list[Choice]:
    """Who may hear for this agent, in order. Raises ConfigError as `choices`."""
    found = choices("stt", settings.stt, config.stt)
    azure = config.azure_speech
    if azure.second is None:
        return found
    # A custom endpoint is known to its own resource only.
    return with_standby(found, "azure", "azure-2", has_its_models=not azure.is_second_elsewhere)


def speakers(settings: AgentSettings, config: ProviderConfig) -> list[Choice]:
    """Who may speak for this agent, in order. Raises ConfigError as `choices`."""
    found = choices("tts", settings.tts, config.tts)
    if config.azure_speech.second is None:
        return found
    # Voices are the vendor's.
    return with_standby(found, "azure", "azure-2", has_its_models=True)


def azure_options(azure: AzureSpeechConfig, suffix: str = "") -> AzureSpeechOptions:
    """What the adapters are told of a configured account, whose variables end with `suffix`.

    Raises ConfigError for an address that they cannot use.
    """
    try:
        return AzureSpeechOptions(
            key=azure.key,
            region=azure.region,
            endpoint=azure.endpoint,
            commit=azure.commit,
            final_wait_ms=azure.final_wait_ms,
            polling_ms=azure.polling_ms,
            text_stream=azure.text_stream,
            telephone_effect=azure.telephone_effect,
            use_token=azure.use_token,
        )
    except ValueError as error:
        raise ConfigError(f"AZURE_SPEECH_ENDPOINT{suffix}", f"an address without a path ({error})") from None
