"""What the simulated service received and answered: connections and turns, the newest of each kept."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Connection:
    """One accepted WebSocket. `headers` have lower-case names; `config` is the body of speech.config."""

    no: int
    service: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    telemetry: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("no", "service", "path", "query", "headers", "config", "closed")}


@dataclass(slots=True)
class SttTurn:
    """One turn of recognition.

    `context` is the body of speech.context; the fields below it are what was asked for, by it or by the query.
    `format`: of the audio, as (tag, rate, bits). `finals`: DisplayText of each phrase sent ("" for one without).
    `ended`: done, client (it went away), fault, or empty while it runs.
    """

    no: int
    connection: Connection
    request_id: str
    service_tag: str
    context: dict[str, Any]
    mode: str = ""
    language: str = ""
    languages: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    phrase_weight: float | None = None
    segmentation_ms: int | None = None
    longest_ms: int | None = None
    initial_silence_ms: int | None = None
    stable: int | None = None
    profanity: str = ""
    is_detailed: bool = False
    has_word_times: bool = False
    previous_tag: str = ""
    offset_ms: float = 0.0
    format: tuple[int, int, int] | None = None
    audio_bytes: int = 0
    audio_ms: float = 0.0
    interims: deque[str] = field(default_factory=lambda: deque(maxlen=1000))
    finals: deque[str] = field(default_factory=lambda: deque(maxlen=1000))
    commits: deque[int] = field(default_factory=lambda: deque(maxlen=1000))
    fault: str = ""
    ended: str = ""
    begun_s: float = field(default_factory=time.monotonic)

    def as_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "connection"}
        lists = {name: list(value) for name, value in own.items() if isinstance(value, deque)}
        return own | lists | {"connection": self.connection.no}


@dataclass(slots=True)
class TtsTurn:
    """One turn of synthesis.

    `ssml` is what came, `text` what is spoken of it (pieces of a streamed text joined); `voices` and `said` (pieces
    with voice, locale, rate, pitch, volume, style) what was understood. `audio`: what was sent, or would have been
    without a fault. `refusal`: why it was refused.
    """

    no: int
    connection: Connection
    request_id: str
    context: dict[str, Any]
    output_format: str = ""
    ssml: str = ""
    pieces: list[str] = field(default_factory=list)
    text: str = ""
    voices: tuple[str, ...] = ()
    said: tuple[Any, ...] = ()
    lexicons: tuple[str, ...] = ()
    audio: bytes = b""
    sent_bytes: int = 0
    fault: str = ""
    refusal: str = ""
    ended: str = ""
    begun_s: float = field(default_factory=time.monotonic)

    def as_json(self) -> dict[str, Any]:
        left = ("connection", "audio", "said")
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left}
        said = [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in self.said]
        return own | {"connection": self.connection.no, "audio_bytes": len(self.audio), "said": said}
