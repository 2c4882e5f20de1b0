"""Fixed texts of the agents, rendered ahead and kept in memory: they start at once and need no provider."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import aclosing

from providers.base import AudioChunk, AudioFormat, SpeechRequest, Synthesizer
from providers.deadline import with_deadlines
from providers.errors import ProviderError
from server.agent.settings import AgentSettings

# A clip of 5 s at 16 kHz s16 takes 160 KB: about 400 of them.
MAX_BYTES = 64 * 1024 * 1024
RENDER_FIRST_MS, RENDER_IDLE_MS, RENDER_TOTAL_MS = 5_000, 5_000, 20_000


def speech_request(settings: AgentSettings, text: str, caller: str = "") -> SpeechRequest:
    """How this agent says `text`."""
    tts = settings.tts
    return SpeechRequest(
        text=text,
        language=settings.language,
        voice=tts.voice,
        style=tts.style,
        rate_percent=tts.rate_percent,
        pitch_percent=tts.pitch_percent,
        volume_percent=tts.volume_percent,
        caller=caller,
    )


def fixed_texts(settings: AgentSettings) -> list[str]:
    """Every text that this agent may say without asking a model."""
    limits = settings.limits
    texts = [settings.opening.text, *limits.idle_prompts, limits.idle_goodbye, limits.goodbye]
    return [text for text in (*texts, limits.apology, limits.max_duration_notice) if text]


class Clips:
    """Least recently used clips go first. A clip belongs to one synthesizer and one way of speaking."""

    __slots__ = ("_bytes", "_clips", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._clips: OrderedDict[tuple[str, SpeechRequest], bytes] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    def get(self, synthesizer: Synthesizer, request: SpeechRequest) -> tuple[AudioFormat, bytes] | None:
        key = (synthesizer.name, request)
        audio = self._clips.get(key)
        if audio is None:
            return None
        self._clips.move_to_end(key)
        return synthesizer.audio_format, audio

    def put(self, synthesizer: Synthesizer, request: SpeechRequest, audio: bytes) -> None:
        key = (synthesizer.name, request)
        self._bytes += len(audio) - len(self._clips.pop(key, b""))
        self._clips[key] = audio
        while self._bytes > self._max_bytes and self._clips:
            _, gone = self._clips.popitem(last=False)
            self._bytes -= len(gone)

    async def prepare(self, synthesizer: Synthesizer, settings: AgentSettings) -> list[str]:
        """Render what is missing; returns what could not be rendered, one line each."""
        failed = []
        for text in fixed_texts(settings):
            request = speech_request(settings, text)
            if self.get(synthesizer, request) is None:
                try:
                    self.put(synthesizer, request, await _render(synthesizer, request))
                except ProviderError as error:
                    failed.append(f"{text[:40]!r}: {error}")
        return failed


async def _render(synthesizer: Synthesizer, request: SpeechRequest) -> bytes:
    stream = with_deadlines(
        synthesizer.stream(request),
        first_ms=RENDER_FIRST_MS,
        idle_ms=RENDER_IDLE_MS,
        total_ms=RENDER_TOTAL_MS,
        provider=synthesizer.name,
    )
    async with aclosing(stream) as events:
        return b"".join([one.audio async for one in events if isinstance(one, AudioChunk)])
