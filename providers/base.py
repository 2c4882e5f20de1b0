"""The three services that a conversation needs, as protocols.

Every provider streams, is cancelled by closing its stream (`aclose()` on the iterator, effective within one
20 ms frame) and raises only `providers.errors.ProviderError`. Deadlines belong to the caller: see deadline.py.
Nothing here knows a call; audio enters and leaves in the format that the provider names, and the native path
converts on either side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Encoding = Literal["s16", "pcmu", "pcma"]


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Mono audio. `s16` is host order; `pcmu` and `pcma` are G.711 codes at 8000 Hz."""

    encoding: Encoding
    rate_hz: int

    @property
    def bytes_per_sample(self) -> int:
        return 2 if self.encoding == "s16" else 1


S16_16K = AudioFormat("s16", 16000)
PCMU_8K = AudioFormat("pcmu", 8000)
PCMA_8K = AudioFormat("pcma", 8000)


class Attached(Protocol):
    """A service that keeps connections ready for the calls that may need it.

    `attach_nowait` says that a call is about to begin (the phone rings), `detach_nowait` that it is over; in between
    the provider keeps a connection open for it, beside those in use. Neither waits or fails: a service that cannot be
    reached says so at the first request. Providers without connections do nothing.
    """

    def attach_nowait(self) -> None: ...

    def detach_nowait(self) -> None: ...


# ── Speech to text ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Interim:
    """A transcript of `utterance_no` that may change and replaces the one before it."""

    utterance_no: int
    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The transcript of `utterance_no`; empty text means that nothing was understood.

    `start_ms`, `end_ms` are media time from the first fed sample; None when the provider does not say.
    """

    utterance_no: int
    text: str
    start_ms: int | None = None
    end_ms: int | None = None
    confidence: float | None = None


TranscriptEvent = Interim | Final


Profanity = Literal["raw", "masked", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriberConfig:
    """How one call is recognised.

    Args:
        audio_format: what will be fed, one of the transcriber's `audio_formats`.
        language: BCP 47.
        phrases: words to expect. phrase_weight: how much they weigh, 0 (not at all) to 2, where the provider has that.
        model: the provider's own name of a model or custom endpoint; empty is its default.
        profanity: whether swear words come as said, masked or left out.
        stable_words: how often an interim must repeat a word before it is shown; 0 leaves it to the provider.
        segmentation_silence_ms: silence after which a provider that segments by itself ends a phrase.
        initial_silence_ms: silence at the start after which it gives up; 0 is never.
        caller: identifies the call in logs and scripts.
    """

    audio_format: AudioFormat = S16_16K
    language: str = "en-US"
    phrases: Sequence[str] = ()
    phrase_weight: float = 1.0
    model: str = ""
    profanity: Profanity = "raw"
    stable_words: int = 0
    segmentation_silence_ms: int = 800
    initial_silence_ms: int = 0
    caller: str = ""


class TranscriptStream(Protocol):
    """One call's recognition. Audio is pushed; events are iterated. No method but `aclose` may wait.

    The caller of this protocol segments the audio (our VAD decides where an utterance ends): audio of an
    utterance is fed between `begin_nowait(n)` and `commit_nowait(n)`; what is fed outside is silence that a
    provider with its own segmentation may use and others drop. Each committed utterance yields exactly one Final.
    """

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        """The caller began to speak at media time `start_ms`; the audio that follows includes the pre-roll."""

    def feed_nowait(self, audio: bytes) -> None:
        """Take audio in the format of the stream's config. Never blocks: bounded, drops the oldest and counts."""

    def commit_nowait(self, utterance_no: int) -> None:
        """The utterance is over: finalise now."""

    def resume_nowait(self, utterance_no: int) -> None:
        """The caller went on before the turn was taken: the utterance is open again and its Final is void."""

    def __aiter__(self) -> AsyncIterator[TranscriptEvent]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Transcriber(Attached, Protocol):
    """`audio_formats` are those that `open` takes, the cheapest for the provider first."""

    name: str
    audio_formats: tuple[AudioFormat, ...]

    async def open(self, config: TranscriberConfig) -> TranscriptStream:
        """Connect (while the phone rings). Raises ProviderError."""

    async def aclose(self) -> None: ...


# ── Language model ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the JSON text as the model wrote it: parse and validate before use."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the model context. `tool_call_id` belongs to role "tool", `tool_calls` to "assistant"."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What to ask a model.

    Args:
        messages: system text first, then the conversation; a "tool" message follows its call.
        temperature: 0 to 2. frequency_penalty, presence_penalty: -2 to 2, 0 is none.
        max_tokens: longest reply.
        reasoning_effort: none, minimal, low, medium or high where the model reasons; empty is the model's default.
        caller: identifies the call in logs and scripts.
        script: the agent's dialogue script for the offline engine; models of other providers ignore it.
    """

    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    model: str = ""
    temperature: float = 0.4
    max_tokens: int = 300
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    reasoning_effort: str = ""
    language: str = "en-US"
    caller: str = ""
    script: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ChatDone:
    """Last event of a stream. `reason`: stop, length, tool_calls or content_filter.

    `cached_tokens` are those of the prompt that the provider had seen before; `provider` is who answered.
    """

    reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    provider: str = ""


ChatEvent = TextDelta | ToolCall | ChatDone


@runtime_checkable
class ChatModel(Attached, Protocol):
    name: str

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Text as it is generated, whole tool calls, then ChatDone. An async generator: `aclose()` cancels."""

    async def aclose(self) -> None: ...


# ── Text to speech ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """One clause and how to say it.

    Args:
        text: plain text; the provider escapes it.
        audio_format: wanted, because nothing need be converted then; a provider may answer in another.
        voice, style: the provider's own names; empty is the language's default and no style.
        style_degree: 0.01 to 2, 1 is the style as it is.
        rate_percent, pitch_percent: relative to the voice, 0 is unchanged. volume_percent: 0 to 100.
        lexicon_url: pronunciation lexicon (W3C PLS), fetched by the provider; empty is none.
        caller: identifies the call in logs and scripts.
    """

    text: str
    audio_format: AudioFormat = S16_16K
    language: str = "en-US"
    voice: str = ""
    style: str = ""
    style_degree: float = 1.0
    rate_percent: int = 0
    pitch_percent: int = 0
    volume_percent: int = 100
    lexicon_url: str = ""
    caller: str = ""


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Audio of any length of whole samples, no header. The format may change within a stream when the provider does.

    `is_stand_in`: another voice than the one that was asked for first speaks here, because that one failed.
    """

    audio: bytes
    audio_format: AudioFormat
    is_stand_in: bool = False


@dataclass(frozen=True, slots=True)
class WordMark:
    """The word at characters [start, end) of the text is spoken from `offset_ms` on."""

    offset_ms: int
    start: int
    end: int


SpeechEvent = AudioChunk | WordMark


@runtime_checkable
class Synthesizer(Attached, Protocol):
    name: str

    def stream(self, request: SpeechRequest) -> AsyncIterator[SpeechEvent]:
        """Audio as it is rendered. An async generator: `aclose()` cancels."""

    async def aclose(self) -> None: ...
