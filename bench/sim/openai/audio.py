"""The audio endpoints: text to speech in chunks, one utterance of WAV to text.

Speech is SVOX Pico (voice.py) at 24 kHz, as raw samples or WAV. What was recognised is decided by a `Recogniser` that
is given the received samples and nothing else.
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import struct
import threading
import wave
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import soxr
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bench.sim.clipbook import Clipbook
from bench.sim.openai.check import is_one_of
from bench.sim.openai.fault import Fault, FaultBox
from bench.sim.openai.flavour import Flavour, Refusal
from bench.sim.openai.seen import Seen
from bench.sim.openai.stream import hang_up, hold
from bench.sim.recognise import recognise
from bench.sim.sound import RATE_HZ as LINE_RATE_HZ
from bench.sim.sound import at_8khz
from bench.sim.voice import PICO_RATE_HZ, pico_s16

Recogniser = Callable[[bytes, int, str], str]
"""(samples: s16 mono, rate in Hz, language or "") → what was said. Runs in a thread."""
Voice = Callable[[str, str], bytes]
"""(text, name of the voice) → s16 mono at SPEECH_RATE_HZ. May take its time: it runs in a thread."""

SPEECH_RATE_HZ = 24000  # the rate of OpenAI's `pcm`
CHUNK_MS = 100
MAX_INPUT_CHARS = 4096
MIN_AUDIO_S = 0.1
MAX_AUDIO_S = 1500
KEPT_SPEECH = 64
VOICES = {
    Flavour.OPENAI: {"alloy", "ash", "ballad", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer",
                     "verse", "cedar"},
    Flavour.GROQ: {"austin", "hannah", "troy", "autumn", "daniel", "diana"},
    Flavour.AZURE: {"alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"},
}  # fmt: skip
_PITCH = (70, 80, 90, 100, 110, 120)
_SPOKEN = re.compile(r"[<>\x00-\x1f]")  # Pico takes them for markup


def hears(book: Clipbook) -> Recogniser:
    """A recogniser that knows the clips of a book, and of them the words whose samples arrived."""

    def recogniser(s16: bytes, rate_hz: int, language: str) -> str:
        line = s16 if rate_hz == LINE_RATE_HZ else at_8khz(s16, rate_hz)
        return " ".join(word.text for word in recognise(book.for_language(language), line))

    return recogniser


class PicoVoice:
    """Pico en-US with a pitch for each voice name. Keeps the newest clips; one rendering at a time."""

    __slots__ = ("_kept", "_lock")

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, text: str, voice: str) -> bytes:
        with self._lock:
            if (kept := self._kept.get((text, voice))) is not None:
                return kept
            pitch = _PITCH[sum(voice.encode()) % len(_PITCH)]
            s16 = pico_s16(_SPOKEN.sub(" ", text), language="en-US", pitch_percent=pitch)
            samples = soxr.resample(np.frombuffer(s16, "<i2"), PICO_RATE_HZ, SPEECH_RATE_HZ)
            self._kept[text, voice] = samples.astype("<i2").tobytes()
            if len(self._kept) > KEPT_SPEECH:
                self._kept.popitem(last=False)
            return self._kept[text, voice]


# ── Text to speech ────────────────────────────────────────────────────────────────────────────────────────────


def check_speech(raw: Any, flavour: Flavour) -> None:
    """Raises Refusal where the vendor would."""
    if not isinstance(raw, dict):
        raise Refusal(400, "We could not parse the JSON body of your request.")
    known = {"model", "input", "voice", "response_format", "speed", "instructions", "stream_format", "sample_rate"}
    for name in set(raw) - known:
        raise Refusal(400, f"Unrecognized request argument: {name}", param=name)
    text, voice, style = raw.get("input"), raw.get("voice"), raw.get("response_format", "mp3")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_INPUT_CHARS:
        said = f"'input' must be a string of 1 to {MAX_INPUT_CHARS} characters"
        raise Refusal(400, said, code="string_too_long" if text else "missing_required_parameter", param="input")
    if not is_one_of(voice, VOICES[flavour]):
        raise Refusal(400, f"'voice' must be one of {sorted(VOICES[flavour])}", code="invalid_value", param="voice")
    formats = ("wav",) if flavour is Flavour.GROQ else ("pcm", "wav")
    if not is_one_of(style, formats):
        # The vendors know more formats; this one renders only what needs no codec.
        raise Refusal(400, f"'response_format' must be one of {list(formats)} here", param="response_format")
    speed = raw.get("speed", 1.0)
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not 0.25 <= speed <= 4:
        raise Refusal(400, "'speed' must be 0.25 to 4.0", code="invalid_value", param="speed")
    if raw.get("stream_format", "audio") != "audio":
        raise Refusal(400, "'stream_format' must be audio here", param="stream_format")


class SpeechStream:
    """One spoken answer on its way, in chunks of 100 ms, `audio_times` faster than it lasts (0: at once)."""

    __slots__ = ("_box", "_fault", "_request", "_seen")

    def __init__(self, request: web.BaseRequest, seen: Seen, fault: Fault | None, box: FaultBox) -> None:
        self._request, self._seen, self._fault, self._box = request, seen, fault, box

    async def run(
        self, s16: bytes, style: str, headers: Mapping[str, str], first_s: float, audio_times: float
    ) -> web.StreamResponse:
        if self._is("slow_first_token"):
            assert self._fault is not None
            first_s = self._fault.delay_ms / 1000
            self._struck()
        await asyncio.sleep(first_s)
        kind = "audio/wav" if style == "wav" else "audio/pcm"
        response = web.StreamResponse(headers={**headers, "content-type": kind})
        self._seen.status = 200
        await response.prepare(self._request)
        s16 = self._spoilt(s16)
        chunks = [s16[at : at + _CHUNK_BYTES] for at in range(0, len(s16), _CHUNK_BYTES)]
        if style == "wav" or self._is("wave_header"):
            chunks[0] = _endless_wave_header() + chunks[0]
        if self._is("wave_header"):
            self._struck()
        if self._is("half_sample"):
            self._struck()
            chunks[-1] = chunks[-1][:-1]
        if await self._send(response, chunks, audio_times):
            await response.write_eof()
            self._seen.end("done")
        return response

    def _spoilt(self, s16: bytes) -> bytes:
        """Samples that are none, or of another rate."""
        if self._is("garbage"):
            self._struck()
            return random.Random(len(s16)).randbytes(len(s16))
        if self._is("wrong_rate"):
            self._struck()
            return np.repeat(np.frombuffer(s16, "<i2"), 2).tobytes()
        return s16

    async def _send(self, response: web.StreamResponse, chunks: list[bytes], audio_times: float) -> bool:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for at, chunk in enumerate(chunks):
            if self._fault is not None and at == min(self._fault.after_tokens, len(chunks) - 1):
                if await self._strike(response):
                    return False
                begun_s = loop.time() - (at * CHUNK_MS / 1000 / audio_times if audio_times else 0)
            if audio_times:
                await asyncio.sleep(max(0.0, begun_s + at * CHUNK_MS / 1000 / audio_times - loop.time()))
            await self._write(response, chunk)
        return True

    async def _write(self, response: web.StreamResponse, chunk: bytes) -> None:
        await response.write(chunk)
        self._seen.tokens += 1
        self._seen.sent_bytes += len(chunk)

    async def _strike(self, response: web.StreamResponse) -> bool:
        """Carry out a fault of the stream. True: it is over."""
        fault = self._fault
        assert fault is not None
        match fault.kind:
            case "stall":
                self._struck()
                await asyncio.sleep(fault.delay_ms / 1000)
                return False
            case "silence":
                self._struck()
                await hold()
            case "stream_reset" | "stream_cut":
                self._struck()
                hang_up(self._request, reset=fault.kind == "stream_reset")
            case "early_end":
                self._struck()
            case "endless":
                self._struck()
                while self._seen.sent_bytes < fault.endless_bytes:
                    await self._write(response, bytes(_CHUNK_BYTES))
                    await asyncio.sleep(0)
            case _:
                return False  # a fault of chat, or one that was carried out before
        self._seen.end("fault")
        return True

    def _is(self, kind: str) -> bool:
        return self._fault is not None and self._fault.kind == kind

    def _struck(self) -> None:
        assert self._fault is not None
        self._seen.fault = self._fault.kind
        self._box.carried_out(self._fault)
        self._fault = None


_CHUNK_BYTES = SPEECH_RATE_HZ * CHUNK_MS // 1000 * 2


def _endless_wave_header() -> bytes:
    """A WAV header as a stream has it, its lengths not known yet (0xFFFFFFFF)."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SPEECH_RATE_HZ, SPEECH_RATE_HZ * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + form + struct.pack("<4sI", b"data", unknown)


