"""A caller of the load: speaks, listens, and believes only the tone code that it hears.

    greeting ──quiet──→ speaking ──clip over──→ waiting ──reply heard and quiet──→ speaking …
                                                   └── patience over: the turn is missing

A turn is complete when a code was heard with this caller's number, a turn not heard before, and the hash of exactly the
words that the scripted recogniser gives for it, and then the rest of the answer (docs/tone-code.md, turn_judge.py). A
caller who speaks after half an answer does not end it: what comes then came too late.
"""

from __future__ import annotations

from bench.load.options import Proof
from bench.load.turn_judge import LoadRecord, SoundJudge, TurnJudge
from bench.sim.party import Line
from bench.sim.sound import FRAME_MS, FRAME_SAMPLES, SAMPLES_PER_MS, SILENCE_B64, Clip, first_audible_sample, is_audible

GREETING_PATIENCE_MS = 6000
REPLY_PATIENCE_MS = 6000
QUIET_MS = 400
MAX_REPLY_FRAMES = 1500
UNASKED_FRAMES = 50
"""A clear that comes a second after the caller's last word has another cause."""
TALKED_OVER_FRAMES = 5
"""Audible in a caller's turn: the agent speaks too; less is the end of a word."""


class LoadCaller:
    """One caller. `think_frames` is the pause before each of its turns; `stop` lets it finish its turn and hang up."""

    __slots__ = (
        "_clip", "_clips", "_first_arrived", "_frame_at", "_heard", "_judge", "_line", "_over_frames", "_quiet",
        "_speech_end_ns", "_state", "_think_frames", "_waited", "call_no", "is_ready", "record", "stopping",
    )  # fmt: skip

    def __init__(self, number: str, clips: list[Clip], think_frames: int, proof: Proof = "tone codes") -> None:
        self.record = LoadRecord()
        self.stopping = False
        self.is_ready = False
        self.call_no = int(number[-4:])
        self._judge = TurnJudge(number, self.record) if proof == "tone codes" else SoundJudge(self.record)
        self._clips = clips
        self._think_frames = think_frames
        self._state = "greeting"
        self._waited = 0
        self._quiet = 0
        self._heard: list[bytes] = []
        self._clip = clips[self.call_no % len(clips)]
        self._frame_at = 0
        self._over_frames = 0
        self._speech_end_ns = 0
        self._first_arrived = True
        self._line: Line

    def on_start(self, line: Line, now_ns: int) -> None:
        self._line = line

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        self.record.frames += 1
        if self._state == "speaking":
            self._over_frames += heard is not None and is_audible(heard)
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
        """Callers of the load never interrupt, but may have taken the silence in an answer for its end."""
        self._judge.cleared()
        self.record.unasked_clears += self._state != "speaking" and self._waited > UNASKED_FRAMES

    def on_end(self, now_ns: int) -> None:
        """The records stand."""

    def _is_over(self) -> bool:
        patience_ms = GREETING_PATIENCE_MS if self._state == "greeting" else REPLY_PATIENCE_MS
        if not self._heard:
            return self._waited * FRAME_MS >= patience_ms
        return self._quiet * FRAME_MS >= QUIET_MS and self._quiet >= self._think_frames

    def _next_turn(self, now_ns: int) -> str | None:
        if self._state == "waiting":
            self._judge.judge(b"".join(self._heard))
        else:
            self.record.is_greeted = bool(self._heard)
        self.record.in_turn = not self.stopping
        self.is_ready = True
        self._heard.clear()
        if self.stopping:
            return None
        self._state = "speaking"
        self._frame_at = self._over_frames = 0
        self._clip = self._clips[(self.call_no + self.record.turns_expected) % len(self._clips)]
        if not self._judge.is_open:
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
            self.record.talked_over += self._over_frames >= TALKED_OVER_FRAMES
            self._state = "waiting"
            self._waited = self._quiet = 0
        return payload
