"""Speech "groq-tts": Orpheus at Groq. It answers in WAV only and takes 200 characters at a time (its model page)."""

from __future__ import annotations

from dataclasses import replace

from providers.groq.link import groq_link
from providers.openai.options import GroqOptions, SpeechOptions
from providers.openai.speech import MAX_SPEECH_BYTES, SpeechCore, SpeechDialect

ORPHEUS = "canopylabs/orpheus-v1-english"
ORPHEUS_SPEECH = SpeechOptions(voice="hannah", max_chars=190)  # with room for a style in brackets


class GroqSynthesizer(SpeechCore):
    """Synthesizer "groq-tts"; `options.model` is a speech model, e.g. ORPHEUS."""

    def __init__(self, options: GroqOptions, speech: SpeechOptions = ORPHEUS_SPEECH, *, name: str = "groq-tts") -> None:
        link = groq_link(name, options, max_bytes=MAX_SPEECH_BYTES)
        model = options.model if "gpt-oss" not in options.model else ORPHEUS
        dialect = SpeechDialect(file_format="wav", style="text")
        super().__init__(link, dialect, model, replace(speech, max_chars=min(speech.max_chars, 190)))
