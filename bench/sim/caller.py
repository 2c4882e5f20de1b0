"""A scripted human on the phone: decides by what it hears, never by what the server knows.

    listening ──agent finished, think time──→ speaking ──clip over──→ listening …  → hangs up
        └──agent has spoken for so long──→ speaking (barge-in)

Hearing is the energy of the played-out audio. An agent has finished when it has been quiet for `quiet_ms` after it was
heard; a caller who gets no answer goes on after `patience_ms`. Each turn notes what a person with a stop watch would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from bench.sim.party import Line
from bench.sim.sound import FRAME_MS, FRAME_SAMPLES, SAMPLES_PER_MS, SILENCE_B64, Clip, first_audible_sample, is_audible

NS_PER_MS = 1_000_000


class When(Enum):
    """What a turn waits for."""

    AGENT_FINISHED = "after the agent has finished"
    BARGE_IN = "while the agent speaks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Say a clip. `think_ms`: pause after the agent; `after_ms`: the agent's speech before a barge-in.

    `cut_ms`: hang up in mid-sentence, so long into the clip. `key`: press a key instead of speaking. `keys`: (ms into
    the clip, key), pressed while speaking. `expect`: words of which one must be in the answer; `holds`: values that it
    must have, (name, ways to write it). The caller does not use these two, who judges the call does.
    """

    clip: Clip | None = None
    when: When = When.AGENT_FINISHED
    think_ms: int = 600
    after_ms: int = 700
    cut_ms: int | None = None
    key: str = ""
    keys: tuple[tuple[int, str], ...] = ()
    expect: tuple[str, ...] = ()
    holds: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(slots=True)
class TurnRecord:
    """One turn of the caller, in ms since the stream began; None is "did not happen".

    reply_latency_ms: last speech sample sent → first audible sample received. time_to_clear_ms: first speech sample
    sent → `clear` received, for barge-ins. reply_heard_ms, reply_end_ms: first and last instant of audible answer.
    """

    say: Say
    said_from_ms: float
    said_to_ms: float | None = None
    reply_latency_ms: float | None = None
    reply_heard_ms: float | None = None
    reply_end_ms: float | None = None
    time_to_clear_ms: float | None = None


