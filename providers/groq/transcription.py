"""Transcriber "groq-stt": Whisper at Groq, one request for each utterance."""

from __future__ import annotations

from providers.groq.link import groq_link
from providers.openai.options import GroqOptions, TranscriptionOptions
from providers.openai.transcription import MAX_ANSWER_BYTES, TranscriptionCore

WHISPER = "whisper-large-v3-turbo"


class GroqTranscriber(TranscriptionCore):
    """`options.model` is a transcription model, e.g. WHISPER."""

    def __init__(
        self, options: GroqOptions, how: TranscriptionOptions | None = None, *, name: str = "groq-stt"
    ) -> None:
        link = groq_link(name, options, max_bytes=MAX_ANSWER_BYTES)
        super().__init__(link, options.model, how or TranscriptionOptions())
