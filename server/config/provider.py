"""Which services a process may use and with which accounts. A service without its key does not exist for it.

The defaults of models are those of the vendors' pages in autumn 2026; names change fast, so each is a variable and
`talkspurt doctor --live` asks the service whether it has the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    "AZURE_SPEECH_TELEPHONE_EFFECT",
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_STT_MODEL", "OPENAI_TTS_MODEL",
    "GROQ_API_KEY", "GROQ_BASE_URL", "GROQ_MODEL", "GROQ_STT_MODEL", "GROQ_TTS_MODEL",
    "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_VERSION", "AZURE_OPENAI_DEPLOYMENT",
    "AZURE_OPENAI_SURFACE",
    "COMPATIBLE_BASE_URL", "COMPATIBLE_API_KEY", "COMPATIBLE_MODEL",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSpeechConfig:
    """Providers "azure" of speech both ways."""

    key: str = field(default="", repr=False)
    region: str = ""
    endpoint: str = ""  # base address in place of the region's, e.g. a private link or a simulator
    commit: bool = True  # our VAD ends the utterance (the service's force-commit feature, a preview)
    final_wait_ms: int = 400  # after our commit; then the last interim is taken for the final
    polling_ms: int = 0  # of the SDK's socket; 0 is its own 10 ms. 50 costs a third less CPU and up to 50 ms
    text_stream: bool = False  # clauses by the service's text-streaming input (a preview, no SSML)
    telephone_effect: bool = False  # the service's equaliser for 8 kHz telephone audio

    def __post_init__(self) -> None:
        _check_key("AZURE_SPEECH_KEY", self.key)
        check_range("AZURE_SPEECH_FINAL_WAIT_MS", self.final_wait_ms, 50, 5000)
        check_range("AZURE_SPEECH_POLLING_MS", self.polling_ms, 0, 200)
        if self.region and not re.fullmatch(r"[a-z0-9]{3,40}", self.region):
            raise ConfigError("AZURE_SPEECH_REGION", "a region like westeurope", self.region)
        if self.endpoint:
            check_url("AZURE_SPEECH_ENDPOINT", self.endpoint, ("https", "http", "wss", "ws"), "https://name.example.com")
        if self.key and bool(self.region) == bool(self.endpoint):
            raise ConfigError("AZURE_SPEECH_REGION", "either it or AZURE_SPEECH_ENDPOINT beside AZURE_SPEECH_KEY")

    @property
    def is_configured(self) -> bool:
        return bool(self.key)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AzureSpeechConfig:
        fields: Fields = {
            "key": ("AZURE_SPEECH_KEY", text),
            "region": ("AZURE_SPEECH_REGION", lower),
            "endpoint": ("AZURE_SPEECH_ENDPOINT", base_url),
            "commit": ("AZURE_SPEECH_COMMIT", flag),
            "final_wait_ms": ("AZURE_SPEECH_FINAL_WAIT_MS", whole),
            "polling_ms": ("AZURE_SPEECH_POLLING_MS", whole),
            "text_stream": ("AZURE_SPEECH_TEXT_STREAM", flag),
            "telephone_effect": ("AZURE_SPEECH_TELEPHONE_EFFECT", flag),
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
        keys = (self.azure_speech.key, self.openai.key, self.groq.key, self.azure_openai.key, self.compatible.key)
        return tuple(key for key in keys if key)


def _groq_url(variable: str, text: str) -> str:
    """With or without the path that other clients want and Groq's SDK adds by itself."""
    return base_url(variable, text).removesuffix("/openai/v1")


def _check_key(variable: str, key: str) -> None:
    if key and (len(key) < KEY_MIN_CHARS or any(c.isspace() for c in key)):
        raise ConfigError(variable, f"a key of at least {KEY_MIN_CHARS} characters without spaces")
