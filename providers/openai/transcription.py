"""Speech to text, one request for each utterance: OpenAI's transcription endpoint by its SDK, and Groq's by its own.

    utterance (utterance.py) → silence? → WAV → Link (SDK) → Heard → Final

Guarantees: silence is not sent, and what a service invents for it is no Final with text; an utterance whose request
fails in a way that may pass is sent once more, within its time.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import orjson

from providers.base import S16_16K, AudioFormat, TranscriberConfig
from providers.check import Check
from providers.errors import (
    Phase,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from providers.openai.heard import MAX_TEXT_CHARS, Heard, confidence_of, loudest_dbfs, read_transcript
from providers.openai.limits import OnLimit
from providers.openai.link import Link, Refusal, openai_link
from providers.openai.options import OpenAiOptions, TranscriptionOptions
from providers.openai.sse import SseDecoder
from providers.openai.utterance import BYTES_PER_MS, RATE_HZ, UtteranceStream
from providers.openai.wave import wave_file

log = logging.getLogger(__name__)

MIN_BYTES = 100 * BYTES_PER_MS  # the services refuse less
MAX_PROMPT_CHARS = 800  # Whisper reads the last 224 tokens of a prompt
MAX_ANSWER_BYTES = 1 << 20
MAX_WAIT_MS = 400  # a service that asks for a longer pause is not asked again: the caller waits too


class TranscriptionCore:
    """Transcriber over one link. Belongs to one event loop."""

    def __init__(self, link: Link, model: str, options: TranscriptionOptions) -> None:
        self.name = link.name
        self.audio_formats: tuple[AudioFormat, ...] = (S16_16K,)
        self._link = link
        self._model = model
        self._options = options

    def tell_limits(self, on_limit: OnLimit) -> None:
        self._link.limits.tell(on_limit)

    def attach_nowait(self) -> None:
        self._link.lanes.attach_nowait()

    def detach_nowait(self) -> None:
        self._link.lanes.detach_nowait()

    async def open(self, config: TranscriberConfig) -> UtteranceStream:
        """One call's stream; nothing is sent before the first commit. Raises ProviderRejected."""
        if config.audio_format not in self.audio_formats:
            raise self._rejected(f"expected s16 at {RATE_HZ} Hz, not {config.audio_format}")
        language = config.language.split("-")[0].lower()
        if not re.fullmatch(r"[a-z]{2,3}", language):
            raise self._rejected(f"expected a language as BCP 47, got {config.language!r}")
        fields = self._fields(config, language)

        async def recognise(s16: bytes, show: Callable[[str], None]) -> Heard:
            return await self._recognise(s16, fields, show)

        return UtteranceStream(self.name, recognise, self._options)

    async def check(self, model: str = "") -> Check:
        """Reach the service and look for the model."""
        return await self._link.check_listed(model or self._model)

    async def aclose(self) -> None:
        await self._link.aclose()

    def _fields(self, config: TranscriberConfig, language: str) -> dict[str, Any]:
        model = config.model or self._model
        fields: dict[str, Any] = {"model": model, "language": language, "temperature": "0"}
        if "whisper" in model:
            fields["response_format"] = "verbose_json"  # segments with their probabilities
        else:
            fields |= {"response_format": "json", "include": ["logprobs"]}
            if self._options.stream:
                fields["stream"] = "true"
        prompt = ""
        for phrase in config.phrases:
            longer = f"{prompt}, {phrase}" if prompt else phrase
            if len(longer) > MAX_PROMPT_CHARS:
                break
            prompt = longer
        if prompt:
            fields["prompt"] = prompt
        return fields

    async def _recognise(self, s16: bytes, fields: dict[str, Any], show: Callable[[str], None]) -> Heard:
        """One utterance, with its retries, within `total_ms`. Raises ProviderError."""
        options = self._options
        if len(s16) < MIN_BYTES or loudest_dbfs(s16, RATE_HZ) < options.min_level_dbfs:
            return Heard("")
        file = wave_file(s16, RATE_HZ)
        limit = asyncio.timeout(options.total_ms / 1000)
        try:
            async with limit:
                left = options.retries
                while True:
                    try:
                        return await self._ask(file, fields, show)
                    except ProviderError as error:
                        wait_ms = getattr(error, "retry_after_ms", None) or 0
                        if left == 0 or not error.retryable or wait_ms > MAX_WAIT_MS:
                            raise
                        log.info("%s: asked again: %s", self.name, error)
                    left -= 1
                    await asyncio.sleep(wait_ms / 1000)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ProviderTimeout("total", options.total_ms, provider=self.name) from None

    async def _ask(self, file: bytes, fields: dict[str, Any], show: Callable[[str], None]) -> Heard:
        files = {"file": ("utterance.wav", file, "audio/wav")}
        phase: Phase = "first"

        def shown(text: str) -> None:
            nonlocal phase
            phase = "idle"
            show(text)

        try:
            response = await self._link.post("/audio/transcriptions", body=fields, files=files)
        except Refusal as refusal:
            raise refusal.error from None
        try:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return await self._follow(response, shown)
            return read_transcript(orjson.loads(await response.aread()))
        except self._link.errors as error:
            raise self._link.translate(error, phase) from None
        finally:
            await response.aclose()

    async def _follow(self, response: Any, show: Callable[[str], None]) -> Heard:
        transcript = StreamedTranscript(show)
        decoder = SseDecoder()
        async for part in response.aiter_raw():
            for data in decoder.feed(part):
                transcript.feed(data)
        for data in decoder.end():
            transcript.feed(data)
        return transcript.finish()

    def _rejected(self, what: str) -> ProviderRejected:
        return ProviderRejected(what, status=400, provider=self.name)


class OpenAITranscriber(TranscriptionCore):
    """Transcriber "openai-stt"; `options.model` is a transcription model."""

    def __init__(
        self, options: OpenAiOptions, how: TranscriptionOptions | None = None, *, name: str = "openai-stt"
    ) -> None:
        link = openai_link(name, options, max_bytes=MAX_ANSWER_BYTES)
        super().__init__(link, options.model, how or TranscriptionOptions())


class StreamedTranscript:
    """The events of a transcription that is streamed: text deltas, then all of it. Pure."""

    __slots__ = ("_done", "_show", "_text")

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._text = ""
        self._done: Heard | None = None

    def feed(self, data: bytes) -> None:
        """Raises ProviderError, or ValueError for what is no JSON."""
        if data == b"[DONE]":
            return
        event = orjson.loads(data)
        kind = event.get("type") if isinstance(event, dict) else None
        if kind == "transcript.text.delta" and isinstance(event.get("delta"), str):
            self._text += event["delta"]
            if len(self._text) > MAX_TEXT_CHARS:
                raise ProviderProtocolError(f"a transcription of more than {MAX_TEXT_CHARS} characters")
            self._show(self._text.strip())
        elif kind == "transcript.text.done" and isinstance(event.get("text"), str):
            if len(event["text"]) > MAX_TEXT_CHARS:
                raise ProviderProtocolError(f"a transcription of more than {MAX_TEXT_CHARS} characters")
            self._done = Heard(event["text"].strip(), confidence_of(event.get("logprobs")))
        elif kind == "error" or (isinstance(event, dict) and event.get("error")):
            raise ProviderUnavailable("an error in the stream")

    def finish(self) -> Heard:
        if self._done is None:
            raise ProviderProtocolError("the stream ended before the transcription did")
        return self._done
