"""What a conversation is told and what it wants done: the vocabulary of captures.

Every value is plain (text, numbers, booleans, tuples of them), so that an event written to a capture and read
back is equal to the first. Instants are monotonic nanoseconds of one process; media times are milliseconds
since the first sample of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# ── events: what happened ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CallBegan:
    """The media stream has started and was let in."""


@dataclass(frozen=True, slots=True)
class StreamResumed:
    """A new media stream carries the call on after the first one broke."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechConfirmed:
    """The talkspurt has lasted `interruption.min_speech_ms` of media time."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """`end_ns` is the instant at which the last speech sample was received."""

    start_ms: int
    end_ms: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class TranscriptInterim:
    utterance_no: int
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptFinal:
    utterance_no: int
    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class TranscriberFailed:
    error: str


@dataclass(frozen=True, slots=True)
class ReplyText:
    reply_no: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyTool:
    """The model asks for a tool. `fits`: whether the arguments fit its schema, where a capture has not all of them."""

    reply_no: int
    tool_id: str
    name: str
    arguments: str
    fits: bool | None = None


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """`provider` is who answered: a fallback may have taken over."""

    reply_no: int
    reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    provider: str = ""


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    reply_no: int
    error: str


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """The call `tool_no` of a tool was carried out, or it was not: then `result` begins with "error"."""

    tool_no: int
    result: str


@dataclass(frozen=True, slots=True)
class SpeechRequested:
    """The synthesiser was asked for the clause."""

    clause_no: int


@dataclass(frozen=True, slots=True)
class SpeechFirstByte:
    clause_no: int


@dataclass(frozen=True, slots=True)
class SpeechRendered:
    """All audio of the clause is queued for the carrier: `samples` at the stream's rate."""

    clause_no: int
    samples: int


@dataclass(frozen=True, slots=True)
class SpeechFailed:
    clause_no: int
    error: str


@dataclass(frozen=True, slots=True)
class FirstSent:
    """The first audible sample of the clause was handed to the socket."""

    clause_no: int


@dataclass(frozen=True, slots=True)
class PlayoutFinished:
    """The carrier has played the clause: by its mark, or by the clock when the mark did not come back."""

    clause_no: int
    by_mark: bool


@dataclass(frozen=True, slots=True)
class PlayoutCleared:
    """Answer to ClearPlayout: (clause_no, heard samples, sent samples) of what was being played."""

    heard: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class DigitReceived:
    digit: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    name: str


@dataclass(frozen=True, slots=True)
class HandOverFailed:
    """The carrier did not put the call through; it is still ours."""

    error: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """`reason`: caller_hung_up, agent_hung_up, media_lost, drained or error."""

    reason: str


Event = (
    CallBegan
    | StreamResumed
    | SpeechStarted
    | SpeechConfirmed
    | SpeechStopped
    | TranscriptInterim
    | TranscriptFinal
    | TranscriberFailed
    | ReplyText
    | ReplyTool
    | ReplyDone
    | ReplyFailed
    | ToolFinished
    | SpeechRequested
    | SpeechFirstByte
    | SpeechRendered
    | SpeechFailed
    | FirstSent
    | PlayoutFinished
    | PlayoutCleared
    | DigitReceived
    | TimerFired
    | HandOverFailed
    | StreamEnded
)

# ── actions: what to do ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class BeginUtterance:
    utterance_no: int
    start_ms: int


@dataclass(frozen=True, slots=True)
class ResumeUtterance:
    utterance_no: int


@dataclass(frozen=True, slots=True)
class CommitUtterance:
    utterance_no: int


@dataclass(frozen=True, slots=True)
class RequestReply:
    """Ask the model with the history as it now stands (`Conversation.request`)."""

    reply_no: int
    message_count: int


@dataclass(frozen=True, slots=True)
class InvokeTool:
    """Carry the call out, once, whatever becomes of the reply. `arguments` is a JSON object that fits the schema."""

    tool_no: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CancelReply:
    reply_no: int


@dataclass(frozen=True, slots=True)
class Speak:
    """Render and play `text`. `prepared`: a fixed text of the agent, which is in memory already."""

    clause_no: int
    text: str
    prepared: bool


@dataclass(frozen=True, slots=True)
class Interject:
    """Say a fixed text before the reply that is still waited for, if its clip is there and the reply is not."""

    clause_no: int
    text: str


@dataclass(frozen=True, slots=True)
class ClearPlayout:
    """Drop all queued audio, here and at the carrier; answer with PlayoutCleared in the same step."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    name: str
    due_ns: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    name: str


@dataclass(frozen=True, slots=True)
class RecordSegment:
    """A line of the transcript. `heard_text` is what of `text` reached the caller; equal to it for the caller."""

    segment_no: int
    speaker: str
    text: str
    heard_text: str
    start_ms: int
    end_ms: int
    confidence: float | None
    interrupted: bool


@dataclass(frozen=True, slots=True)
class RecordTurn:
    """One turn's latency account; `stages` are (name, milliseconds) and sum to `latency_ms` without playout."""

    turn_no: int
    latency_ms: float | None
    stages: tuple[tuple[str, float], ...]
    interrupted: bool
    caller_text: str
    agent_text: str
    prompt_tokens: int
    completion_tokens: int
    model_provider: str = ""


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the carrier's leg. `reason`: agent, idle, max_duration or error."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Have the carrier put the call through to `number` (E.164)."""

    number: str


Action = (
    BeginUtterance
    | ResumeUtterance
    | CommitUtterance
    | RequestReply
    | InvokeTool
    | CancelReply
    | Speak
    | Interject
    | ClearPlayout
    | SetTimer
    | CancelTimer
    | RecordSegment
    | RecordTurn
    | HangUp
    | HandOver
)

EVENTS: dict[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}


def event_from(name: str, values: Mapping[str, Any]) -> Event:
    """The event that a captured step holds. Raises ValueError for an unknown name or field."""
    kind = EVENTS.get(name)
    if kind is None:
        raise ValueError(f"unknown event {name!r}")
    known = {f.name for f in fields(kind)}
    if not known.issuperset(values):
        raise ValueError(f"{name}: unknown fields {sorted(set(values) - known)}")
    made: Event = kind(**{key: _tupled(value) for key, value in values.items()})
    return made


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
