"""One SpeechSynthesizer of the SDK with its connection: speaks one clause at a time, many one after another.

The SDK queues a second clause behind the first, so nobody else may speak while one does. Sound and the end come in
order on one thread; word boundaries come on another, even after the end, so those of an earlier clause are told by
their request and dropped (the SDK's own second attempt is a new request, which is why the others are not). Stopping
closes the socket: a synthesizer that was stopped is not used again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import azure.cognitiveservices.speech as speech

from providers.azure.failure import failure
from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import Native, speech_config
from providers.azure.ssml import percent, speakable
from providers.base import AudioFormat, SpeechRequest
from providers.errors import ProviderError
from providers.sdk_thread import SdkBridge

_Format = speech.SpeechSynthesisOutputFormat
OUTPUT_FORMATS = {
    AudioFormat("pcmu", 8000): _Format.Raw8Khz8BitMonoMULaw,
    AudioFormat("pcma", 8000): _Format.Raw8Khz8BitMonoALaw,
    AudioFormat("s16", 8000): _Format.Raw8Khz16BitMonoPcm,
    AudioFormat("s16", 16000): _Format.Raw16Khz16BitMonoPcm,
    AudioFormat("s16", 24000): _Format.Raw24Khz16BitMonoPcm,
    AudioFormat("s16", 48000): _Format.Raw48Khz16BitMonoPcm,
}
# The SDK itself knows no limit before ten seconds; ours are shorter, this is what its error would say.
SDK_SILENT_MS = 10_000


@dataclass(frozen=True, slots=True)
class LineKey:
    """What cannot be changed once a synthesizer exists. `voice` is empty where SSML names it."""

    audio_format: AudioFormat
    voice: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Sound:
    audio: bytes


@dataclass(frozen=True, slots=True)
class Spoken:
    """`word` is heard from `offset_ticks` on."""

    word: str
    offset_ticks: int


@dataclass(frozen=True, slots=True)
class Ended:
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class LineState:
    is_connected: bool


SynthesizerEvent = Sound | Spoken | Ended


@dataclass(frozen=True, slots=True)
class _Event:
    """What a callback said, and of which request."""

    request_id: str
    what: SynthesizerEvent


class SdkLine:
    """A connected synthesizer. `speak` is for the event loop and takes 0.2 ms; made and put away in other threads."""

    __slots__ = ("_future", "_native", "_on_event", "_on_lost", "_past_id", "_provider",
                 "_request_id", "_synthesizer", "channel",
                 "is_connected", "is_lost", "key", "late_events", "since_s")  # fmt: skip

    def __init__(
        self,
        options: AzureSpeechOptions,
        token: str,
        key: LineKey,
        bridge: SdkBridge,
        provider: str,
        *,
        since_s: float,
        connect: bool,
    ) -> None:
        """Thread: a builder. Create it and, for later use, begin to connect; a line that is spoken on at once
        connects by itself, and would have two sockets. Raises RuntimeError, ValueError: the SDK refuses.
        """
        self.key = key
        self.since_s = since_s
        self.is_connected = False
        self.is_lost = False
        self.late_events = 0
        self._future: Any = None
        self._on_event: Callable[[SynthesizerEvent], None] | None = None
        self._on_lost: Callable[[SdkLine], None] | None = None
        self._request_id = self._past_id = ""
        self._provider = provider
        self.channel = bridge.channel(self._deliver, self._on_callback_error)
        config = _settings(options, token, key)
        self._synthesizer: speech.SpeechSynthesizer | None = speech.SpeechSynthesizer(config, None)
        connection = speech.Connection.from_speech_synthesizer(self._synthesizer)
        signals = self._connect(connection, provider)
        self._native = Native([config, connection, self._synthesizer], signals, lambda: None)
        try:
            if connect:
                connection.open(True)
        except RuntimeError:
            self.release_nowait()
            raise

    def watch(self, on_lost: Callable[[SdkLine], None]) -> None:
        """`on_lost` is called when the idle connection goes away."""
        self._on_lost = on_lost

    def speak_ssml(self, document: str, on_event: Callable[[SynthesizerEvent], None]) -> None:
        """Begin; the events of this clause come to `on_event`, in the loop, until Ended. Raises RuntimeError."""
        assert self._synthesizer is not None and self._on_event is None
        self._on_event = on_event
        self._future = self._synthesizer.start_speaking_ssml_async(document)

    def speak_streamed(self, request: SpeechRequest, on_event: Callable[[SynthesizerEvent], None]) -> None:
        """The same by the text-streaming input: what the service offers there instead of SSML."""
        assert self._synthesizer is not None and self._on_event is None
        self._on_event = on_event
        order = speech.SpeechSynthesisRequest(speech.SpeechSynthesisRequestInputType.TextStream)
        if request.rate_percent:
            order.rate = percent(request.rate_percent)
        if request.pitch_percent:
            order.pitch = percent(request.pitch_percent)
        if request.volume_percent != 100:
            order.volume = str(request.volume_percent)
        if request.style:
            order.style = request.style
        if request.lexicon_url:
            order.custom_lexicon_url = request.lexicon_url
        self._future = self._synthesizer.speak_async(order)
        order.input_stream.write(speakable(request.text))
        order.input_stream.close()

    def finish(self, now_s: float) -> None:
        """The clause is over and was complete: ready for the next."""
        self._on_event = None
        self._past_id = self._request_id
        self._future.get()  # has its result by now; without this its native handle would stay
        self._future = None
        self.since_s = now_s

    def release_nowait(self) -> None:
        """Stop, close and forget it; in the background."""
        self.channel.close_nowait()
        self._on_event = self._on_lost = None
        synthesizer, self._synthesizer = self._synthesizer, None
        future, self._future = self._future, None
        if synthesizer is None:
            return
        if future is not None:

            def stop() -> None:
                synthesizer.stop_speaking_async().get()
                future.get()

            self._native.stop_with(stop)
        self._native.release_nowait()

    def _deliver(self, event: _Event | LineState) -> None:
        if isinstance(event, LineState):
            self.is_connected = event.is_connected
            if not event.is_connected:
                self.is_lost = True
                if self._on_event is None and self._on_lost is not None:
                    self._on_lost(self)
            return
        if self._on_event is None or event.request_id == self._past_id:
            self.late_events += 1
            return
        if not isinstance(event.what, Spoken):
            self._request_id = event.request_id
        self._on_event(event.what)

    def _on_callback_error(self, error: Exception) -> None:
        self.is_lost = True
        if self._on_event is not None:
            self._on_event(Ended(ProviderError(f"an event of the SDK: {error!r}", provider=self._provider)))

    def _connect(self, connection: speech.Connection, provider: str) -> list[Any]:
        synthesizer = self._synthesizer
        assert synthesizer is not None

        def canceled(event: Any) -> _Event:
            details = event.result.cancellation_details
            error = failure(details.error_code, details.error_details, provider, SDK_SILENT_MS)
            return _Event(event.result.result_id, Ended(error))

        def spoken(event: Any) -> _Event | None:
            if event.boundary_type != speech.SpeechSynthesisBoundaryType.Word:
                return None
            return _Event(event.result_id, Spoken(event.text, event.audio_offset))

        callbacks = (
            (connection.connected, lambda event: LineState(True)),
            (connection.disconnected, lambda event: LineState(False)),
            (synthesizer.synthesizing, lambda event: _Event(event.result.result_id, Sound(event.result.audio_data))),
            (synthesizer.synthesis_word_boundary, spoken),
            (synthesizer.synthesis_completed, lambda event: _Event(event.result.result_id, Ended())),
            (synthesizer.synthesis_canceled, canceled),
        )
        for signal, extract in callbacks:
            signal.connect(self.channel.callback(extract))
        return [signal for signal, _ in callbacks]


def _settings(options: AzureSpeechOptions, token: str, key: LineKey) -> speech.SpeechConfig:
    config = speech_config(options, token, url=options.text_stream_url if key.voice else "")
    config.set_speech_synthesis_output_format(OUTPUT_FORMATS[key.audio_format])
    # With GStreamer on the machine the SDK would ask for a compressed form and decode it.
    config.set_property(speech.PropertyId.SpeechServiceConnection_SynthEnableCompressedAudioTransmission, "false")
    if key.voice:
        config.speech_synthesis_voice_name = key.voice
        config.speech_synthesis_language = key.language
    return config