# ── Speech to text ────────────────────────────────────────────────────────────────────────────────────────────


async def read_form(request: web.BaseRequest, seen: Seen) -> dict[str, Any]:
    """The fields of a multipart form; the file goes to `seen.audio`, its name to the field `file`."""
    if request.content_type != "multipart/form-data":
        raise Refusal(400, "Could not parse multipart form")
    fields: dict[str, Any] = {}
    try:
        form = await request.post()
    except (ValueError, AssertionError, TypeError, HttpProcessingError):  # how aiohttp says that it is no form
        raise Refusal(400, "Could not parse multipart form") from None
    for name, value in form.items():
        if isinstance(value, web.FileField):
            with value.file as file:
                seen.audio = file.read()
            fields[name] = value.filename
        elif name.endswith("[]"):
            fields.setdefault(name[:-2], []).append(value)
        else:
            fields[name] = value
    return fields


def check_transcription(fields: Mapping[str, Any], flavour: Flavour) -> None:
    known = {"file", "model", "language", "prompt", "response_format", "temperature", "timestamp_granularities"}
    if flavour is not Flavour.GROQ:
        known |= {"chunking_strategy", "include", "stream", "languages", "keywords"}
    for name in set(fields) - known:
        raise Refusal(400, f"Unrecognized request argument: {name}", param=name)
    styles = ("json", "text", "verbose_json")
    if fields.get("response_format", "json") not in styles:
        raise Refusal(400, f"'response_format' must be one of {list(styles)} here", param="response_format")
    if not re.fullmatch(r"[a-z]{2,3}", fields.get("language", "en")):
        said = f"Invalid language '{fields['language']}'. Language parameter must be specified in ISO-639-1 format."
        raise Refusal(400, said, code="invalid_language_format", param="language")
    try:
        warmth = float(fields.get("temperature", 0))
    except ValueError:
        warmth = -1.0
    if not 0 <= warmth <= 1:
        raise Refusal(400, "'temperature' must be 0 to 1", code="invalid_value", param="temperature")


