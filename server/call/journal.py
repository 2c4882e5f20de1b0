"""The event journal of a call: what came in, when, and what was decided. From it the decisions can be made again.

One JSON line a step, the first line holds what the conversation was made from:

    {"journal":1,"call_id":…,"rate_hz":…,"settings":{…}}
    [now_ns, "SpeechStarted", {"start_ms":420}, [["BeginUtterance", {…}], …]]

Written through the operating system's cache only: a journal is for people and tests, facts go to the spool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from server.agent.settings import AgentSettings
from server.dialogue import event as ev
from server.dialogue.conversation import Conversation

VERSION = 1
# A call of four hours writes about 20 MB; beyond this the journal ends with a note, the call goes on.
MAX_BYTES = 64 * 1024 * 1024


class Journal:
    """Appends steps to a file. A disk that fails ends the journal, never the call."""

    __slots__ = ("_file", "_left_bytes", "failed")

    def __init__(
        self, path: Path | None, call_id: str, settings: AgentSettings, rate_hz: int, *, resumed: bool = False
    ) -> None:
        """`resumed`: a second stream of the call goes on in the same file."""
        self.failed = False
        self._left_bytes = MAX_BYTES
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=65536)
            except OSError:
                self.failed = True
        if not resumed:
            head = {"journal": VERSION, "call_id": call_id, "rate_hz": rate_hz, "settings": settings.as_dict()}
            self._line(orjson.dumps(head))

    def write(self, now_ns: int, event: ev.Event, actions: Sequence[ev.Action]) -> None:
        if self._file is not None:
            done = [[type(one).__name__, one] for one in actions]
            self._line(orjson.dumps([now_ns, type(event).__name__, event, done]))

    def close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self.failed = True
            self._file = None

    def _line(self, line: bytes) -> None:
        if self._file is None:
            return
        self._left_bytes -= len(line) + 1
        if self._left_bytes < 0:
            line = b'{"truncated":true}'
        try:
            self._file.write(line + b"\n")
        except OSError:
            self.failed = True
            self._left_bytes = -1
        if self._left_bytes < 0:
            self.close()


class JournalError(ValueError):
    """The file is not a journal, or of a version that this one cannot read."""


def replay(
    path: Path, against: AgentSettings | None = None
) -> Iterator[tuple[int, ev.Event, list[Any], list[Any]]]:
    """Step a journal again: yields (now_ns, event, actions as recorded, actions as decided now), JSON-plain.

    `against`: settings in place of the journal's own.
    """
    with path.open("rb") as lines:
        head = _head(next(lines, b""))
        conversation = Conversation(against or AgentSettings.parse(head["settings"]), head["rate_hz"])
        for line in lines:
            step = orjson.loads(line)
            if isinstance(step, dict):
                return
            now_ns, name, values, recorded = step
            event = ev.event_from(name, values)
            decided = [[type(one).__name__, asdict(one)] for one in conversation.step(event, now_ns)]
            yield now_ns, event, recorded, orjson.loads(orjson.dumps(decided))


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JournalError("not a journal: the first line is not JSON") from error
    if not isinstance(head, dict) or head.get("journal") != VERSION:
        raise JournalError(f"expected a journal of version {VERSION}")
    return head
