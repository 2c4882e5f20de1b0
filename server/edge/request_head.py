"""The head of a connection's first request: just enough HTTP to decide where the connection goes.

Guarantees: sans-IO and total: any bytes give a `RequestHead`, None ("more bytes") or `HeadRefused`. Stricter than
h11, which parses the same bytes again for HTTP: what two parsers could read in two ways (a bare CR or LF, a folded
line, a space before the colon) is refused here. Leaves to others: bodies, everything after the head.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass

MEDIA_PREFIX = "/media/"

_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_MAX_HEADERS = 100
# HTTP/2 by prior knowledge (RFC 9113, 3.4) begins with this line.
_HTTP2_METHOD = b"PRI"


class HeadRefused(Exception):
    """The answer is `status`, and the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RequestHead:
    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case; of a repeated header the values are joined by ", " (RFC 9110, 5.2)."""
    size_bytes: int
    """Length of the head with its empty line; what follows in the buffer is not ours."""

    @property
    def is_media(self) -> bool:
        return self.method == "GET" and self.target.startswith(MEDIA_PREFIX)


def parse_head(data: bytes | bytearray, limit_bytes: int) -> RequestHead | None:
    """Parse the head at the start of `data`.

    Returns:
        The head; None when its end has not come yet.
    Raises:
        HeadRefused: 400, 431 (more than `limit_bytes`) or 505 (not HTTP/1).
    """
    end = data.find(_END, 0, limit_bytes)
    if end < 0:
        if len(data) >= limit_bytes:
            raise HeadRefused(431, "head_too_large")
        return None
    lines = bytes(data[:end]).split(b"\r\n")
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise HeadRefused(400, "bad_head")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise HeadRefused(400, "bad_head")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01" or method == _HTTP2_METHOD:
        raise HeadRefused(505, "bad_version")
    if len(lines) - 1 > _MAX_HEADERS:
        raise HeadRefused(431, "head_too_large")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            raise HeadRefused(400, "bad_head")
        name, value = header[1].decode("ascii").lower(), header[2].decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return RequestHead(method.decode("ascii"), target.decode("ascii"), headers, end + len(_END))


def websocket_key(head: RequestHead) -> str:
    """The Sec-WebSocket-Key of a valid upgrade request (RFC 6455, 4.2.1).

    Raises:
        HeadRefused: 400, or 426 when it is no upgrade to version 13 of the protocol.
    """
    headers = head.headers
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    upgrade = {token.strip().lower() for token in headers.get("upgrade", "").split(",")}
    if "upgrade" not in connection or "websocket" not in upgrade or headers.get("sec-websocket-version") != "13":
        raise HeadRefused(426, "no_upgrade")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise HeadRefused(400, "bad_head")
    key = headers.get("sec-websocket-key", "")
    try:
        if len(b64decode(key.encode("ascii"), validate=True)) != 16:
            raise HeadRefused(400, "bad_head")
    except (Base64Error, UnicodeEncodeError):
        raise HeadRefused(400, "bad_head") from None
    return key
