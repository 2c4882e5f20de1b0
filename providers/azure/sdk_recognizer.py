"""One SpeechRecognizer of the SDK, with its stream, its connection and its callbacks.

Everything of the vendor's is read in the vendor's threads and leaves them as our own small types. Finals come from the
result's JSON: the Python package copies `text` through a buffer of 2048 bytes and cuts what is longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import azure.cognitiveservices.speech as speech
import orjson

from providers.azure.assembly import Hypothesis, Phrase, Word
from providers.azure.failure import failure
from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import Native, speech_config
from providers.base import AudioFormat, TranscriberConfig
from providers.errors import ProviderError
from providers.sdk_thread import Channel

MAX_PHRASES = 500  # of a phrase list, by the service
# The service takes 100 to 5000 ms.
SEGMENTATION_MS = (100, 5000)
FORMATS: dict[AudioFormat, tuple[int, speech.AudioStreamWaveFormat]] = {
    AudioFormat("pcmu", 8000): (8, speech.AudioStreamWaveFormat.MULAW),
    AudioFormat("pcma", 8000): (8, speech.AudioStreamWaveFormat.ALAW),
    AudioFormat("s16", 16000): (16, speech.AudioStreamWaveFormat.PCM),
    AudioFormat("s16", 8000): (16, speech.AudioStreamWaveFormat.PCM),
}
PROFANITY = {
    "raw": speech.ProfanityOption.Raw,
    "masked": speech.ProfanityOption.Masked,
    "removed": speech.ProfanityOption.Removed,
}
# The SDK sends audio in pieces of 100 ms; after 5 s it would send a replay at twice real time only.
UNTHROTTLED_MS = 12_000
# Of one final; the service ends a phrase after a minute at most. An interim is cut at 2048 bytes by the Python package.
MAX_TEXT_CHARS = 16_000
UNTHROTTLED = "SPEECH-TransmitLengthBeforeThrottleMs"


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is open and the account accepted."""


@dataclass(frozen=True, slots=True)
class SpeechNoticed:
    """The service hears somebody speak, or no longer."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The session is over; `error` is None when it ended as streams do."""

    error: ProviderError | None = None


RecognizerEvent = Connected | SpeechNoticed | Hypothesis | Phrase | Stopped


class SdkRecognizer:
    """Recognises one endless stream. Its events come by the channel.

    `write` and `commit` copy and return; they are for the event loop. The rest of the life is in other threads.
    """

    __slots__ = ("_native", "_recognizer", "_stream")

    def __init__(
        self, stream: speech.audio.PushAudioInputStream, recognizer: speech.SpeechRecognizer, native: Native
    ) -> None:
        self._stream: speech.audio.PushAudioInputStream | None = stream
        self._recognizer: speech.SpeechRecognizer | None = recognizer
        self._native = native

    @classmethod
    def start(
        cls,
        options: AzureSpeechOptions,
        token: str,
        config: TranscriberConfig,
        channel: Channel[RecognizerEvent],
        provider: str,
    ) -> SdkRecognizer:
        """Thread: a builder. Create everything and begin to connect; Connected or Stopped says how that went.

        Raises:
            RuntimeError, ValueError: the SDK refuses the configuration.
        """
        bits, wave = FORMATS[config.audio_format]
        form = speech.audio.AudioStreamFormat(
            samples_per_second=config.audio_format.rate_hz, bits_per_sample=bits, channels=1, wave_stream_format=wave
        )
        stream = speech.audio.PushAudioInputStream(form)
        audio = speech.audio.AudioConfig(stream=stream)
        settings = _settings(options, token, config)
        recognizer = speech.SpeechRecognizer(settings, audio, language=config.language)
        # Timeouts that nobody set are sent as "never": a caller may listen for minutes.
        recognizer.enable_legacy_default_disconnect_silence_timeout(False)
        if config.phrases:
            grammar = speech.PhraseListGrammar.from_recognizer(recognizer)
            for phrase in config.phrases[:MAX_PHRASES]:
                grammar.addPhrase(phrase)
            grammar.setWeight(config.phrase_weight)
        connection = speech.Connection.from_recognizer(recognizer)
        signals = _connect(recognizer, connection, channel, provider, options.silent_ms)

        def stop() -> None:
            recognizer.stop_continuous_recognition_async().get()

        native = Native([settings, audio, stream, connection, recognizer], signals, stop)
        made = cls(stream, recognizer, native)
        try:
            recognizer.start_continuous_recognition_async().get()
        except RuntimeError:
            made.release_nowait()
            raise
        return made

    def write(self, audio: bytes) -> None:
        """Raises RuntimeError when the SDK cannot take it."""
        if self._stream is not None:
            self._stream.write(audio)

    def commit(self) -> int:
        """Ask the service to end its phrase here; the token that the phrase will hold, 0 if the SDK refused."""
        return int(self._stream.commit()) if self._stream is not None else 0

    def set_token(self, token: str) -> None:
        """The account's new token, for when the SDK or the service opens a new connection."""
        if self._recognizer is not None:
            self._recognizer.authorization_token = token

    def release_nowait(self) -> None:
        self._stream = self._recognizer = None
        self._native.release_nowait()


