"""Fixed texts of the agents, rendered ahead and kept in memory: they start at once and need no provider.

A text that its own voice could not speak is kept in another's, as a stand-in: played while there is nothing better,
never taken for the agent's voice, and rendered again when that is back (server/upkeep.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing

from providers.base import S16_16K, AudioChunk, AudioFormat, SpeechRequest, Synthesizer
from providers.deadline import with_deadlines
from providers.errors import ProviderError, ProviderRejected
from providers.health import OUR_FAULT
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
    texts += [tool.filler for tool in settings.tools]
    if limits.fallback_number:
        texts.append(stock.hand_over(settings))
    return [text for text in texts if text]


class Clip:
    """The sound of one text, as its chunks came; their formats differ when the provider changed on the way.

    `is_stand_in`: some of it is in another voice than the agent's.
    """

    __slots__ = ("_bytes", "chunks", "is_stand_in")

    def __init__(self, chunks: Sequence[AudioChunk], *, is_stand_in: bool = False) -> None:
        self.chunks = tuple(chunks)
        self.is_stand_in = is_stand_in or any(one.is_stand_in for one in chunks)
        self._bytes = sum(len(one.audio) for one in chunks)

    def __len__(self) -> int:
        """Bytes of audio."""
        return self._bytes


class Clips:
    """Least recently used clips go first. A clip belongs to one synthesizer and one way of speaking.

    Attributes:
        stand_ins: how many of the clips are.
    """

    __slots__ = ("_bytes", "_clips", "_max_bytes", "stand_ins")

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._clips: OrderedDict[tuple[str, SpeechRequest], Clip] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes
        self.stand_ins = 0

    def get(self, synthesizer: Synthesizer, request: SpeechRequest) -> Clip | None:
        key = (synthesizer.name, request)
        clip = self._clips.get(key)
        if clip is not None:
            self._clips.move_to_end(key)
        return clip

    def put(self, synthesizer: Synthesizer, request: SpeechRequest, clip: Clip) -> None:
        """Keep `clip`, unless it is a stand-in for one that is there in the agent's voice."""
        key = (synthesizer.name, request)
        old = self._clips.get(key)
        if old is not None:
            if clip.is_stand_in and not old.is_stand_in:
                return
            self._count(self._clips.pop(key), -1)
        self._clips[key] = clip
        self._count(clip, 1)
        while self._bytes > self._max_bytes and self._clips:
            _, gone = self._clips.popitem(last=False)
            self._count(gone, -1)

    def covers(self, synthesizer: Synthesizer, settings: AgentSettings) -> bool:
        """Whether every fixed text of this agent is in memory, in whoever's voice."""
        return all((synthesizer.name, speech_request(settings, one)) in self._clips for one in fixed_texts(settings))

    def has_stand_in(self, synthesizer: Synthesizer, settings: AgentSettings) -> bool:
        """Whether a fixed text of this agent is in another voice than `synthesizer`'s."""
        return bool(self._stand_ins(synthesizer, settings))

    async def prepare(
        self, synthesizer: Synthesizer, settings: AgentSettings, understudy: Synthesizer | None = None
    ) -> list[str]:
        """Render what is missing or a stand-in; returns what is not in the agent's voice now, one line each.

        `understudy` speaks those instead, in the language's usual voice: another voice is better than none. After a
        failure that the next text would share, `synthesizer` is asked no more.
        """
        failed = []
        is_asked = True
        for text in fixed_texts(settings):
            request = speech_request(settings, text)
            clip = self.get(synthesizer, request)
            if clip is not None and not clip.is_stand_in:
                continue
            if is_asked:
                try:
                    clip = await _render(synthesizer, request)
                    self.put(synthesizer, request, clip)
                    if clip.is_stand_in:
                        failed.append(f"{text[:40]!r}: a fallback spoke it")
                    continue
                except ProviderError as error:
                    failed.append(f"{text[:40]!r}: {error}")
                    is_asked = _is_of_the_text(error)
            if understudy is not None and clip is None:
                plain = SpeechRequest(text=text, language=settings.language)
                try:
                    self.put(synthesizer, request, await _render(understudy, plain, is_stand_in=True))
                except ProviderError as other:
                    failed.append(f"{text[:40]!r}: {other}")
        return failed

    async def renew(self, synthesizer: Synthesizer, settings: AgentSettings) -> int:
        """Render the stand-ins of this agent again, one after the other; returns how many are in its own voice now.

        Raises:
            ProviderError: a failure that the next text would share. The other stand-ins are as they were.
        """
        renewed = 0
        for request in self._stand_ins(synthesizer, settings):
            try:
                clip = await _render(synthesizer, request)
            except ProviderError as error:
                if not _is_of_the_text(error):
                    raise
                continue
            self.put(synthesizer, request, clip)
            renewed += not clip.is_stand_in
        return renewed

    def _stand_ins(self, synthesizer: Synthesizer, settings: AgentSettings) -> list[SpeechRequest]:
        requests = [speech_request(settings, text) for text in fixed_texts(settings)]
        clips = [(one, self._clips.get((synthesizer.name, one))) for one in requests]
        return [one for one, clip in clips if clip is not None and clip.is_stand_in]

    def _count(self, clip: Clip, sign: int) -> None:
        self._bytes += sign * len(clip)
        self.stand_ins += sign * clip.is_stand_in


def _is_of_the_text(error: ProviderError) -> bool:
    """Whether it says something of this text only: the next one may be spoken."""
    return isinstance(error, ProviderRejected) and error.status in OUR_FAULT


async def _render(synthesizer: Synthesizer, request: SpeechRequest, *, is_stand_in: bool = False) -> Clip:
    stream = with_deadlines(
        synthesizer.stream(request),
        first_ms=RENDER_FIRST_MS,
        idle_ms=RENDER_IDLE_MS,
        total_ms=RENDER_TOTAL_MS,
        provider=synthesizer.name,
    )
    async with aclosing(stream) as events:
        chunks = [one async for one in events if isinstance(one, AudioChunk)]
    return Clip(chunks, is_stand_in=is_stand_in)
