"""Text to speech without an account: SVOX Pico in worker threads, six voices.

    clause → pieces of ≤ 300 characters → worker → trim → chunks of 100 ms

Guarantees: the first audible sample comes within 20 ms of the first chunk's begin; at most 120 ms of silence at the
end; about -20 dBFS; a closed stream delivers nothing more and frees its worker at Pico's next step. A piece is rendered
only when the one before has been taken, so one stream never holds more than about 20 s. No word marks: Pico has none.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from providers.base import AudioChunk, AudioFormat, SpeechEvent, SpeechRequest
from providers.errors import ProviderError, ProviderRejected, ProviderUnavailable
from providers.offline.pico_engine import RATE_HZ, VOLUMES, PicoEngine, clean, pieces

CHUNK_BYTES = RATE_HZ // 10 * 2
MAX_TEXT_CHARS = 5000
MAX_WAITING_PIECES = 64
# -40 dBFS: Pico's noise source flares up to -46 before some sentences, and to -39 half a second after some. What
# stays on either side holds the rest of a soft consonant.
AUDIBLE = 330
AUDIBLE_AT_END = 450
FORMAT = AudioFormat("s16", RATE_HZ)
LEAD_SAMPLES = RATE_HZ * 20 // 1000
TRAIL_SAMPLES = RATE_HZ * 120 // 1000
# Languages that a voice speaks when none fits exactly.
VOICE_OF = {"en": "en-US", "es": "es-ES", "de": "de-DE", "fr": "fr-FR", "it": "it-IT"}


class PicoSynthesizer:
    """Synthesizer "pico". Belongs to one event loop.

    Args:
        workers: rendering threads; each keeps at most one engine (3 MiB) a language.
    """

    __slots__ = ("_executor", "_idle", "_lock", "_waiting", "name")

    def __init__(self, *, workers: int = 2) -> None:
        self.name = "pico"
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="pico")
        self._idle: dict[str, list[PicoEngine]] = {language: [] for language in VOLUMES}
        self._lock = threading.Lock()  # workers only: making and lending engines
        self._waiting = 0

    def attach_nowait(self) -> None:
        """Nothing is connected."""

    def detach_nowait(self) -> None:
        """Nothing is connected."""

    async def stream(self, request: SpeechRequest) -> AsyncGenerator[SpeechEvent, None]:
        """Speak `request.text`; nothing speakable gives no audio.

        Raises:
            ProviderRejected: no voice for the language or the voice's name, or more than MAX_TEXT_CHARS.
            ProviderUnavailable: too many pieces wait, Pico is not installed, or it gave up on the text.
        """
        voice = self._voice(request)
        if len(request.text) > MAX_TEXT_CHARS:
            raise self._rejected(f"expected at most {MAX_TEXT_CHARS} characters, got {len(request.text)}")
        for text in pieces(clean(request.text)):
            piece = _Piece(text, voice, request)
            self._submit(piece)
            try:
                while (chunk := await piece.next_chunk()) is not None:
                    yield AudioChunk(chunk, FORMAT)
            finally:
                piece.cancel()

    async def aclose(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for engines in self._idle.values():
                while engines:
                    engines.pop().close()

    def _voice(self, request: SpeechRequest) -> str:
        if request.voice and request.voice not in VOLUMES:
            raise self._rejected(f"voice: expected one of {', '.join(VOLUMES)}; got {request.voice!r}")
        language = request.voice or request.language
        voice = language if language in VOLUMES else VOICE_OF.get(language.split("-")[0].lower())
        if voice is None:
            raise self._rejected(f"language: expected one of {', '.join(VOLUMES)}; got {language!r}")
        return voice

    def _rejected(self, message: str) -> ProviderRejected:
        return ProviderRejected(message, status=400, provider=self.name)

    def _submit(self, piece: _Piece) -> None:
        if self._waiting >= MAX_WAITING_PIECES:
            raise ProviderUnavailable(f"{self._waiting} clauses wait for a voice", provider=self.name)
        loop = asyncio.get_running_loop()
        try:
            future = self._executor.submit(self._render, piece, loop)
        except RuntimeError as error:
            raise ProviderUnavailable("closed", provider=self.name) from error
        self._waiting += 1
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finished, piece, done))

    def _finished(self, piece: _Piece, done: Future[None]) -> None:
        self._waiting -= 1
        error = None if done.cancelled() else done.exception()
        if error is None or isinstance(error, ProviderError):
            piece.finish(error)
        else:
            piece.finish(ProviderUnavailable(f"engine: {error}", provider=self.name))
            raise error  # our bug: the call hears of it, and the loop's exception handler reports it

    def _render(self, piece: _Piece, loop: asyncio.AbstractEventLoop) -> None:
        """Thread: a worker."""
        with self._lock:
            engines = self._idle[piece.voice]
            engine = engines.pop() if engines else PicoEngine(piece.voice)
        trim = _Trim()

        def sink(block: bytes) -> bool:
            audible = trim.push(block)
            if audible and not piece.cancelled:
                loop.call_soon_threadsafe(piece.put, audible)
            return not piece.cancelled

        completed = False
        try:
            if not piece.take(engine):
                completed = True
                return
            completed = engine.speak(
                piece.text,
                sink,
                rate_percent=piece.rate_percent,
                pitch_percent=piece.pitch_percent,
                volume=piece.volume,
            )
            if not completed and not piece.cancelled:
                raise ProviderUnavailable(f"cannot speak a text of {len(piece.text)} characters", provider=self.name)
            last = trim.flush()
            if last and not piece.cancelled:
                loop.call_soon_threadsafe(piece.put, last)
        finally:
            piece.release()
            if completed:
                with self._lock:
                    engines.append(engine)
            else:
                engine.close()


class _Piece:
    """One text on its way through a worker, and its audio on the way back. The loop's, but for what says Thread."""

    __slots__ = ("_blocks", "_done", "_engine", "_error", "_lock", "_wake", "cancelled", "pitch_percent",
                 "rate_percent", "text", "voice", "volume")  # fmt: skip

    def __init__(self, text: str, voice: str, request: SpeechRequest) -> None:
        self.text = text
        self.voice = voice
        self.rate_percent = request.rate_percent
        self.pitch_percent = request.pitch_percent
        self.volume = VOLUMES[voice] * request.volume_percent // 100
        self.cancelled = False
        self._blocks: deque[bytes] = deque()
        self._done = False
        self._error: ProviderError | None = None
        self._wake = asyncio.Event()
        self._engine: PicoEngine | None = None
        self._lock = threading.Lock()  # held for the time of setting a flag

    async def next_chunk(self) -> bytes | None:
        """At most 100 ms; None at the end."""
        while not self._blocks:
            if self._error is not None:
                raise self._error
            if self._done:
                return None
            self._wake.clear()
            await self._wake.wait()
        block = self._blocks.popleft()
        if len(block) > CHUNK_BYTES:
            self._blocks.appendleft(block[CHUNK_BYTES:])
        return block[:CHUNK_BYTES]

    def put(self, block: bytes) -> None:
        self._blocks.append(block)
        self._wake.set()

    def finish(self, error: ProviderError | None) -> None:
        self._done = True
        self._error = error
        self._wake.set()

    def cancel(self) -> None:
        self.cancelled = True
        self._blocks.clear()
        with self._lock:
            if self._engine is not None:
                self._engine.stop()

    def take(self, engine: PicoEngine) -> bool:
        """Thread: a worker. False when nobody waits for the audio any more."""
        with self._lock:
            self._engine = engine
        return not self.cancelled

    def release(self) -> None:
        """Thread: a worker. From here on `cancel` leaves the engine alone: it may serve another piece."""
        with self._lock:
            self._engine = None


class _Trim:
    """Drops silence before the first and after the last audible sample; pauses inside stay. s16 in, s16 out."""

    __slots__ = ("_begun", "_held")

    def __init__(self) -> None:
        self._begun = False
        self._held: list[bytes] = []

    def push(self, block: bytes) -> bytes:
        """What of `block` is certain to be spoken: silence at its end waits for what follows."""
        level = np.abs(np.frombuffer(block, dtype=np.int16).astype(np.int32))
        first = 0
        if not self._begun:
            audible = np.flatnonzero(level > AUDIBLE)
            if len(audible) == 0:
                return b""
            first = max(0, int(audible[0]) - LEAD_SAMPLES)
        loud = np.flatnonzero(level > AUDIBLE_AT_END)
        if len(loud) == 0:
            self._begun = True
            self._held.append(block[2 * first :])
            return b""
        end = int(loud[-1]) + 1
        held = b"".join(self._held)
        self._begun = True
        self._held = [block[2 * end :]]
        return held + block[2 * first : 2 * end]

    def flush(self) -> bytes:
        return b"".join(self._held)[: 2 * TRAIL_SAMPLES]