def _settings(options: AzureSpeechOptions, token: str, config: TranscriberConfig) -> speech.SpeechConfig:
    settings = speech_config(options, token)
    settings.output_format = speech.OutputFormat.Detailed
    settings.request_word_level_timestamps()
    settings.set_profanity(PROFANITY[config.profanity])
    silence_ms = min(max(config.segmentation_silence_ms, SEGMENTATION_MS[0]), SEGMENTATION_MS[1])
    properties = {
        speech.PropertyId.Speech_SegmentationSilenceTimeoutMs: silence_ms,
        speech.PropertyId.SpeechServiceConnection_InitialSilenceTimeoutMs: config.initial_silence_ms,
    }
    if config.stable_words:
        properties[speech.PropertyId.SpeechServiceResponse_StablePartialResultThreshold] = config.stable_words
    for name, value in properties.items():
        settings.set_property(name, str(value))
    settings.set_property_by_name(UNTHROTTLED, str(UNTHROTTLED_MS))
    if config.model:
        settings.endpoint_id = config.model
    if options.commit:
        settings.set_service_property("setfeature", "forcecommit", speech.ServicePropertyChannel.UriQueryParameter)
    return settings


def _connect(
    recognizer: speech.SpeechRecognizer,
    connection: speech.Connection,
    channel: Channel[RecognizerEvent],
    provider: str,
    silent_ms: int,
) -> list[Any]:
    """Every signal with its callback; the list is what must be disconnected."""

    def on_canceled(event: Any) -> RecognizerEvent | None:
        details = event.cancellation_details
        if details.reason != speech.CancellationReason.Error:
            return Stopped()
        return Stopped(failure(details.code, details.error_details, provider, silent_ms))

    callbacks = (
        (connection.connected, lambda event: Connected()),
        (recognizer.speech_start_detected, lambda event: SpeechNoticed()),
        (recognizer.speech_end_detected, lambda event: SpeechNoticed()),
        (recognizer.recognizing, _hypothesis),
        (recognizer.recognized, lambda event: read_phrase(event.result)),
        (recognizer.canceled, on_canceled),
        (recognizer.session_stopped, lambda event: Stopped()),
    )
    for signal, extract in callbacks:
        signal.connect(channel.callback(extract))
    return [signal for signal, _ in callbacks]


def _hypothesis(event: Any) -> Hypothesis:
    result = event.result
    return Hypothesis(result.text, result.offset, result.offset + result.duration)


def read_phrase(result: Any) -> Phrase:
    """Thread: the SDK's. A final of the service, or its word that nothing was understood.

    Raises:
        ValueError: the service's JSON is not what it should be, or far more than anybody says.
    """
    start, end = result.offset, result.offset + result.duration
    if result.reason != speech.ResultReason.RecognizedSpeech:
        return Phrase("", start, end, token=result.commit_token)
    body = orjson.loads(result.json)
    best = body.get("NBest") or [{}]
    display = body.get("DisplayText") or best[0].get("Display") or ""
    if len(display) > MAX_TEXT_CHARS:
        raise ValueError(f"a final of more than {MAX_TEXT_CHARS} characters")
    confidence = best[0].get("Confidence")
    return Phrase(
        display,
        start,
        end,
        None if confidence is None else float(confidence),
        tuple(
            Word(one["Word"], one["Offset"], one["Offset"] + one["Duration"]) for one in best[0].get("Words", ())
        ),
        result.commit_token,
    )
