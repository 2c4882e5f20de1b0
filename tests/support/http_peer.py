"""A carrier's REST server that does what it is told: one scripted answer for each request, over real sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs

MAX_REQUEST_BYTES = 65536


@dataclass(frozen=True)
class Answer:
    """`cut`: close without an answer, or in the middle of it. `hold`: say nothing until the client goes away."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    cut: Literal["", "before", "within"] = ""
    hold: bool = False


@dataclass(frozen=True)
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    form: dict[str, list[str]]
    body: str = ""


@dataclass
class HttpPeer:
    """`answers` are used in order; when they run out, `otherwise`."""

    url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    otherwise: Answer = field(default_factory=Answer)
    seen: list[Seen] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request_line, *lines = head.split("\r\n")[:-2]
            method, target, _ = request_line.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = min(int(headers.get("content-length", "0")), MAX_REQUEST_BYTES)
            body = (await reader.readexactly(length)).decode()
            self.seen.append(Seen(method, target, headers, parse_qs(body, keep_blank_values=True), body))
            await self._answer(self.answers.popleft() if self.answers else self.otherwise, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer.hold:
            await reader.read()
            return
        if answer.cut == "before":
            return
        fields = (*answer.headers, ("content-length", str(len(answer.body))), ("connection", "close"))
        lines = [f"HTTP/1.1 {answer.status} x", *(f"{name}: {value}" for name, value in fields), "", ""]
        body = answer.body[: len(answer.body) // 2] if answer.cut else answer.body
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()


@asynccontextmanager
async def http_peer(*answers: Answer, otherwise: Answer | None = None) -> AsyncIterator[HttpPeer]:
    """A peer on a free port of 127.0.0.1."""
    peer = HttpPeer(answers=deque(answers), otherwise=otherwise or Answer())
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    peer.url = f"http://{host}:{port}"
    async with server:
        yield peer
