"""Which services a process may use and with which accounts. A service without its key does not exist for it.

The defaults of models are those of the vendors' pages in autumn 2026; names change fast, so each is a variable and
`talkspurt doctor --live` asks the service whether it has the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from server.config.read import Fields, base_url, check_one_of, check_range, check_url, flag, lower, read, text, whole
from server.errors import ConfigError

KEY_MIN_CHARS = 8
AzureOpenAiSurface = Literal["classic", "v1"]

VARIABLES: tuple[str, ...] = (
    "STT_PROVIDER", "LLM_PROVIDER", "TTS_PROVIDER", "TALKSPURT_SPANISH_STT",
    "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION", "AZURE_SPEECH_ENDPOINT", "AZURE_SPEECH_COMMIT",
    "AZURE_SPEECH_FINAL_WAIT_MS", "AZURE_SPEECH_POLLING_MS", "AZURE_SPEECH_TEXT_STREAM",
    "AZURE_SPEECH_TELEPHONE_EFFECT", "AZURE_SPEECH_USE_TOKEN",
    "AZURE_SPEECH_KEY_2", "AZURE_SPEECH_REGION_2", "AZURE_SPEECH_ENDPOINT_2",
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_STT_MODEL", "OPENAI_TTS_MODEL",
    "GROQ_API_KEY", "GROQ_BASE_URL", "GROQ_MODEL", "GROQ_STT_MODEL", "GROQ_TTS_MODEL",
    "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_VERSION", "AZURE_OPENAI_DEPLOYMENT",
    "AZURE_OPENAI_SURFACE",
    "COMPATIBLE_BASE_URL", "COMPATIBLE_API_KEY", "COMPATIBLE_MODEL",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSpeechConfig:
    """Providers "azure" of speech both ways, and "azure-2": another key, or region, that stands in for it."""

    key: str = field(default="", repr=False)
    region: str = ""
    endpoint: str = ""  # base address in place of the region's, e.g. a private link or a simulator
    key_2: str = field(default="", repr=False)
    region_2: str = ""  # neither it nor the endpoint: where the first key is
    endpoint_2: str = ""
    commit: bool = True  # our VAD ends the utterance (the service's force-commit feature, a preview)
    final_wait_ms: int = 400  # after our commit; then the last interim is taken for the final
    polling_ms: int = 0  # of the SDK's socket; 0 is its own 10 ms. 50: recognition costs a third less, 60 ms later
    text_stream: bool = False  # clauses by the service's text-streaming input (a preview, no SSML)
    telephone_effect: bool = False  # the service's equaliser for 8 kHz telephone audio
    use_token: bool = False  # the key is sent to the token service alone; all else gets tokens of ten minutes

    def __post_init__(self) -> None:
        self._check_account("", self.key, self.region, self.endpoint)
        self._check_account("_2", self.key_2, self.region_2, self.endpoint_2)
        check_range("AZURE_SPEECH_FINAL_WAIT_MS", self.final_wait_ms, 50, 5000)
        check_range("AZURE_SPEECH_POLLING_MS", self.polling_ms, 0, 200)
        if self.key and bool(self.region) == bool(self.endpoint):
            raise ConfigError("AZURE_SPEECH_REGION", "either it or AZURE_SPEECH_ENDPOINT beside AZURE_SPEECH_KEY")
        self._check_second()

    @staticmethod
    def _check_account(suffix: str, key: str, region: str, endpoint: str) -> None:
        _check_key(f"AZURE_SPEECH_KEY{suffix}", key)
        if region and not re.fullmatch(r"[a-z0-9]{3,40}", region):
            raise ConfigError(f"AZURE_SPEECH_REGION{suffix}", "a region like westeurope", region)
        if endpoint:
            schemes = ("https", "http", "wss", "ws")
            check_url(f"AZURE_SPEECH_ENDPOINT{suffix}", endpoint, schemes, "https://name.example.com")

    def _check_second(self) -> None:
        if self.key_2 and not self.key:
            raise ConfigError("AZURE_SPEECH_KEY", "a value, because AZURE_SPEECH_KEY_2 is set")
        if (self.region_2 or self.endpoint_2) and not self.key_2:
            raise ConfigError("AZURE_SPEECH_KEY_2", "a value, because a second region or endpoint is set")
        if self.region_2 and self.endpoint_2:
            raise ConfigError("AZURE_SPEECH_REGION_2", "either it or AZURE_SPEECH_ENDPOINT_2, or neither")
        second = self.second
        first = (self.key, self.region, self.endpoint)
        if second is not None and (second.key, second.region, second.endpoint) == first:
            raise ConfigError("AZURE_SPEECH_KEY_2", "another key, or another region, than the first")

    @property
    def is_configured(self) -> bool:
        return bool(self.key)

    @property
    def second(self) -> AzureSpeechConfig | None:
        """The account that stands in for this one, used in the same way."""
        if not self.key_2:
            return None
        is_elsewhere = self.region_2 or self.endpoint_2
        where = (self.region_2, self.endpoint_2) if is_elsewhere else (self.region, self.endpoint)
        return replace(
            self, key=self.key_2, region=where[0], endpoint=where[1], key_2="", region_2="", endpoint_2=""
        )

    @property
    def is_second_elsewhere(self) -> bool:
        """Whether the second account is at another address, where custom endpoints of the first are not known."""
        second = self.second
        return second is not None and (second.region, second.endpoint) != (self.region, self.endpoint)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AzureSpeechConfig:
        fields: Fields = {
            "key": ("AZURE_SPEECH_KEY", text),
            "region": ("AZURE_SPEECH_REGION", lower),
            "endpoint": ("AZURE_SPEECH_ENDPOINT", base_url),
            "key_2": ("AZURE_SPEECH_KEY_2", text),
            "region_2": ("AZURE_SPEECH_REGION_2", lower),
            "endpoint_2": ("AZURE_SPEECH_ENDPOINT_2", base_url),
            "commit": ("AZURE_SPEECH_COMMIT", flag),
            "final_wait_ms": ("AZURE_SPEECH_FINAL_WAIT_MS", whole),
            "polling_ms": ("AZURE_SPEECH_POLLING_MS", whole),
            "text_stream": ("AZURE_SPEECH_TEXT_STREAM", flag),
            "telephone_effect": ("AZURE_SPEECH_TELEPHONE_EFFECT", flag),
            "use_token": ("AZURE_SPEECH_USE_TOKEN", flag),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiConfig:
    """Model "openai", transcriber "openai-stt", synthesizer "openai-tts"."""

    key: str = field(default="", repr=False)
    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-6-luna"
    stt_model: str = "gpt-4o-mini-transcribe"
    tts_model: str = "gpt-4o-mini-tts"

    def __post_init__(self) -> None:
        _check_key("OPENAI_API_KEY", self.key)
        check_url("OPENAI_BASE_URL", self.base_url, ("https", "http"), "https://api.openai.com/v1")

    @property
    def is_configured(self) -> bool:
        return bool(self.key)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> OpenAiConfig:
        fields: Fields = {
            "key": ("OPENAI_API_KEY", text),
            "base_url": ("OPENAI_BASE_URL", base_url),
            "model": ("OPENAI_MODEL", text),
            "stt_model": ("OPENAI_STT_MODEL", text),
            "tts_model": ("OPENAI_TTS_MODEL", text),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroqConfig:
    """Model "groq", transcriber "groq-stt", synthesizer "groq-tts"."""

    key: str = field(default="", repr=False)
    base_url: str = "https://api.groq.com"
    model: str = "openai/gpt-oss-20b"
    stt_model: str = "whisper-large-v3-turbo"
    tts_model: str = "canopylabs/orpheus-v1-english"

    def __post_init__(self) -> None:
        _check_key("GROQ_API_KEY", self.key)
        check_url("GROQ_BASE_URL", self.base_url, ("https", "http"), "https://api.groq.com")

    @property
    def is_configured(self) -> bool:
        return bool(self.key)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> GroqConfig:
        fields: Fields = {
            "key": ("GROQ_API_KEY", text),
            "base_url": ("GROQ_BASE_URL", _groq_url),
            "model": ("GROQ_MODEL", text),
            "stt_model": ("GROQ_STT_MODEL", text),
            "tts_model": ("GROQ_TTS_MODEL", text),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureOpenAiConfig:
    """Model "azure-openai". `deployment` is what the agent's `llm.model` replaces."""

    key: str = field(default="", repr=False)
    endpoint: str = ""
    api_version: str = "2024-10-21"  # the last dated one that is generally available; the surface v1 needs none
    deployment: str = ""
    surface: AzureOpenAiSurface = "classic"

    def __post_init__(self) -> None:
        _check_key("AZURE_OPENAI_API_KEY", self.key)
        check_one_of("AZURE_OPENAI_SURFACE", self.surface, get_args(AzureOpenAiSurface))
        if self.endpoint:
            check_url("AZURE_OPENAI_ENDPOINT", self.endpoint, ("https", "http"), "https://name.openai.azure.com")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(-preview)?", self.api_version):
            raise ConfigError("AZURE_OPENAI_API_VERSION", "a version like 2024-10-21", self.api_version)
        if self.key and not self.endpoint:
            raise ConfigError("AZURE_OPENAI_ENDPOINT", "a value, because AZURE_OPENAI_API_KEY is set")
        if self.key and not self.deployment:
            raise ConfigError("AZURE_OPENAI_DEPLOYMENT", "a deployment, because AZURE_OPENAI_API_KEY is set")

    @property
    def is_configured(self) -> bool:
        return bool(self.key)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AzureOpenAiConfig:
        fields: Fields = {
            "key": ("AZURE_OPENAI_API_KEY", text),
            "endpoint": ("AZURE_OPENAI_ENDPOINT", base_url),
            "api_version": ("AZURE_OPENAI_API_VERSION", text),
            "deployment": ("AZURE_OPENAI_DEPLOYMENT", text),
            "surface": ("AZURE_OPENAI_SURFACE", lower),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleConfig:
    """Model "compatible": any service with OpenAI's chat completions, e.g. one of your own. The key may be empty."""

    base_url: str = ""
    key: str = field(default="", repr=False)
    model: str = ""

    def __post_init__(self) -> None:
        if self.base_url:
            check_url("COMPATIBLE_BASE_URL", self.base_url, ("https", "http"), "http://llm.internal:8000/v1")
            if not self.model:
                raise ConfigError("COMPATIBLE_MODEL", "the name of a model, because COMPATIBLE_BASE_URL is set")
        elif self.key:
            raise ConfigError("COMPATIBLE_BASE_URL", "a value, because COMPATIBLE_API_KEY is set")

    @property
    def is_configured(self) -> bool:
        return bool(self.base_url)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> CompatibleConfig:
        fields: Fields = {
            "base_url": ("COMPATIBLE_BASE_URL", base_url),
            "key": ("COMPATIBLE_API_KEY", text),
            "model": ("COMPATIBLE_MODEL", text),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """`stt`, `llm`, `tts` replace the agent's own providers in every call; empty leaves the agent's choice."""

    stt: str = ""
    llm: str = ""
    tts: str = ""
    spanish_stt: str = ""  # folder of the Spanish weights, whose licence the operator must accept (docs/offline.md)
    azure_speech: AzureSpeechConfig = field(default_factory=AzureSpeechConfig)
    openai: OpenAiConfig = field(default_factory=OpenAiConfig)
    groq: GroqConfig = field(default_factory=GroqConfig)
    azure_openai: AzureOpenAiConfig = field(default_factory=AzureOpenAiConfig)
    compatible: CompatibleConfig = field(default_factory=CompatibleConfig)

    def __post_init__(self) -> None:
        for variable, name in (("STT_PROVIDER", self.stt), ("LLM_PROVIDER", self.llm), ("TTS_PROVIDER", self.tts)):
            if name and not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
                raise ConfigError(variable, "the name of a provider, or nothing for the agent's own", name)
        if self.spanish_stt and not Path(self.spanish_stt).is_dir():
            raise ConfigError("TALKSPURT_SPANISH_STT", "a folder of Spanish weights", self.spanish_stt)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ProviderConfig:
        fields: Fields = {
            "stt": ("STT_PROVIDER", text),
            "llm": ("LLM_PROVIDER", text),
            "tts": ("TTS_PROVIDER", text),
            "spanish_stt": ("TALKSPURT_SPANISH_STT", text),
        }
        return cls(
            azure_speech=AzureSpeechConfig.from_env(env),
            openai=OpenAiConfig.from_env(env),
            groq=GroqConfig.from_env(env),
            azure_openai=AzureOpenAiConfig.from_env(env),
            compatible=CompatibleConfig.from_env(env),
            **read(env, fields),
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        azure = self.azure_speech
        keys = (azure.key, azure.key_2, self.openai.key, self.groq.key, self.azure_openai.key, self.compatible.key)
        return tuple(key for key in keys if key)


def _groq_url(variable: str, text: str) -> str:
    """With or without the path that other clients want and Groq's SDK adds by itself."""
    return base_url(variable, text).removesuffix("/openai/v1")


def _check_key(variable: str, key: str) -> None:
    if key and (len(key) < KEY_MIN_CHARS or any(c.isspace() for c in key)):
        raise ConfigError(variable, f"a key of at least {KEY_MIN_CHARS} characters without spaces")