def read_wave(raw: bytes) -> tuple[bytes, int]:
    """Samples (s16 mono) and rate of a WAV file. Raises Refusal where the vendor would."""
    try:
        with wave.open(io.BytesIO(raw)) as file:
            if file.getsampwidth() != 2 or file.getnchannels() != 1:
                raise Refusal(400, "expected 16-bit mono here", param="file")
            rate_hz = file.getframerate()
            s16 = file.readframes(file.getnframes())
            is_short = len(s16) < 2 * file.getnframes()
    except (wave.Error, EOFError):
        said = "Invalid file format. Supported formats: ['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', "
        raise Refusal(400, said + "'wav', 'webm']", param="file") from None
    if is_short:
        raise Refusal(400, "Audio file might be corrupted or unsupported", code="invalid_value", param="file")
    seconds = len(s16) / 2 / rate_hz
    if seconds < MIN_AUDIO_S:
        said = f"Audio file is too short. Minimum audio length is {MIN_AUDIO_S} seconds."
        raise Refusal(400, said, code="audio_too_short", param="file")
    if seconds > MAX_AUDIO_S:
        raise Refusal(400, f"audio duration {seconds:.0f} s is longer than {MAX_AUDIO_S} s", param="file")
    return s16, rate_hz


def transcription_body(text: str, seconds: float, fields: Mapping[str, Any], request_id: str, flavour: Flavour) -> Any:
    """The JSON of a transcription."""
    body: dict[str, Any] = {"text": text}
    if fields.get("response_format") == "verbose_json":
        segment = {
            "id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [1], "temperature": 0.0,
            "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01 if text else 0.95,
        }  # fmt: skip
        body |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": [segment]}
    if flavour is Flavour.GROQ:
        body["x_groq"] = {"id": request_id}
    else:
        body["usage"] = {"type": "duration", "seconds": max(1, round(seconds))}
    return body
