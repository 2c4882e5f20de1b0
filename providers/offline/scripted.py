"""Scripted providers: a conversation that costs almost nothing and whose replies prove themselves by sound.

Transcriber, model and synthesizer share one little language, so that a load generator outside the process learns from
the audio alone which call and turn it heard, and whether the model saw the right words:

    utterance n of caller -> "turn n of caller" -> "code CALL TURN HASH, ..." -> preamble, 12 dual tones, filler

The format of the tone code is in docs/tone-code.md; `encode_symbols` and the tables below are its definition in code.
Guarantees: no randomness, no thread, and no work per frame beyond joining tables made at import. Delays are those of
the constructor, 0 by default.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np

from providers.base import (
    PCMU_8K,
    AudioChunk,
    AudioFormat,
    ChatDone,
    ChatEvent,
    ChatRequest,
    Final,
    SpeechEvent,
    SpeechRequest,
    TextDelta,
    TranscriberConfig,
    TranscriptEvent,
    TranscriptStream,
)
from providers.errors import ProviderUnavailable

RATE_HZ = 8000
SYMBOL_SAMPLES = 400  # 50 ms: the shortest DTMF tone that ITU-T Q.24 asks a receiver to take is 40 ms
PREAMBLE_SAMPLES = 640
GAP_SAMPLES = 160
RAMP_SAMPLES = 20
TONE_AMPLITUDE = 0.25
PREAMBLE_HZ = (400, 2600)
# Nibble -> (low, high) Hz: the keys 0-9, A-D, * and # of ITU-T Q.23.
NIBBLE_HZ = (
    (941, 1336), (697, 1209), (697, 1336), (697, 1477), (770, 1209), (770, 1336), (770, 1477), (852, 1209),
    (852, 1336), (852, 1477), (697, 1633), (770, 1633), (852, 1633), (941, 1633), (941, 1209), (941, 1477),
)  # fmt: skip
FILLER_WORD_SAMPLES = 1200  # 150 ms a word
FILLER_DBFS = -26.0
CHUNK_BYTES = 800  # 100 ms
MAX_TEXT_WORDS = 400  # one minute of filler: longer texts are cut
MAX_PENDING_FINALS = 16

SILENCE = b"\xff"
REPLY_TAIL = "this is the scripted reply that the generator takes apart"

_TURN = re.compile(r"turn (\d+) of")
_CODE = re.compile(r"\bcode (\d+) (\d+) (\d+)\b")


def call_number(caller: str) -> int:
    """The last four digits of `caller` as a number, 0 when there are none."""
    digits = re.sub(r"\D", "", caller)[-4:]
    return int(digits) if digits else 0


def text_hash(text: str) -> int:
    """CRC-16/CCITT-FALSE of the UTF-8 bytes of `text`, uint16."""
    return binascii.crc_hqx(text.encode(), 0xFFFF)


def encode_symbols(call: int, turn: int, hash16: int) -> list[int]:
    """The 12 nibbles of one tone code, high nibble first.

    Args:
        call: uint16. turn: any non-negative number, taken modulo 256. hash16: uint16.
    Raises:
        ValueError: `call` or `hash16` is no uint16.
    """
    if not (0 <= call <= 0xFFFF and 0 <= hash16 <= 0xFFFF and turn >= 0):
        raise ValueError(f"tone code: expected uint16, >= 0, uint16; got {call}, {turn}, {hash16}")
    body = call.to_bytes(2, "big") + bytes([turn & 0xFF]) + hash16.to_bytes(2, "big")
    coded = body + bytes([_crc8(body)])
    return [nibble for byte in coded for nibble in (byte >> 4, byte & 15)]


def render(text: str) -> bytes:
    """PCMU codes of `text` at 8000 Hz: its tone code if it holds one, then 150 ms of filler for each other word."""
    code = _CODE.search(text)
    parts: list[bytes] = []
    words = len(text.split())
    if code is not None:
        call, turn, hash16 = (int(number) for number in code.groups())
        if call <= 0xFFFF and hash16 <= 0xFFFF:
            parts.append(_PREAMBLE)
            parts += [_SYMBOLS[nibble] for nibble in encode_symbols(call, turn, hash16)]
            words -= 4
    filler = FILLER_WORD_SAMPLES * min(words, MAX_TEXT_WORDS)
    parts.append((_FILLER * (filler // len(_FILLER) + 1))[:filler])
    return b"".join(parts)


class ScriptedTranscriber:
    """Transcriber "scripted": hears nothing, counts utterances. `final_delay_ms` passes between commit and Final."""

    __slots__ = ("_final_delay_ms", "audio_formats", "name")

    def __init__(self, *, final_delay_ms: int = 0) -> None:
        self.name = "scripted"
        self.audio_formats: tuple[AudioFormat, ...] = (PCMU_8K,)
        self._final_delay_ms = final_delay_ms

    def attach_nowait(self) -> None:
        """Nothing is connected."""

    def detach_nowait(self) -> None:
        """Nothing is connected."""

    async def open(self, config: TranscriberConfig) -> TranscriptStream:
        return ScriptedTranscriptStream(config.caller, self._final_delay_ms)

    async def aclose(self) -> None:
        return


class ScriptedTranscriptStream:
    """One call of the scripted transcriber: one Final for each committed utterance, none for a resumed one."""

    __slots__ = ("_begins_ms", "_caller", "_closed", "_delay_s", "_due", "_fed_bytes", "_wake")

    def __init__(self, caller: str, final_delay_ms: int) -> None:
        self._caller = caller
        self._delay_s = final_delay_ms / 1000
        self._due: deque[tuple[float, Final]] = deque(maxlen=MAX_PENDING_FINALS)
        self._begins_ms: dict[int, int] = {}
        self._fed_bytes = 0
        self._wake = asyncio.Event()
        self._closed = False

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        self._begins_ms = {utterance_no: start_ms}
        self._fed_bytes = 0

    def feed_nowait(self, audio: bytes) -> None:
        self._fed_bytes += len(audio)

    def commit_nowait(self, utterance_no: int) -> None:
        if self._closed:
            return
        start_ms = self._begins_ms.get(utterance_no, 0)
        end_ms = start_ms + self._fed_bytes * 1000 // RATE_HZ
        final = Final(utterance_no, f"turn {utterance_no} of {self._caller}", start_ms, end_ms, 1.0)
        self._due.append((asyncio.get_running_loop().time() + self._delay_s, final))
        self._wake.set()

    def resume_nowait(self, utterance_no: int) -> None:
        kept = [item for item in self._due if item[1].utterance_no != utterance_no]
        self._due.clear()
        self._due.extend(kept)

    def __aiter__(self) -> AsyncIterator[TranscriptEvent]:
        return self

    async def __anext__(self) -> TranscriptEvent:
        loop = asyncio.get_running_loop()
        while not self._closed:
            self._wake.clear()
            if not self._due:
                await self._wake.wait()
                continue
            wait_s = self._due[0][0] - loop.time()
            if wait_s <= 0:
                return self._due.popleft()[1]
            try:
                # A resumed utterance takes its Final away while we wait for it.
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._closed = True
        self._wake.set()


class ScriptedModel:
    """ChatModel "scripted": answers the last user text with `code CALL TURN HASH` and ten words of filler."""

    __slots__ = ("_first_token_ms", "name")

    def __init__(self, *, first_token_ms: int = 0) -> None:
        self.name = "scripted"
        self._first_token_ms = first_token_ms

    def attach_nowait(self) -> None:
        """Nothing is connected."""

    def detach_nowait(self) -> None:
        """Nothing is connected."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        users = [message.content for message in request.messages if message.role == "user"]
        heard = users[-1] if users else ""
        turns = _TURN.findall(heard)
        turn = int(turns[-1]) if turns else len(users)
        await asyncio.sleep(self._first_token_ms / 1000)
        words = f"code {call_number(request.caller)} {turn % 256} {text_hash(heard)}, {REPLY_TAIL}".split(" ")
        for at, word in enumerate(words):
            yield TextDelta(word if at == 0 else f" {word}")
        yield ChatDone(prompt_tokens=len(request.messages), completion_tokens=len(words))

    async def aclose(self) -> None:
        return


