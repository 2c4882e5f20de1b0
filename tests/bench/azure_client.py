"""The real Speech SDK at the simulated service: what a recognizer and a synthesizer made of it.

Every signal is disconnected before an object goes, else a late callback aborts the process at its exit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import azure.cognitiveservices.speech as sdk
import uvloop

from bench.sim.azure import AzureSim

WAIT_S = 8.0
MULAW_8K = (8000, 8, sdk.audio.AudioStreamWaveFormat.MULAW)
PCM_8K = (8000, 16, sdk.audio.AudioStreamWaveFormat.PCM)
PCM_16K = (16_000, 16, sdk.audio.AudioStreamWaveFormat.PCM)


@contextmanager
def serving(sim: AzureSim) -> Iterator[AzureSim]:
    """The simulator on a loop of its own, in a thread."""
    started, over = threading.Event(), threading.Event()
    loops: list[Any] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with sim:
            started.set()
            while not over.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: uvloop.run(main()), name="azure sim")
    thread.start()
    try:
        assert started.wait(WAIT_S)
        yield sim
    finally:
        over.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def wait_for(holds: Callable[[], Any], timeout_s: float = WAIT_S) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.003)


def speech_config(sim: AzureSim, *, key: str = "", language: str = "en-US") -> sdk.SpeechConfig:
    config = sdk.SpeechConfig(subscription=key or sim.key, host=sim.host)
    config.speech_recognition_language = language
    return config


@dataclass
class Heard:
    """What came from a recognizer, in order."""

    interims: list[str] = field(default_factory=list)
    finals: list[Any] = field(default_factory=list)
    canceled: list[Any] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.finals if one.text)

    @property
    def error(self) -> Any:
        """The code of the cancellation that is none of an end of stream."""
        errors = [one for one in self.canceled if one.reason == sdk.CancellationReason.Error]
        return errors[0].code if errors else None


class Ears:
    """One recognizer in continuous recognition on a push stream."""

    def __init__(self, config: sdk.SpeechConfig, form: tuple[int, int, Any] = MULAW_8K, **options: Any) -> None:
        rate_hz, bits, coding = form
        self.stream = sdk.audio.PushAudioInputStream(
            sdk.audio.AudioStreamFormat(rate_hz, bits, 1, wave_stream_format=coding)
        )
        self.recognizer = sdk.SpeechRecognizer(config, sdk.audio.AudioConfig(stream=self.stream), **options)
        self.heard = Heard()

    def __enter__(self) -> Ears:
        heard, one = self.heard, self.recognizer
        one.recognizing.connect(lambda event: heard.interims.append(event.result.text))
        one.recognized.connect(lambda event: heard.finals.append(event.result))
        one.canceled.connect(lambda event: heard.canceled.append(event.cancellation_details))
        one.speech_start_detected.connect(lambda event: heard.starts.append(event.offset))
        one.session_stopped.connect(lambda event: heard.stopped.set())
        one.start_continuous_recognition_async().get()
        return self

    def __exit__(self, *exc: object) -> None:
        # Stopped before the stream is closed: the other way round, after an error, the SDK takes 10 s to let go.
        one = self.recognizer
        one.stop_continuous_recognition_async().get()
        for signal in (
            one.recognizing, one.recognized, one.canceled, one.speech_start_detected, one.session_stopped,
            one.session_started,
        ):  # fmt: skip
            signal.disconnect_all()
        self.stream.close()

    def write(self, sound: bytes) -> None:
        for at in range(0, len(sound), 160):
            self.stream.write(sound[at : at + 160])

    def end(self) -> Heard:
        """No more audio; waits for the end of the session."""
        self.stream.close()
        assert self.heard.stopped.wait(WAIT_S)
        return self.heard


def recognise_all(sim: AzureSim, sound: bytes, form: tuple[int, int, Any] = MULAW_8K, **options: Any) -> Heard:
    config = options.pop("config", None) or speech_config(sim)
    with Ears(config, form, **options) as ears:
        ears.write(sound)
        return ears.end()


def error_of(sim: AzureSim, sound: bytes, config: sdk.SpeechConfig | None = None) -> Any:
    """The code of the error that recognition ends with."""
    with Ears(config or speech_config(sim)) as ears:
        ears.write(sound)
        wait_for(lambda: ears.heard.error)
        return ears.heard.error


@dataclass
class Spoken:
    """What came of one synthesis."""

    audio: bytes = b""
    result: Any = None
    words: list[Any] = field(default_factory=list)
    marks: list[Any] = field(default_factory=list)

    @property
    def error(self) -> Any:
        if self.result.reason != sdk.ResultReason.Canceled:
            return None
        return self.result.cancellation_details.error_code

    @property
    def details(self) -> str:
        return str(self.result.cancellation_details.error_details)


FORMAT = sdk.SpeechSynthesisOutputFormat.Raw8Khz8BitMonoMULaw
VOICE = "en-US-JennyNeural"


class Mouth:
    """One synthesizer."""

    def __init__(self, config: sdk.SpeechConfig, form: Any = FORMAT, voice: str = VOICE) -> None:
        config.set_speech_synthesis_output_format(form)
        config.speech_synthesis_voice_name = voice
        self.synthesizer = sdk.SpeechSynthesizer(config, audio_config=None)
        self.now = Spoken()

    def __enter__(self) -> Mouth:
        one = self.synthesizer
        one.synthesis_word_boundary.connect(self._on_word)
        one.bookmark_reached.connect(self._on_mark)
        return self

    def __exit__(self, *exc: object) -> None:
        one = self.synthesizer
        for signal in (
            one.synthesis_word_boundary, one.bookmark_reached, one.synthesizing, one.synthesis_started,
            one.synthesis_completed, one.synthesis_canceled,
        ):  # fmt: skip
            signal.disconnect_all()

    def _on_word(self, event: Any) -> None:
        self.now.words.append(event)

    def _on_mark(self, event: Any) -> None:
        self.now.marks.append(event)

    def speak(self, ssml: str) -> Spoken:
        self.now = Spoken()
        call = self.synthesizer.speak_ssml_async if ssml.startswith("<") else self.synthesizer.speak_text_async
        self.now.result = call(ssml).get()
        self.now.audio = self.now.result.audio_data or b""
        return self.now


def ssml(body: str, voice: str = VOICE) -> str:
    return (
        "<speak version='1.0' xmlns='http://www.w3.org/2001/10/synthesis' "
        "xmlns:mstts='https://www.w3.org/2001/mstts' xml:lang='en-US'>"
        f"<voice name='{voice}'>{body}</voice></speak>"
    )