class ScriptedCaller:
    """Plays `turns` in order, listens to the last answer, then hangs up (or stays, with `stay`, up to `max_ms`).

    Args:
        quiet_ms: silence after which the agent has finished; longer than its pauses between sentences.
        patience_ms: the longest wait for an answer or a greeting before the caller goes on.
        react: what is said instead of the next turn once a turn was answered, or None to go on.
    """

    def __init__(
        self,
        turns: Sequence[Say],
        *,
        quiet_ms: int = 1000,
        patience_ms: int = 8000,
        stay: bool = False,
        max_ms: int = 180_000,
        react: Callable[[Sequence[TurnRecord]], Say | None] | None = None,
    ) -> None:
        self.records: list[TurnRecord] = []
        self.agent_speech_ms = 0
        self.first_heard_ms: float | None = None
        self.cut_off = False
        self._turns = list(turns)
        self._next = 0
        self._react = react
        self._considered = 0  # turns whose answer was thought about
        self._quiet_frames = quiet_ms // FRAME_MS
        self._patience_frames = patience_ms // FRAME_MS
        self._stay = stay
        self._max_frames = max_ms // FRAME_MS
        self._line: Line
        self._opened_ns = 0
        self._frame = 0
        self._waited = 0  # frames since the caller last spoke, or since the beginning
        self._agent_frames = 0  # audible frames since then
        self._quiet = 0  # frames of silence since the agent was last heard
        self._clip: Clip | None = None
        self._clip_frame = 0
        self._speech_end_ns = 0

    # ── the party ────────────────────────────────────────────────────────────────────────────────────────────

    def on_start(self, line: Line, now_ns: int) -> None:
        self._line = line
        self._opened_ns = now_ns

    def step(self, heard: bytes | None, now_ns: int) -> str | None:
        self._frame += 1
        self._listen(heard, now_ns)
        if self._frame > self._max_frames:
            return None
        if self._clip is not None:
            return self._speak(now_ns)
        self._waited += 1
        if self._next < len(self._turns):
            if self._is_due(self._turns[self._next]):
                self._consider()
                return self._begin(now_ns)
        elif self._has_answer():
            self._consider()
            if self._next < len(self._turns):
                return self._begin(now_ns)
            if not self._stay:
                return None
        return SILENCE_B64

    def on_media(self, pcmu: bytes, now_ns: int) -> None:
        record = self.records[-1] if self.records else None
        if record is None or record.said_to_ms is None or record.reply_latency_ms is not None:
            return
        if first_audible_sample(pcmu) is not None:
            record.reply_latency_ms = (now_ns - self._speech_end_ns) / NS_PER_MS

    def on_clear(self, now_ns: int) -> None:
        record = self.records[-1] if self.records else None
        if record is not None and record.say.when is When.BARGE_IN and record.time_to_clear_ms is None:
            record.time_to_clear_ms = self._ms(now_ns) - record.said_from_ms

    def on_end(self, now_ns: int) -> None:
        """Nothing to do: the records stand."""

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, heard: bytes | None, now_ns: int) -> None:
        if heard is None or not is_audible(heard):
            self._quiet += 1
            return
        self._quiet = 0
        self._agent_frames += 1
        self.agent_speech_ms += FRAME_MS
        now_ms = self._ms(now_ns)
        if self.first_heard_ms is None:
            self.first_heard_ms = now_ms
        if self.records and self.records[-1].said_to_ms is not None:
            record = self.records[-1]
            if record.reply_heard_ms is None:
                record.reply_heard_ms = now_ms
            record.reply_end_ms = now_ms

    def _has_answer(self) -> bool:
        if self._agent_frames == 0:
            return self._waited >= self._patience_frames
        return self._quiet >= self._quiet_frames

    def _is_due(self, turn: Say) -> bool:
        if turn.when is When.BARGE_IN:
            return self._agent_frames * FRAME_MS >= turn.after_ms or self._waited >= self._patience_frames
        if self._agent_frames == 0:
            return self._waited >= self._patience_frames
        return self._quiet >= self._quiet_frames and self._quiet * FRAME_MS >= turn.think_ms

    def _consider(self) -> None:
        """The last turn was answered: something may have to be said about that first."""
        if self._react is not None and self.records and self._considered < len(self.records):
            self._considered = len(self.records)
            reaction = self._react(self.records)
            if reaction is not None:
                self._turns.insert(self._next, reaction)

    def _begin(self, now_ns: int) -> str | None:
        turn = self._turns[self._next]
        self._next += 1
        if turn.when is When.AGENT_FINISHED:
            self._line.end_utterance()
        self._clip_frame = 0
        # The first frame of the clip is what the microphone took in the 20 ms that end now.
        self.records.append(TurnRecord(turn, self._ms(now_ns) - FRAME_MS))
        if turn.key:
            self._line.send_dtmf(turn.key)
        if turn.clip is None:
            self._finish(now_ns)
            return SILENCE_B64
        self._clip = turn.clip
        return self._speak(now_ns)

    def _speak(self, now_ns: int) -> str | None:
        clip = self._clip
        assert clip is not None
        said_ms, cut_ms = self._clip_frame * FRAME_MS, self.records[-1].say.cut_ms
        for at_ms, key in self.records[-1].say.keys:
            if said_ms <= at_ms < said_ms + FRAME_MS:
                self._line.send_dtmf(key)
        if cut_ms is not None and said_ms >= cut_ms:
            self.cut_off = True
            self._finish(now_ns)
            return None
        payload = clip.frames_b64[self._clip_frame]
        self._clip_frame += 1
        if self._clip_frame == clip.frames:
            padding = clip.frames * FRAME_SAMPLES - clip.speech_samples
            self._finish(now_ns - padding * NS_PER_MS // SAMPLES_PER_MS)
        return payload

    def _finish(self, speech_end_ns: int) -> None:
        self._clip = None
        self._speech_end_ns = speech_end_ns
        self.records[-1].said_to_ms = self._ms(speech_end_ns)
        # What is still playing of the old answer is not the new one: an answer counts from now on.
        self._waited = self._agent_frames = self._quiet = 0

    def _ms(self, now_ns: int) -> float:
        return (now_ns - self._opened_ns) / NS_PER_MS
