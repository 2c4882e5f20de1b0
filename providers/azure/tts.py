"""Text to speech by Azure Speech: a clause in, sound in the wanted form out while it is rendered.

    request ─► SSML ─► a warm line of the pool ─ ws ─► service
    AudioChunk, WordMark ◄─ clause's queue ◄─ SdkBridge ◄─ SDK's threads

Closing the stream ends it at once for the caller; the SDK is stopped behind its back, because stopping costs it its
socket and up to half a second, and the pool makes another line ready. Sound is checked before anybody hears it: a
header, half a sample, none at all, or far more than the text can need is an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from providers.azure.options import AzureSpeechOptions
from providers.azure.pool import LinePool
from providers.azure.sdk_synthesizer import OUTPUT_FORMATS, Ended, LineKey, SdkLine, Sound, Spoken, SynthesizerEvent
from providers.azure.ssml import WordFinder, build_ssml, speakable, voice_of
from providers.azure.timeline import TICKS_PER_MS
from providers.base import S16_16K, AudioChunk, AudioFormat, SpeechEvent, SpeechRequest, WordMark
from providers.errors import ProviderError, ProviderProtocolError, ProviderUnavailable

# The slowest rate needs some 400 ms for a character; beside it stands a pause of half a minute.
MAX_MS_PER_CHAR, MAX_PAUSE_MS = 1000, 30_000
# Containers that a raw format must not begin with: RIFF, Ogg, Matroska, MP3 with tags.
HEADERS = (b"RIFF", b"OggS", b"\x1aE\xdf\xa3", b"ID3")


class AzureSynthesizer:
    """Synthesizer "azure", or another `name`. Belongs to one event loop."""

    __slots__ = ("_options", "name", "pool")

    def __init__(self, options: AzureSpeechOptions, *, name: str = "azure") -> None:
        self.name = name
        self.pool = LinePool(options, self.name)
        self._options = options

    def attach_nowait(self) -> None:
        """Keep one more synthesizer connected."""
        self.pool.attach_nowait()

    def detach_nowait(self) -> None:
        self.pool.detach_nowait()

    async def stream(self, request: SpeechRequest) -> AsyncGenerator[SpeechEvent, None]:
        """Speak `request.text`; nothing speakable gives no audio.

        Raises:
            ProviderRejected: no voice, SSML of more than 64 KiB, key, quota; nothing was heard.
            ProviderProtocolError: sound that cannot be what was asked for.
            ProviderUnavailable: no connection, 5xx, or it broke in the middle.
        """
        if not any(character.isalnum() for character in request.text):
            return
        fmt = request.audio_format if request.audio_format in OUTPUT_FORMATS else S16_16K
        # The streamed input has no degree of a style: such a clause goes as SSML.
        is_streamed = self._options.text_stream and not (request.style and request.style_degree != 1)
        document = build_ssml(request, provider=self.name, telephone_effect=self._options.telephone_effect)
        voice = voice_of(request, self.name)
        line = await self.pool.take(LineKey(fmt, voice, request.language) if is_streamed else LineKey(fmt))
        clause = _Clause(request.text, fmt, self.name)
        try:
            try:
                if is_streamed:
                    line.speak_streamed(request, clause.on_event)
                else:
                    line.speak_ssml(document, clause.on_event)
            except RuntimeError as error:
                raise ProviderUnavailable(f"the SDK refused: {error!r:.200}", provider=self.name) from error
            while (item := await clause.next()) is not None:
                yield item
        finally:
            self._put_back(line, clause)

    async def aclose(self) -> None:
        self.pool.close_nowait()

    def _put_back(self, line: SdkLine, clause: _Clause) -> None:
        if clause.is_complete:
            line.finish(asyncio.get_running_loop().time())
            self.pool.give_back(line)
        else:
            self.pool.discard(line)


class _Clause:
    """What came for one clause and was not taken yet. Bounded by what its text can need."""

    __slots__ = ("_came_bytes", "_error", "_finder", "_fmt", "_half", "_is_over", "_items", "_left_bytes", "_provider",
                 "_wake")  # fmt: skip

    def __init__(self, text: str, fmt: AudioFormat, provider: str) -> None:
        self._fmt = fmt
        self._provider = provider
        limit_ms = MAX_PAUSE_MS + MAX_MS_PER_CHAR * len(text)
        self._left_bytes = limit_ms * fmt.rate_hz * fmt.bytes_per_sample // 1000
        self._came_bytes = 0
        self._half = b""
        self._finder = WordFinder(speakable(text))
        self._items: deque[SpeechEvent] = deque()
        self._is_over = False
        self._error: ProviderError | None = None
        self._wake = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Whether the service said all it had to say, and it was good."""
        return self._is_over and self._error is None

    def on_event(self, event: SynthesizerEvent) -> None:
        if self._is_over:
            return
        match event:
            case Sound(audio):
                self._on_sound(audio)
            case Spoken(word, offset_ticks):
                place = self._finder.find(word)
                if place is not None:
                    self._items.append(WordMark(offset_ticks // TICKS_PER_MS, *place))
            case Ended(error):
                self._is_over = True
                self._error = error or self._incomplete()
        self._wake.set()

    def _on_sound(self, audio: bytes) -> None:
        if not self._came_bytes and audio.startswith(HEADERS):
            self._refuse(f"expected raw audio, got a header {audio[:4]!r}")
            return
        self._came_bytes += len(audio)
        self._left_bytes -= len(audio)
        if self._left_bytes < 0:
            self._refuse(f"more than {self._came_bytes} bytes for a text that is far shorter")
            return
        if self._half:
            audio = self._half + audio
        whole = len(audio) - len(audio) % self._fmt.bytes_per_sample
        audio, self._half = audio[:whole], audio[whole:]
        second = self._fmt.rate_hz * self._fmt.bytes_per_sample
        self._items.extend(AudioChunk(audio[at : at + second], self._fmt) for at in range(0, len(audio), second))

    def _incomplete(self) -> ProviderError | None:
        if not self._came_bytes:
            return ProviderProtocolError("no audio for a text", provider=self._provider)
        if self._half:
            return ProviderProtocolError("the audio ends in half a sample", provider=self._provider)
        return None

    def _refuse(self, message: str) -> None:
        self._is_over = True
        self._error = ProviderProtocolError(message, provider=self._provider)

    async def next(self) -> SpeechEvent | None:
        """The next event, None at the end. Raises ProviderError after what came before it."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._items.popleft()
