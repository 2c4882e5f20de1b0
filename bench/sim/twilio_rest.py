"""Twilio's REST API as far as a call in progress needs it (protocols: Twilio, sections 6 and 7.1).

A small HTTP/1.1 server: Basic auth, form bodies, JSON answers in Twilio's error form. `faults` makes the next answers
fail: a status, or "drop" to close the connection without an answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections import deque
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs

import h11

Fault = int | Literal["drop"]
MAX_BODY_BYTES = 256 * 1024
READ_TIMEOUT_S = 10.0

_CODES = {400: 20001, 401: 20003, 404: 20404, 429: 20429, 500: 20500, 503: 20503}


class CallControl(Protocol):
    """What the API does to calls; the exchange implements it."""

    def find_call(self, sid: str) -> dict[str, Any] | None:
        """The call resource, None when there is no such call."""

    def update_call(self, sid: str, form: dict[str, str]) -> tuple[int, str]:
        """Apply an update; (200, "") or an HTTP status with a message."""


class RestServer:
    """Serves one account on 127.0.0.1 until closed. `requests` is a log of (method, path, form, status)."""

    def __init__(self, account_sid: str, auth_token: str, control: CallControl) -> None:
        self._account_sid = account_sid
        self._expected = "Basic " + base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._control = control
        self._server: asyncio.Server | None = None
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, str, dict[str, str], int]] = []

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
            status, headers, content = answer
            response = h11.Response(status_code=status, headers=[*headers, ("connection", "close")])
            writer.write(connection.send(response) or b"")
            writer.write(connection.send(h11.Data(data=content)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
        except (TimeoutError, ConnectionError, h11.RemoteProtocolError):
            return
        finally:
            writer.close()

    def _answer(self, request: h11.Request, body: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
        method, path = request.method.decode(), request.target.decode()
        headers = {name.decode(): value.decode() for name, value in request.headers}
        form = {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        fault = self.faults.popleft() if self.faults else None
        if fault == "drop":
            self.requests.append((method, path, form, 0))
            return None
        if fault is not None:
            status, content = fault, _error(fault, "injected")
        elif headers.get("authorization") != self._expected:
            status, content = 401, _error(401, "Authenticate")
        else:
            status, content = self._route(method, path, form)
        self.requests.append((method, path, form, status))
        raw = json.dumps(content).encode()
        answer = [
            ("content-type", "application/json"),
            ("content-length", str(len(raw))),
            ("twilio-concurrent-requests", "1"),
            ("twilio-request-id", f"RQ{secrets.token_hex(16)}"),
            ("twilio-request-duration", "0.010"),
        ]
        return status, answer, raw

    def _route(self, method: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        prefix = f"/2010-04-01/Accounts/{self._account_sid}/Calls/"
        sid = path.removeprefix(prefix).removesuffix(".json")
        missing = f"The requested resource {path} was not found"
        if not path.startswith(prefix) or not path.endswith(".json") or "/" in sid:
            return 404, _error(404, missing)
        if self._control.find_call(sid) is None:
            return 404, _error(404, missing)
        if method == "POST":
            status, message = self._control.update_call(sid, form)
            if status != 200:
                return status, _error(status, message or missing)
        resource = self._control.find_call(sid)
        assert resource is not None
        return 200, resource


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


def _error(status: int, message: str) -> dict[str, Any]:
    code = _CODES.get(status, 20000 + status)
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more, "status": status}
