"""What the server reports of a call while it runs: the JSON lines of its log, nothing else of its inside.

{"event": "segment", "call_id": …, "speaker": "caller"|"agent", "text": …, "heard_text": …, "start_ms": …}
{"event": "turn", "call_id": …, "turn_no": …, "latency_ms": …, "stages": {…}}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.load.server_process import ServerProcess

STAGES = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own", "playout")


@dataclass(frozen=True, slots=True)
class Segment:
    """Something that one side said; `heard` is what the caller heard of it."""

    speaker: str
    text: str
    heard: str
    start_ms: int
    interrupted: bool


@dataclass(slots=True)
class Talk:
    """One call as the server tells it."""

    segments: list[Segment] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, Any] | None = None
    failures: list[str] = field(default_factory=list)


class TalkReader:
    """Follows the log. Calls of the demo come one after the other, so the lines belong to the call that runs."""

    def __init__(self, server: ServerProcess, show: Callable[[str], None]) -> None:
        self._server = server
        self._show = show
        self._at = 0
        self.talk = Talk()

    def begin(self) -> None:
        """A new call: what the log still holds belongs to the one before."""
        self.poll()
        self.talk = Talk()

    def poll(self) -> None:
        """Take the lines that came since the last time."""
        lines, self._at = self._server.log_lines(self._at)
        for line in lines:
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        event = line.get("event")
        if event == "segment":
            segment = Segment(
                line["speaker"],
                line["text"],
                line.get("heard_text") or "",
                int(line.get("start_ms") or 0),
                bool(line.get("interrupted")),
            )
            self.talk.segments.append(segment)
            heard = segment.heard if segment.speaker == "agent" else segment.text
            cut = " —" if segment.interrupted and segment.speaker == "agent" else ""
            self._show(f"  {segment.start_ms / 1000:6.1f} s  {segment.speaker:>6}: {heard}{cut}")
        elif event == "turn":
            self.talk.turns.append(line)
        elif event == "call_ended":
            self.talk.ended = line
        elif str(line.get("logger", "")).startswith("server.call") and _is_failure(line):
            text = str(line.get("message") or line.get("msg") or line)
            self.talk.failures.append(text)
            self._show(f"          server: {text}")


def _is_failure(line: dict[str, Any]) -> bool:
    return line.get("event") in ("call_failed", "provider_failed", "bad_stream") or line.get("level") == "error"