class ScriptedSynthesizer:
    """Synthesizer "scripted": tone code and filler as PCMU at 8000 Hz, in chunks of 100 ms."""

    __slots__ = ("_first_byte_ms", "name")

    def __init__(self, *, first_byte_ms: int = 0) -> None:
        self.name = "scripted"
        self._first_byte_ms = first_byte_ms

    def attach_nowait(self) -> None:
        """Nothing is connected."""

    def detach_nowait(self) -> None:
        """Nothing is connected."""

    async def stream(self, request: SpeechRequest) -> AsyncGenerator[SpeechEvent, None]:
        if len(request.text) > 20_000:
            raise ProviderUnavailable("expected at most 20000 characters", provider=self.name)
        audio = render(request.text)
        await asyncio.sleep(self._first_byte_ms / 1000)
        for at in range(0, len(audio), CHUNK_BYTES):
            yield AudioChunk(audio[at : at + CHUNK_BYTES], PCMU_8K)

    async def aclose(self) -> None:
        return


def _crc8(data: bytes) -> int:
    """CRC-8, polynomial 0x07, start 0, not reflected (check value of "123456789": 0xF4)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def _pcmu(samples: np.ndarray) -> bytes:
    """G.711 mu-law codes of float samples in [-1, 1]; nearest code by table. Runs at import only."""
    codes = np.arange(256, dtype=np.int32)
    magnitude = (((~codes & 0x0F) << 3) + 0x84 << ((~codes >> 4) & 7)) - 0x84
    # Code 0x7F is minus zero: half a step lower, so that zero becomes 0xFF, the silence of the wire.
    values = np.where(codes & 0x80, magnitude, -magnitude - 0.5)
    order = np.argsort(values, kind="stable")
    middles = (values[order][1:] + values[order][:-1]) / 2
    wanted: np.ndarray = order[np.searchsorted(middles, samples * 32767)]
    return wanted.astype(np.uint8).tobytes()


def _tone(pair: tuple[int, int], count: int) -> bytes:
    at = np.arange(count) / RATE_HZ
    wave = TONE_AMPLITUDE * (np.sin(2 * np.pi * pair[0] * at) + np.sin(2 * np.pi * pair[1] * at))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(RAMP_SAMPLES) + 0.5) / RAMP_SAMPLES)
    wave[:RAMP_SAMPLES] *= ramp
    wave[-RAMP_SAMPLES:] *= ramp[::-1]
    return _pcmu(wave) + SILENCE * GAP_SAMPLES


def _filler_second() -> bytes:
    noise = np.random.default_rng(711).standard_normal(RATE_HZ)
    smooth = np.convolve(np.concatenate((noise[-8:], noise)), np.ones(8) / 8, "valid")[:RATE_HZ]
    wave = smooth * (0.6 - 0.4 * np.cos(2 * np.pi * 4 * np.arange(RATE_HZ) / RATE_HZ))
    wave *= 10 ** (FILLER_DBFS / 20) / np.sqrt(np.mean(wave**2))
    return _pcmu(np.clip(wave, -0.5, 0.5))


_SYMBOLS = tuple(_tone(pair, SYMBOL_SAMPLES) for pair in NIBBLE_HZ)
_PREAMBLE = _tone(PREAMBLE_HZ, PREAMBLE_SAMPLES)
_FILLER = _filler_second()
