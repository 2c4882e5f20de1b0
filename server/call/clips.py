"""Fixed texts of the agents, rendered ahead and kept in memory: they start at once and need no provider."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing

from providers.base import S16_16K, AudioChunk, AudioFormat, SpeechRequest, Synthesizer
from providers.deadline import with_deadlines
from providers.errors import ProviderError
from server.agent import stock
from server.agent.settings import AgentSettings

# A clip of 5 s at 16 kHz s16 takes 160 KB: about 400 of them.
MAX_BYTES = 64 * 1024 * 1024
RENDER_FIRST_MS, RENDER_IDLE_MS, RENDER_TOTAL_MS = 5_000, 5_000, 20_000


def speech_request(
    settings: AgentSettings, text: str, caller: str = "", audio_format: AudioFormat = S16_16K
) -> SpeechRequest:
    """How this agent says `text`, in the carrier's own format if the provider has it."""
    tts = settings.tts
    return SpeechRequest(
        text=text,
        audio_format=audio_format,
        language=settings.language,
        voice=tts.voice,
        style=tts.style,
        style_degree=tts.style_degree,
        rate_percent=tts.rate_percent,
        pitch_percent=tts.pitch_percent,
        volume_percent=tts.volume_percent,
        lexicon_url=tts.lexicon_url,
        caller=caller,
    )


def fixed_texts(settings: AgentSettings) -> list[str]:
    """Every text that this agent may say without asking a model."""
    limits = settings.limits
    texts = [settings.opening.text, *limits.idle_prompts, limits.idle_goodbye, limits.goodbye, *limits.fillers]
    texts += [stock.apology(settings), stock.farewell(settings), limits.max_duration_notice]
    if limits.fallback_number:
        texts.append(stock.hand_over(settings))
    return [text for text in texts if text]


class Clip:
    """The sound of one text, as its chunks came; their formats differ when the provider changed on the way."""

    __slots__ = ("_bytes", "chunks")

    def __init__(self, chunks: Sequence[AudioChunk]) -> None:
        self.chunks = tuple(chunks)
        self._bytes = sum(len(one.audio) for one in chunks)

    def __len__(self) -> int:
        """Bytes of audio."""
        return self._bytes


class Clips:
    """Least recently used clips go first. A clip belongs to one synthesizer and one way of speaking."""

    __slots__ = ("_bytes", "_clips", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._clips: OrderedDict[tuple[str, SpeechRequest], Clip] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    def get(self, synthesizer: Synthesizer, request: SpeechRequest) -> Clip | None:
        key = (synthesizer.name, request)
        clip = self._clips.get(key)
        if clip is not None:
            self._clips.move_to_end(key)
        return clip

    def put(self, synthesizer: Synthesizer, request: SpeechRequest, clip: Clip) -> None:
        key = (synthesizer.name, request)
        old = self._clips.pop(key, None)
        self._bytes += len(clip) - (len(old) if old is not None else 0)
        self._clips[key] = clip
        while self._bytes > self._max_bytes and self._clips:
            _, gone = self._clips.popitem(last=False)
            self._bytes -= len(gone)

    def covers(self, synthesizer: Synthesizer, settings: AgentSettings) -> bool:
        """Whether every fixed text of this agent is in memory, in whoever's voice."""
        return all((synthesizer.name, speech_request(settings, one)) in self._clips for one in fixed_texts(settings))

    async def prepare(
        self, synthesizer: Synthesizer, settings: AgentSettings, understudy: Synthesizer | None = None
    ) -> list[str]:
        """Render what is missing; returns what could not be rendered by `synthesizer`, one line each.

        `understudy` speaks those instead, in the language's usual voice: another voice is better than none.
        """
        failed = []
        for text in fixed_texts(settings):
            request = speech_request(settings, text)
            if self.get(synthesizer, request) is not None:
                continue
            try:
                self.put(synthesizer, request, await _render(synthesizer, request))
            except ProviderError as error:
                failed.append(f"{text[:40]!r}: {error}")
                if understudy is not None:
                    plain = SpeechRequest(text=text, language=settings.language)
                    try:
                        self.put(synthesizer, request, await _render(understudy, plain))
                    except ProviderError as other:
                        failed.append(f"{text[:40]!r}: {other}")
        return failed


async def _render(synthesizer: Synthesizer, request: SpeechRequest) -> Clip:
    stream = with_deadlines(
        synthesizer.stream(request),
        first_ms=RENDER_FIRST_MS,
        idle_ms=RENDER_IDLE_MS,
        total_ms=RENDER_TOTAL_MS,
        provider=synthesizer.name,
    )
    async with aclosing(stream) as events:
        return Clip([one async for one in events if isinstance(one, AudioChunk)])
