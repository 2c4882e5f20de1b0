"""Text to speech over HTTP: OpenAI's speech endpoint by its SDK, and what else speaks like it.

    SpeechRequest → Link (SDK) → SampleReader → gain → AudioChunk of at most 200 ms

Guarantees: raw samples only, in whole samples, whatever the service puts around them; an answer that is far longer or
shorter than its text can be is an error; closing the stream drops its connection at once. Rate and style are the
service's, volume is ours; pitch and lexicon it does not have.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from providers.base import AudioChunk, AudioFormat, SpeechEvent, SpeechRequest
from providers.check import Check
from providers.errors import ProviderProtocolError
from providers.openai.limits import OnLimit
from providers.openai.link import Link, Refusal, openai_link
from providers.openai.options import OpenAiOptions, SpeechOptions
from providers.openai.wave import SampleReader

log = logging.getLogger(__name__)

RATE_HZ = 24_000  # of OpenAI's `pcm`, its API reference
CHUNK_MS = 200
MAX_SPEECH_BYTES = 64 << 20
CHARS_PER_S = 15.0  # of English and Spanish speech at its usual rate
SHORTEST, LONGEST = 0.2, 4.0  # times the expected length; numbers are spoken much longer than they are written
MARGIN_S = 5.0
_NO_SAMPLES = re.compile(r"json|html|text/|mpeg|mp3|ogg|opus|flac|aac")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechDialect:
    """`file_format` is asked for; `style` is how the service is told of a style: by instructions, or in the text."""

    file_format: str = "pcm"
    style: str = "instructions"


class SpeechCore:
    """Synthesizer over one link. Belongs to one event loop."""

    def __init__(self, link: Link, dialect: SpeechDialect, model: str, options: SpeechOptions) -> None:
        self.name = link.name
        self._link = link
        self._dialect = dialect
        self._model = model
        self._options = options

    def tell_limits(self, on_limit: OnLimit) -> None:
        self._link.limits.tell(on_limit)

    def attach_nowait(self) -> None:
        self._link.lanes.attach_nowait()

    def detach_nowait(self) -> None:
        self._link.lanes.detach_nowait()

    async def stream(self, request: SpeechRequest) -> AsyncGenerator[SpeechEvent, None]:
        """Speak `request.text`; nothing speakable gives no audio. Raises ProviderError."""
        for text in pieces(request.text, self._options.max_chars):
            body = self._body(request, text)
            try:
                response = await self._link.post("/audio/speech", body=body)
            except Refusal as refusal:
                raise refusal.error from None
            heard_s = 0.0
            expected_s = len(text) / CHARS_PER_S / body.get("speed", 1.0)
            try:
                self._check_kind(response)
                reader = SampleReader(RATE_HZ)
                raw = aiter(response.aiter_raw())
                part: bytes | None = b""
                while part is not None:
                    part = await self._next(raw, heard_s > 0)
                    samples = reader.feed(part) if part is not None else reader.end()
                    for chunk in _chunks(samples, reader.rate_hz, request.volume_percent):
                        heard_s += len(chunk.audio) / 2 / chunk.audio_format.rate_hz
                        yield chunk
                    if heard_s > LONGEST * expected_s + MARGIN_S:
                        raise self._bad(f"more than {heard_s:.0f} s of audio for {len(text)} characters")
            finally:
                await response.aclose()
            if heard_s < SHORTEST * (expected_s - 1):
                raise self._bad(f"{heard_s:.2f} s of audio for {len(text)} characters")

    async def check(self, model: str = "") -> Check:
        """Reach the service and look for the model."""
        return await self._link.check_listed(model or self._model)

    async def aclose(self) -> None:
        await self._link.aclose()

    def _body(self, request: SpeechRequest, text: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "voice": request.voice or self._options.voice,
            "input": text,
            "response_format": self._dialect.file_format,
        }
        if request.rate_percent:
            body["speed"] = round(min(max(1 + request.rate_percent / 100, 0.25), 4.0), 2)
        if request.style and self._dialect.style == "text":
            body["input"] = f"[{request.style}] {text}"
        elif request.style and not self._model.startswith("tts-1"):
            # The older models take no instructions.
            degree = "slightly " if request.style_degree < 0.75 else "very " if request.style_degree > 1.5 else ""
            body["instructions"] = f"Speak in a {degree}{request.style} tone."
        return body

    def _check_kind(self, response: Any) -> None:
        kind = response.headers.get("content-type", "").lower()
        if _NO_SAMPLES.search(kind):
            raise self._bad(f"expected samples, got {kind[:40]}")

    async def _next(self, raw: AsyncIterator[bytes], is_begun: bool) -> bytes | None:
        try:
            return await anext(raw, None)
        except self._link.errors as error:
            raise self._link.translate(error, "idle" if is_begun else "first") from None

    def _bad(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(what, provider=self.name)


class OpenAISynthesizer(SpeechCore):
    """Synthesizer "openai-tts"."""

    def __init__(
        self, options: OpenAiOptions, speech: SpeechOptions | None = None, *, name: str = "openai-tts"
    ) -> None:
        link = openai_link(name, options, max_bytes=MAX_SPEECH_BYTES)
        super().__init__(link, SpeechDialect(), options.model, speech or SpeechOptions())


def pieces(text: str, max_chars: int) -> Iterator[str]:
    """`text` in pieces of at most `max_chars`, cut after a sentence, else at a space. Nothing to say: no piece."""
    text = text.strip()
    while len(text) > max_chars:
        head = text[: max_chars + 1]
        at = max(head.rfind(mark) + 1 for mark in (". ", "? ", "! ", "; ", ", "))
        at = at if at > 0 else head.rfind(" ")
        at = at if at > 0 else max_chars
        yield text[:at].strip()
        text = text[at:].strip()
    if any(c.isalnum() for c in text):
        yield text


def _chunks(samples: bytes, rate_hz: int, volume_percent: int) -> Iterator[AudioChunk]:
    step = rate_hz * CHUNK_MS // 1000 * 2
    audio_format = AudioFormat("s16", rate_hz)
    for at in range(0, len(samples), step):
        chunk = samples[at : at + step]
        if volume_percent != 100:
            quiet = np.frombuffer(chunk, "<i2") * (volume_percent / 100)
            chunk = quiet.astype("<i2").tobytes()
        yield AudioChunk(chunk, audio_format)
