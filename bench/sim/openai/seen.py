"""What a simulated service received: each request with its headers and body, and how it ended.

Bounded: the newest `keep` requests, and bodies as parsed JSON or as the fields of a form (a file is its size).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Seen:
    """One request.

    `headers` have lower-case names; `body` is JSON, or the form's fields. `audio` is a file that came in the form.
    `connection` numbers the TCP connections from 1: equal numbers, one connection; `is_first` on it. `status` 0: no
    head was sent. `tokens` were sent (audio: chunks). `ended`: done, client (it went away), fault, refused, or empty
    while it runs; `over` is set then.
    """

    no: int
    connection: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    is_first: bool = False
    route: str = ""
    body: Any = None
    audio: bytes = b""
    fault: str = ""
    status: int = 0
    tokens: int = 0
    sent_bytes: int = 0
    ended: str = ""
    begun_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, how: str) -> None:
        if not self.ended:
            self.ended, self.ended_s = how, time.monotonic()
            self.over.set()

    def as_json(self) -> dict[str, Any]:
        names = (
            "no", "connection", "method", "path", "query", "headers", "route", "body", "fault", "status", "tokens",
            "sent_bytes", "ended",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"audio_bytes": len(self.audio)}


class Log:
    """The newest requests, oldest first."""

    __slots__ = ("_kept", "count")

    def __init__(self, keep: int) -> None:
        self._kept: deque[Seen] = deque(maxlen=keep)
        self.count = 0

    def add(self, seen: Seen) -> None:
        self.count += 1
        self._kept.append(seen)

    def of(self, route: str = "") -> list[Seen]:
        return [one for one in self._kept if route in ("", one.route)]

    def clear(self) -> None:
        self._kept.clear()
