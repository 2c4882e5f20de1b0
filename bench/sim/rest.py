"""A small HTTP/1.1 server for a carrier's REST API. `faults` makes the next answers fail: a status, or "drop" to close
the connection without an answer.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

import h11

Fault = int | Literal["drop"]
MAX_BODY_BYTES = 256 * 1024
READ_TIMEOUT_S = 10.0


class JsonServer(ABC):
    """Serves on 127.0.0.1 until closed. `requests` is a log of (method, path, what was asked, status)."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, str, dict[str, str], int]] = []

    @abstractmethod
    def _asked(self, body: bytes) -> dict[str, str]:
        """What a body asks for; empty when it cannot be read."""

    @abstractmethod
    def _error(self, status: int, message: str) -> dict[str, Any]:
        """An error in the carrier's form."""

    @abstractmethod
    def _is_allowed(self, authorization: str) -> bool:
        """Whether these are the account's credentials."""

    @abstractmethod
    def _route(self, method: str, path: str, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Carry out a request; status and answer."""

    def _headers(self) -> Mapping[str, str]:
        """More headers of each answer."""
        return {}

    async def start(self) -> str:
        """Listen on a free port; returns the base URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                request, body = await _read_request(connection, reader)
            answer = self._answer(request, body)
            if answer is None:
                return
            status, content = answer
            raw = json.dumps(content).encode()
            headers = {**self._headers(), "content-type": "application/json", "content-length": str(len(raw))}
            response = h11.Response(status_code=status, headers=[*headers.items(), ("connection", "close")])
            writer.write(connection.send(response) or b"")
            writer.write(connection.send(h11.Data(data=raw)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
        except (TimeoutError, ConnectionError, h11.RemoteProtocolError):
            return
        finally:
            writer.close()

    def _answer(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, Any]] | None:
        method, path = request.method.decode(), request.target.decode()
        headers = {name.decode(): value.decode() for name, value in request.headers}
        asked = self._asked(body)
        fault = self.faults.popleft() if self.faults else None
        if fault == "drop":
            self.requests.append((method, path, asked, 0))
            return None
        if fault is not None:
            status, content = fault, self._error(fault, "injected")
        elif not self._is_allowed(headers.get("authorization", "")):
            status, content = 401, self._error(401, "Authenticate")
        else:
            status, content = self._route(method, path, asked)
        self.requests.append((method, path, asked, status))
        return status, content


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, bytes(body)
        else:
            raise ConnectionError("the client went away")
