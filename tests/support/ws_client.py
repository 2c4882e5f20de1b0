"""A WebSocket client that can also misbehave: RFC 6455 by hand, no code shared with the server."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def ws_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, masked: bool = True) -> bytes:
    """One client frame. The mask is zero, so that big payloads cost nothing to send."""
    return ws_frame_head(opcode, len(payload), fin=fin, rsv1=rsv1, masked=masked) + payload


def ws_frame_head(opcode: int, size: int, *, fin: bool = True, rsv1: bool = False, masked: bool = True) -> bytes:
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    return head + (bytes(4) if masked else b"")


def upgrade_request(path: str, *extra: str, connection: str = "Upgrade", version: str = "13") -> bytes:
    key = b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        f"Connection: {connection}",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Version: {version}",
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@dataclass
class WsClient:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    response_head: bytes = b""
    pongs: list[bytes] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.response_head.split(b" ")[1])

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        self.writer.write(ws_frame(opcode, payload))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the server, as (opcode, payload). Raises IncompleteReadError at the end."""
        first, second = await self.reader.readexactly(2)
        assert second < 0x80, "a server must not mask"
        assert not first & 0x70, "no extension was negotiated"
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0xF, await self.reader.readexactly(size)

    async def message(self) -> bytes:
        """The next text or binary message; pongs are put aside."""
        async with asyncio.timeout(5):
            while True:
                opcode, payload = await self.frame()
                if opcode in (TEXT, BINARY):
                    return payload
                if opcode == PONG:
                    self.pongs.append(payload)
                else:
                    raise ConnectionError(f"closed: {payload!r}")

    async def close_code(self) -> int:
        """Read until the server's close frame; 1006 when the connection ends without one."""
        try:
            async with asyncio.timeout(5):
                while True:
                    opcode, payload = await self.frame()
                    if opcode == CLOSE:
                        return int.from_bytes(payload[:2]) if payload else 1005
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        async with asyncio.timeout(5):
            return await self.reader.read()

    async def rest_or_reset(self) -> bytes:
        """As `rest`; b"" when the connection was reset."""
        try:
            return await self.rest()
        except ConnectionError:
            return b""

    async def ended(self) -> bool:
        """True when the server ends the connection (FIN or reset) within 5 s."""
        try:
            async with asyncio.timeout(5):
                while await self.reader.read(65_536):
                    pass
        except ConnectionError:
            pass
        return True


@asynccontextmanager
async def raw_client(port: int, data: bytes = b"", tls: ssl.SSLContext | None = None) -> AsyncIterator[WsClient]:
    """A connection that has sent `data` and read nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=2**20)
    try:
        writer.write(data)
        yield WsClient(reader, writer)
    finally:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


@asynccontextmanager
async def ws_client(
    port: int, path: str = "/media/echo/1", *extra: str, request: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[WsClient]:
    """A connection that has sent an upgrade (or `request`) and read the head of the answer."""
    async with raw_client(port, request or upgrade_request(path, *extra), tls) as client:
        async with asyncio.timeout(5):
            client.response_head = await client.reader.readuntil(b"\r\n\r\n")
        yield client
