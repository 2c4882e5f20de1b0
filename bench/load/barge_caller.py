"""A caller who interrupts, and who sits in a noisy room: every second answer is cut short, the others are talked over
by noise that must not stop the agent.

    asking ──answer heard for so long──→ interrupting ──clip over──→ waiting ──code heard──→ noise ──quiet──→ asking …
                                              └── clear                                         └── clear: a false pause
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.load.load_caller import UNASKED_FRAMES
from bench.load.stale import AfterClear
from bench.load.turn_judge import LoadRecord, TurnJudge
from bench.sim.party import Line
from bench.sim.sound import (
    FRAME_MS,
    FRAME_NS,
    FRAME_SAMPLES,
    SAMPLES_PER_MS,
    SILENCE_B64,
    Clip,
    first_audible_sample,
    is_audible,
)

PATIENCE_MS = 6000
QUIET_MS = 400
INTERRUPT_AFTER_FRAMES = (55, 80)
"""Of the answer: its code (940 ms) has been heard, and enough is left to be cut off (2,440 ms in all)."""
NOISE_AFTER_FRAMES = 50
LATE_CLEAR_FRAMES = 20
"""A clear so soon after the noise was still caused by it."""
MAX_CLEAR_NS = 1_000_000_000
"""Later than that a clear is no answer to the interruption."""
RESUMED_FRAMES = 10
MAX_HEARD_FRAMES = 1500


@dataclass(slots=True)
class BargeIn:
    """One interruption: first speech sample sent, and when `clear` arrived (None: it did not)."""

    onset_ns: int
    clear_ns: int | None = None


@dataclass(slots=True)
class BargeRecord(LoadRecord):
    """Besides what every caller counts. `noise_frames`: the agent spoke into noise in so many frames."""

    barge_ins: list[BargeIn] = field(default_factory=list)
    stale_frames: int = 0
    noise_frames: int = 0
    false_pauses: int = 0
    resumed: int = 0
    other_clears: int = 0


class BargeCaller:
    """Cuts every second answer short. `noise` is played into the others; None leaves them in peace."""

    __slots__ = (
        "_after_clear", "_agent_frames", "_clip", "_clips", "_first_arrived", "_frame_at", "_heard", "_interruptions",
        "_is_noise_epoch", "_judge", "_line", "_noise", "_noise_at", "_quiet", "_since_noise", "_speech_end_ns",
        "_state", "_think_frames", "_waited", "_wants_noise", "_was_paused", "call_no", "is_ready", "record",
        "stopping",
    )  # fmt: skip

    def __init__(
        self, number: str, clips: list[Clip], interruptions: list[Clip], noise: Clip | None, think_frames: int
    ) -> None:
        self.record = BargeRecord()
        self.stopping = False
        self.is_ready = False
        self.call_no = int(number[-4:])
        self._judge = TurnJudge(number, self.record)
        self._after_clear = AfterClear()
        self._is_noise_epoch = False
        self._clips = clips
        self._interruptions = interruptions
        self._noise = noise
        self._think_frames = think_frames
        self._state = "greeting"  # greeting, speaking, waiting
        self._wants_noise = self._was_paused = False
        self._noise_at = -1
        self._since_noise = UNASKED_FRAMES + 1
        self._waited = self._quiet = self._agent_frames = 0
        self._heard: list[bytes] = []
        self._clip = clips[0]
        self._frame_at = 0
        self._speech_end_ns = 0
        self._first_arrived = True
        self._line: Line

    # ── the party ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_start(self, line: Line, now_ns: int) -> None:
        self._line = line

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        self.record.frames += 1
        self._listen(heard)
        if self._state == "speaking":
            return self._speak(now_ns)
        self._waited += 1
        if self._state == "waiting" and self._is_due():
            if not self._wants_noise:
                return self._interrupt(now_ns)
            if self._noise is not None and self._noise_at < 0:
                self._noise_at = 0
        if self._noise_at >= 0:
            return self._make_noise(heard)
        self._since_noise += 1
        if self._is_over():
            return self._next_turn(now_ns)
        return SILENCE_B64

    def on_media(self, pcmu: bytes, now_ns: int) -> None:
        self._after_clear.arrived(pcmu)
        if not self._first_arrived and first_audible_sample(pcmu) is not None:
            self._first_arrived = True
            self.record.latency_ms.append((now_ns - self._speech_end_ns) / 1e6)

    def on_clear(self, now_ns: int) -> None:
        record = self.record
        self._judge.cleared()
        self._settle()
        self._is_noise_epoch = self._noise_at >= 0 or self._since_noise <= LATE_CLEAR_FRAMES
        self._after_clear.cleared(self._judge.seen)
        if self._is_noise_epoch:
            record.false_pauses += 1
            self._was_paused = True
        elif self._is_answered(now_ns):
            record.barge_ins[-1].clear_ns = now_ns
        else:
            record.other_clears += 1
            is_quiet = self._state != "speaking" and min(self._waited, self._since_noise) > UNASKED_FRAMES
            record.unasked_clears += is_quiet

    def on_end(self, now_ns: int) -> None:
        self._settle()

    def _is_answered(self, now_ns: int) -> bool:
        """A clear that comes now is the first after an interruption, and in time."""
        last = self.record.barge_ins[-1] if self.record.barge_ins else None
        return last is not None and last.clear_ns is None and now_ns - last.onset_ns <= MAX_CLEAR_NS

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, heard: bytes | None) -> None:
        if heard is None or not is_audible(heard):
            self._quiet += 1
            if heard is not None and self._heard:
                self._heard.append(heard)
            return
        self._quiet = 0
        self._agent_frames += 1
        if len(self._heard) < MAX_HEARD_FRAMES:
            self._heard.append(heard)

    def _is_due(self) -> bool:
        if self._wants_noise:
            return self._agent_frames >= NOISE_AFTER_FRAMES
        first, last = INTERRUPT_AFTER_FRAMES
        spread = (self.call_no * 5 + self.record.turns_expected * 3) % (last - first)
        return not self.stopping and self._agent_frames >= first + spread

    def _is_over(self) -> bool:
        if not self._agent_frames:
            return self._waited * FRAME_MS >= PATIENCE_MS
        return self._quiet * FRAME_MS >= QUIET_MS and self._quiet >= self._think_frames

    def _make_noise(self, heard: bytes | None) -> str:
        assert self._noise is not None
        payload = self._noise.frames_b64[self._noise_at]
        self._noise_at += 1
        self._since_noise = 0
        if heard is not None and is_audible(heard):
            self.record.noise_frames += 1
        if self._noise_at == self._noise.frames:
            self._noise_at = -1
            self._wants_noise = False
            # A server that took the noise for words answers them: another utterance, not a gap in this one.
            self._line.end_utterance()
            self._state = "listening"
        return payload

    def _interrupt(self, now_ns: int) -> str:
        """The answer was judged by its code; now it is cut short."""
        self._judge.judge(b"".join(self._heard), was_interrupted=True)
        self._settle()
        # The first frame of the clip is what the microphone took in the 20 ms that end now.
        self.record.barge_ins.append(BargeIn(now_ns - FRAME_NS))
        self._wants_noise = True
        return self._begin(self._interruptions[self.record.turns_expected % len(self._interruptions)], now_ns)

    def _next_turn(self, now_ns: int) -> str | None:
        if self._state != "greeting":
            # A false pause is counted as that; whether the answer goes on after it is the server's to choose.
            self._judge.judge(b"".join(self._heard), was_interrupted=self._was_paused)
        else:
            self.record.is_greeted = self._agent_frames > 0
        self.record.in_turn = not self.stopping
        self._settle()
        self.is_ready = True
        if self.stopping:
            return None
        self._wants_noise = False
        if not self._judge.is_open:
            self._line.end_utterance()
        return self._begin(self._clips[(self.call_no + self.record.turns_expected) % len(self._clips)], now_ns)

    def _begin(self, clip: Clip, now_ns: int) -> str:
        self._clip = clip
        self._frame_at = 0
        self._state = "speaking"
        return self._speak(now_ns)

    def _speak(self, now_ns: int) -> str:
        clip = self._clip
        payload = clip.frames_b64[self._frame_at]
        self._frame_at += 1
        self.record.speech_frames += 1
        if self._frame_at == clip.frames:
            padding = clip.frames * FRAME_SAMPLES - clip.speech_samples
            self._speech_end_ns = now_ns - padding * 1_000_000 // SAMPLES_PER_MS
            self._first_arrived = False
            self.record.turns_expected += 1
            self._state = "waiting"
            self._waited = self._quiet = self._agent_frames = 0
            self._was_paused = False
            self._heard.clear()
        return payload

    def _settle(self) -> None:
        """What came after the last clear is known: an answer that was cancelled, or one that goes on after noise."""
        frames = self._after_clear.settle()
        if not self._is_noise_epoch:
            self.record.stale_frames += frames
        elif frames >= RESUMED_FRAMES:
            self.record.resumed += 1
        self._is_noise_epoch = False
