"""The messages of the Speech service's WebSocket protocol: headers and a body, as text or as bytes.

Text: `Name:Value` lines, an empty line, the body. Binary: two bytes with the length of the headers, the headers, the
payload. Names are matched without case. Offsets and durations are ticks of 100 ns.
"""

from __future__ import annotations

import datetime
import struct
from dataclasses import dataclass
from typing import Any

import orjson

TICKS_PER_MS = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the client. `headers` have lower-case names; a text's body is UTF-8 bytes."""

    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.headers.get("path", "").lower()

    @property
    def request_id(self) -> str:
        return self.headers.get("x-requestid", "")

    def json(self) -> dict[str, Any]:
        """Raises ValueError when the body is no JSON object."""
        value = orjson.loads(self.body or b"{}")
        if not isinstance(value, dict):
            raise ValueError(f"{self.path}: expected an object")
        return value


def read_text(message: str) -> Message:
    head, _, body = message.partition("\r\n\r\n")
    return Message(_headers(head), body.encode())


def read_binary(message: bytes) -> Message:
    """Raises ValueError when the length of the headers is wrong."""
    if len(message) < 2 or len(message) < 2 + (size := struct.unpack_from(">H", message)[0]):
        raise ValueError(f"expected headers as long as they say; got {len(message)} bytes")
    return Message(_headers(message[2 : 2 + size].decode("utf-8", "replace")), message[2 + size :])


def _headers(head: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def text(path: str, request_id: str, body: Any) -> str:
    content = orjson.dumps(body).decode()
    return (
        f"X-Timestamp:{_now()}\r\nPath:{path}\r\nContent-Type:application/json; charset=utf-8\r\n"
        f"X-RequestId:{request_id}\r\n\r\n{content}"
    )


def audio(request_id: str, stream_id: str, payload: bytes) -> bytes:
    """A piece of sound; an empty one ends the stream and has no content type."""
    kind = "Content-Type:audio/x-wav\r\n" if payload else ""
    head = (
        f"X-Timestamp:{_now()}\r\nPath:audio\r\n{kind}X-RequestId:{request_id}\r\nX-StreamId:{stream_id}\r\n".encode()
    )
    return struct.pack(">H", len(head)) + head + payload


def ticks(ms: float) -> int:
    return round(ms * TICKS_PER_MS)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
