"""What is worth keeping about a call, as values that the spool writes and the shipper copies to PostgreSQL.

A fact is JSON on disk: `encode` and `decode` are inverse, and `decode` of a record that an older version wrote
fills new fields with their defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

STAGES = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own", "playout")
"""Owners of a turn's milliseconds; one column of `turn` for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    """`at` is Unix time in seconds; `carrier_call_id` of a browser is the call's own id."""

    call_id: str
    carrier: Literal["twilio", "telnyx", "browser"]
    carrier_call_id: str
    direction: Literal["inbound", "outbound"]
    from_number: str
    to_number: str
    agent_version_id: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered:
    """The media stream is open."""

    call_id: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFact:
    """`stages` maps names of STAGES to milliseconds; a stage that did not happen is absent."""

    call_id: str
    turn_no: int
    stages: Mapping[str, float] = field(default_factory=dict)
    turn_latency_ms: float | None = None
    interrupted: bool = False
    caller_text: str = ""
    agent_text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    providers: Mapping[str, str] = field(default_factory=dict)  # stt, llm, tts -> name


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFact:
    """A line of the transcript; offsets are media time. `heard_text` None: all of it was heard."""

    call_id: str
    seq: int
    speaker: str
    text: str
    start_ms: int
    end_ms: int
    heard_text: str | None = None
    confidence: float | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """A tool is about to be called: on disk before anything happens. `arguments` without what is not to be kept."""

    call_id: str
    tool_no: int
    name: str
    arguments: Mapping[str, Any]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEnded:
    """`outcome`: done, refused, rejected, failed, timeout or unreachable; `result` is what the model was told."""

    call_id: str
    tool_no: int
    outcome: str
    result: str
    attempts: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    call_id: str
    reason: str
    duration_ms: int
    at: float
    counters: Mapping[str, int] = field(default_factory=dict)


Fact = CallStarted | CallAnswered | TurnFact | SegmentFact | ToolStarted | ToolEnded | CallEnded

_KINDS: dict[str, type[Fact]] = {
    "call_started": CallStarted,
    "call_answered": CallAnswered,
    "turn": TurnFact,
    "segment": SegmentFact,
    "tool_started": ToolStarted,
    "tool_ended": ToolEnded,
    "call_ended": CallEnded,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class FactError(ValueError):
    """A record is not a fact that this version knows."""


def encode(fact: Fact) -> bytes:
    """One JSON object, with the kind under "fact". Raises TypeError for a value that JSON has no form for."""
    fields = {name: getattr(fact, name) for name in fact.__slots__}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            fields[name] = dict(value)
    try:
        return orjson.dumps({"fact": _NAMES[type(fact)], **fields})
    except TypeError:
        # A lone surrogate in a text (a recogniser's or a model's) must not cost the whole line.
        return orjson.dumps({"fact": _NAMES[type(fact)], **{k: _mended(v) for k, v in fields.items()}})


def decode(record: bytes) -> Fact:
    """The fact that was encoded. Raises FactError."""
    try:
        fields = orjson.loads(record)
        kind = _KINDS[fields.pop("fact")]
        known = {f.name for f in dataclasses.fields(kind)}
        return kind(**{name: value for name, value in fields.items() if name in known})
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise FactError(f"expected a fact, got {record[:80]!r} ({error})") from error


def _mended(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
