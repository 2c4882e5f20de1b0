"""Stub providers for pipecat that prove themselves by sound: docs/tone-code.md once more, for this peer alone.

    segment n of caller -> "turn n of caller" -> "code CALL TURN HASH, ..." -> preamble, 12 dual tones, filler

They answer at once and cost next to nothing, as the scripted providers of our own server do. Runs in the peer's
environment: imports pipecat and numpy, nothing of the bench.
"""

from __future__ import annotations

import binascii
import json
import re
import time
from collections.abc import AsyncGenerator

import numpy as np
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService

RATE_HZ = 8000
TAIL = "this is the scripted reply that the generator takes apart"
CHUNK_MS = 100
LOW_HZ = (941, 697, 697, 697, 770, 770, 770, 852, 852, 852, 697, 770, 852, 941, 941, 941)
HIGH_HZ = (1336, 1209, 1336, 1477, 1209, 1336, 1477, 1209, 1336, 1477, 1633, 1633, 1633, 1633, 1209, 1477)
_TURN = re.compile(r"turn (\d+) of")
_CODE = re.compile(r"\bcode (\d+) (\d+) (\d+)\b")


def crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def tone(low_hz: float, high_hz: float, count: int) -> np.ndarray:
    """Two sines of a quarter of full scale with edges of 2.5 ms, and 20 ms of silence."""
    at = np.arange(count) / RATE_HZ
    wave = 0.25 * (np.sin(2 * np.pi * low_hz * at) + np.sin(2 * np.pi * high_hz * at))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(20) + 0.5) / 20)
    wave[:20] *= ramp
    wave[-20:] *= ramp[::-1]
    return np.concatenate((wave, np.zeros(160)))


def filler() -> np.ndarray:
    """A second of noise that swells four times, -26 dBFS."""
    noise = np.convolve(np.random.default_rng(711).standard_normal(RATE_HZ + 8), np.ones(8) / 8, "valid")[:RATE_HZ]
    wave = noise * (0.6 - 0.4 * np.cos(2 * np.pi * 4 * np.arange(RATE_HZ) / RATE_HZ))
    return wave * 10 ** (-26 / 20) / np.sqrt(np.mean(wave**2))


PREAMBLE = tone(400, 2600, 640)
SYMBOLS = [tone(low, high, 400) for low, high in zip(LOW_HZ, HIGH_HZ, strict=True)]
FILLER = filler()


def render(text: str) -> bytes:
    """s16 at 8000 Hz: the text's tone code if it holds one, then 150 ms of filler for each other word."""
    parts, words = [], len(text.split())
    code = _CODE.search(text)
    if code is not None:
        call, turn, hash16 = (int(number) for number in code.groups())
        body = call.to_bytes(2, "big") + bytes([turn & 0xFF]) + hash16.to_bytes(2, "big")
        coded = body + bytes([crc8(body)])
        parts = [PREAMBLE] + [SYMBOLS[nibble] for byte in coded for nibble in (byte >> 4, byte & 15)]
        words -= 4
    count = 1200 * words
    parts.append(np.tile(FILLER, count // FILLER.size + 1)[:count])
    return (np.clip(np.concatenate(parts), -1, 1) * 32767).astype("<i2").tobytes()


class StubTranscriber(SegmentedSTTService):
    """One transcript for each segment that the pipeline's VAD closes."""

    def __init__(self, caller: str) -> None:
        super().__init__(ttfs_p99_latency=0.0, settings=STTSettings(model=None, language=None))
        self._caller = caller
        self._segments = 0

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        self._segments += 1
        yield TranscriptionFrame(f"turn {self._segments} of {self._caller}", "", str(time.time()))


class StubModel(LLMService):
    """Answers the last user message with its tone code, word by word.

    Prints a JSON line for each answered turn: `own` is from the end of the caller's turn, as pipecat decides it, to the
    first audio of the answer, both as they pass here.
    """

    def __init__(self, caller: str) -> None:
        super().__init__(
            settings=LLMSettings(
                model="stub", system_instruction=None, temperature=None, max_tokens=None, top_p=None, top_k=None,
                frequency_penalty=None, presence_penalty=None, seed=None, filter_incomplete_user_turns=False,
                user_turn_completion_config=None,
            )
        )  # fmt: skip
        self._call_no = int(caller[-4:] or 0)
        self._stopped_ns = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, UserStoppedSpeakingFrame):
            self._stopped_ns = time.monotonic_ns()
        elif isinstance(frame, BotStartedSpeakingFrame) and self._stopped_ns:
            own_ms = (time.monotonic_ns() - self._stopped_ns) / 1e6
            self._stopped_ns = 0
            print(json.dumps({"event": "turn", "stages": {"own": own_ms}}), flush=True)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        said = [one["content"] for one in frame.context.get_messages() if one.get("role") == "user"]
        heard = said[-1] if said and isinstance(said[-1], str) else ""
        turns = _TURN.findall(heard)
        turn = int(turns[-1]) if turns else len(said)
        answer = f"code {self._call_no} {turn % 256} {binascii.crc_hqx(heard.encode(), 0xFFFF)}, {TAIL}"
        await self.push_frame(LLMFullResponseStartFrame())
        for at, word in enumerate(answer.split(" ")):
            await self.push_frame(LLMTextFrame(word if at == 0 else f" {word}"))
        await self.push_frame(LLMFullResponseEndFrame())


class StubSynthesizer(TTSService):
    """Tone code and filler in chunks of 100 ms, as fast as they are taken."""

    def __init__(self) -> None:
        super().__init__(
            sample_rate=RATE_HZ, push_start_frame=True, push_stop_frames=True,
            settings=TTSSettings(model=None, voice=None, language=None),
        )  # fmt: skip

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        audio = render(text)
        size = CHUNK_MS * RATE_HZ // 1000 * 2
        for at in range(0, len(audio), size):
            yield TTSAudioRawFrame(audio[at : at + size], RATE_HZ, 1, context_id=context_id)
