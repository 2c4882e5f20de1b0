"""A caller of the load: speaks, listens, and believes only the tone code that it hears.

    greeting ──quiet──→ speaking ──clip over──→ waiting ──reply heard and quiet──→ speaking …
                                                   └── patience over: the turn is missing

A turn is complete when a code was heard with this caller's number, a turn not heard before, and the hash of exactly the
words that the scripted recogniser gives for it (docs/tone-code.md). An utterance that the server cut in two gives the
words of both; both are then accepted, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.load.tone import ToneCode, crc16, read_codes
from bench.sim.party import Line
from bench.sim.sound import FRAME_MS, FRAME_SAMPLES, SAMPLES_PER_MS, SILENCE_B64, Clip, first_audible_sample, is_audible

GREETING_PATIENCE_MS = 6000
REPLY_PATIENCE_MS = 10_000
QUIET_MS = 400
MAX_SPLIT = 3
"""Utterances that one spoken turn may be cut into by the server's VAD."""
MAX_REPLY_FRAMES = 1500


@dataclass(slots=True)
class LoadRecord:
    """What a caller counted. Latencies: last speech sample sent → first audible sample received."""

    turns_expected: int = 0
    turns_completed: int = 0
    damaged: int = 0
    wrong: int = 0
    split: int = 0
    latency_ms: list[float] = field(default_factory=list)
    speech_frames: int = 0
    frames: int = 0


class LoadCaller:
    """One caller. `think_frames` is the pause before each of its turns; `stop` lets it finish its turn and hang up."""

    __slots__ = (
        "_clip", "_clips", "_first_arrived", "_frame_at", "_heard", "_line", "_number", "_quiet", "_seen",
        "_speech_end_ns", "_state", "_think_frames", "_waited", "call_no", "is_ready", "record", "stopping",
    )  # fmt: skip

    def __init__(self, number: str, clips: list[Clip], think_frames: int) -> None:
        self.record = LoadRecord()
        self.stopping = False
        self.is_ready = False
        self.call_no = int(number[-4:])
        self._number = number
        self._clips = clips
        self._think_frames = think_frames
        self._state = "greeting"
        self._waited = 0
        self._quiet = 0
        self._heard: list[bytes] = []
        self._clip = clips[self.call_no % len(clips)]
        self._frame_at = 0
        self._speech_end_ns = 0
        self._first_arrived = True
        self._seen = 0
        self._line: Line

    def on_start(self, line: Line, now_ns: int) -> None:
        self._line = line

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        self.record.frames += 1
        if self._state == "speaking":
            return self._speak(now_ns)
        self._waited += 1
        if heard is not None and is_audible(heard):
            self._quiet = 0
            if len(self._heard) < MAX_REPLY_FRAMES:
                self._heard.append(heard)
        else:
            self._quiet += 1
            if heard is not None and self._heard:
                self._heard.append(heard)
        if self._is_over():
            return self._next_turn(now_ns)
        return SILENCE_B64

    def on_media(self, pcmu: bytes, now_ns: int) -> None:
        if not self._first_arrived and first_audible_sample(pcmu) is not None:
            self._first_arrived = True
            self.record.latency_ms.append((now_ns - self._speech_end_ns) / 1e6)

    def on_clear(self, now_ns: int) -> None:
        """Callers of the load never interrupt: a clear changes nothing here and is counted by the stream."""

    def on_end(self, now_ns: int) -> None:
        """The records stand."""

    def _is_over(self) -> bool:
        patience_ms = GREETING_PATIENCE_MS if self._state == "greeting" else REPLY_PATIENCE_MS
        if not self._heard:
            return self._waited * FRAME_MS >= patience_ms
        return self._quiet * FRAME_MS >= QUIET_MS and self._quiet >= self._think_frames

    def _next_turn(self, now_ns: int) -> str | None:
        if self._state == "waiting":
            self._judge()
        self.is_ready = True
        self._heard.clear()
        if self.stopping:
            return None
        self._state = "speaking"
        self._frame_at = 0
        self._clip = self._clips[(self.call_no + self.record.turns_expected) % len(self._clips)]
        self._line.end_utterance()
        return self._speak(now_ns)

    def _speak(self, now_ns: int) -> str:
        payload = self._clip.frames_b64[self._frame_at]
        self._frame_at += 1
        self.record.speech_frames += 1
        if self._frame_at == self._clip.frames:
            padding = self._clip.frames * FRAME_SAMPLES - self._clip.speech_samples
            self._speech_end_ns = now_ns - padding * 1_000_000 // SAMPLES_PER_MS
            self._first_arrived = False
            self.record.turns_expected += 1
            self._state = "waiting"
            self._waited = self._quiet = 0
        return payload

    def _judge(self) -> None:
        codes, damaged = read_codes(b"".join(self._heard))
        self.record.damaged += damaged
        right = [code for code in codes if self._is_right(code)]
        self.record.wrong += len(codes) - len(right)
        if right:
            self.record.turns_completed += 1
            self._seen = right[-1].turn

    def _is_right(self, code: ToneCode) -> bool:
        # 8 bits of turn number wrap after 256 utterances: half an hour of load.
        fresh = (code.turn - self._seen) % 256
        if code.call != self.call_no or (fresh == 0 and self._seen):
            return False
        for parts in range(1, MAX_SPLIT + 1):
            first = code.turn - parts + 1
            words = " ".join(f"turn {n} of {self._number}" for n in range(first, code.turn + 1))
            if crc16(words.encode()) == code.hash16:
                self.record.split += parts - 1
                return True
        return False
