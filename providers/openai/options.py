"""What the constructors of these adapters are told. Read once at start, passed down; secrets have no `repr`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LimitField = Literal["max_completion_tokens", "max_tokens"]
Surface = Literal["classic", "v1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Connections to one service.

    Args:
        connect_ms: TCP and TLS together. read_ms: longest silence on a connection that waits for an answer; the
            deadlines of a turn are shorter and count useful output only. write_ms: to hand over a request.
        spares: connections kept ready beside those in use, at most one for each attached call.
        keep_alive_ms: an idle connection is closed after that. OpenAI's and Groq's own defaults are 5 s, which makes
            every turn of a call pay for a handshake.
        refresh_ms: a spare that idles that long is used once, so that nobody on the way forgets it (balancers drop
            idle connections after 60 s and more).
        max_requests: at one time; more are refused at once.
        proxy: http://… or empty. Proxies of the environment are not used.
    """

    connect_ms: int = 2000
    read_ms: int = 8000
    write_ms: int = 5000
    spares: int = 2
    keep_alive_ms: int = 120_000
    refresh_ms: int = 50_000
    max_requests: int = 512
    proxy: str = ""

    def __post_init__(self) -> None:
        limits = (self.connect_ms, self.read_ms, self.write_ms, self.keep_alive_ms, self.refresh_ms, self.max_requests)
        if min(limits) <= 0 or self.spares < 0:
            raise ValueError(f"link: expected positive limits, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiOptions:
    """One account at OpenAI. `base_url` ends with /v1."""

    key: str = field(repr=False)
    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-6-luna"
    link: LinkOptions = field(default_factory=LinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroqOptions:
    """One account at Groq. `base_url` has no path. `effort` is asked for where the agent does not say."""

    key: str = field(repr=False)
    base_url: str = "https://api.groq.com"
    model: str = "openai/gpt-oss-20b"
    effort: str = "low"
    link: LinkOptions = field(default_factory=LinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureOpenAiOptions:
    """One resource of Azure OpenAI. `deployment` is what elsewhere is the model; surface v1 needs no `api_version`."""

    key: str = field(repr=False)
    endpoint: str
    deployment: str
    api_version: str = "2024-10-21"
    surface: Surface = "classic"
    link: LinkOptions = field(default_factory=LinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleOptions:
    """Any service with OpenAI's chat completions. Without `key` no authorization is sent.

    Args:
        limit: how the service calls the longest answer. include_usage: whether it may be asked for token counts.
    """

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    limit: LimitField = "max_tokens"
    include_usage: bool = True
    link: LinkOptions = field(default_factory=LinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionOptions:
    """How utterances are sent.

    Args:
        max_utterance_ms: of audio; of a longer one the oldest is dropped and counted.
        total_ms: from commit to transcript, with the retry.
        retries: of an utterance whose request failed in a way that may pass; its words would be lost.
        at_once: utterances of one call on their way at one time; more are refused.
        stream: interims while the service writes (gpt-4o-transcribe and its kin).
        min_level_dbfs: an utterance whose loudest 100 ms are below is not sent: recognisers invent words for silence.
    """

    max_utterance_ms: int = 120_000
    total_ms: int = 10_000
    retries: int = 1
    at_once: int = 4
    stream: bool = False
    min_level_dbfs: float = -60.0

    def __post_init__(self) -> None:
        if not 100 <= self.max_utterance_ms <= 600_000 or min(self.total_ms, self.at_once) <= 0 or self.retries < 0:
            raise ValueError(f"transcription: expected 100 to 600000 ms of audio and positive limits, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechOptions:
    """`voice` is used where the agent names none. `max_chars`: of one request; longer texts go out in pieces."""

    voice: str = "alloy"
    max_chars: int = 4096
