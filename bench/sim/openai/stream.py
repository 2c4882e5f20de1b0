"""An answer on its way: head, events at the pace of the profile, faults in between, [DONE].

Each write is one HTTP chunk and one send; so a `Style` that splits events, or characters, does so for every client
whatever the network joins again. Events have absolute deadlines: a slow write does not make the next one later.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from bench.sim.openai.chunk import Chunk, Style, Teller
from bench.sim.openai.fault import Fault, FaultBox
from bench.sim.openai.flavour import Flavour, error_body, refuse
from bench.sim.openai.seen import Seen

SPLIT_PAUSE_S = 0.001  # between the two writes of a split event, so that they are two segments
MAX_HOLD_S = 300.0  # the longest silence: a client without deadlines must not keep us for ever
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


def sse(chunk: Any) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def hang_up(request: web.BaseRequest, *, reset: bool) -> None:
    """Drop the connection, by RST or by FIN."""
    transport = request.transport
    if transport is None:
        return
    peer: socket.socket | None = transport.get_extra_info("socket")
    if reset and peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def hold(seconds: float = MAX_HOLD_S) -> None:
    """Say nothing. Ends early when the client leaves or the simulator closes: both cancel the handler."""
    await asyncio.sleep(seconds)


class SseWriter:
    """Events to bytes to writes."""

    __slots__ = ("_events", "_response", "_seen", "_style")

    def __init__(self, response: web.StreamResponse, style: Style, seen: Seen) -> None:
        self._response, self._style, self._seen = response, style, seen
        self._events = 0

    async def send(self, events: Iterable[bytes]) -> None:
        style = self._style
        whole = []
        for event in events:
            self._events += 1
            if style.comment_every and self._events % style.comment_every == 0:
                whole.append(COMMENT)
            whole.append(event)
        if style.crlf:
            whole = [event.replace(b"\n", b"\r\n") for event in whole]
        if style.segments == "joined":
            whole = [b"".join(whole)]
        for event in whole:
            await self._write(event)

    async def _write(self, event: bytes) -> None:
        self._seen.sent_bytes += len(event)
        if self._style.segments == "split":
            at = split_point(event)
            await self._response.write(event[:at])
            await asyncio.sleep(SPLIT_PAUSE_S)
            await self._response.write(event[at:])
        elif self._style.segments == "bytes":
            for at in range(len(event)):
                await self._response.write(event[at : at + 1])
        else:
            await self._response.write(event)


def split_point(event: bytes) -> int:
    """Inside the first multi-byte character of `event`, else in its middle."""
    for at, byte in enumerate(event):
        if byte & 0xC0 == 0x80:
            return at
    return max(1, len(event) // 2)


class ChatStream:
    """One streamed answer. `run` returns when it is over, whichever way; a client that leaves cancels it."""

    __slots__ = ("_box", "_fault", "_flavour", "_request", "_seen", "_style", "_teller", "_writer")

    def __init__(
        self, request: web.BaseRequest, seen: Seen, style: Style, teller: Teller, flavour: Flavour,
        fault: Fault | None, box: FaultBox,
    ) -> None:  # fmt: skip
        self._request, self._seen, self._style, self._teller = request, seen, style, teller
        self._flavour, self._fault, self._box = flavour, fault, box

    async def run(self, headers: dict[str, str], first_s: float, tokens_per_s: float) -> web.StreamResponse:
        fault = self._fault
        slow = fault is not None and fault.kind == "slow_first_token"
        if fault is not None and slow:
            first_s = fault.delay_ms / 1000
            self._struck()
            self._fault = None
        early = self._style.early_head or (fault is not None and slow and fault.early_head)
        if first_s and not early:
            await asyncio.sleep(first_s)
        response = web.StreamResponse(headers=headers | {"content-type": "text/event-stream; charset=utf-8"})
        self._seen.status = 200
        await response.prepare(self._request)
        if first_s and early:
            await asyncio.sleep(first_s)
        self._writer = SseWriter(response, self._style, self._seen)
        if not await self._events(tokens_per_s):
            return response
        await response.write_eof()
        self._seen.end("done")
        return response

    async def _events(self, tokens_per_s: float) -> bool:
        """All events. False when a fault ended the stream."""
        told = self._teller.told()
        await self._writer.send(map(sse, told.head))
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        at = 0
        while at < len(told.body):
            if self._fault is not None and at >= self._fault.after_tokens and await self._strike():
                return False
            until = len(told.body)
            if tokens_per_s:
                # A burst is due when its last token is.
                burst = self._style.burst_tokens
                due_s = begun_s + ((at // burst + 1) * burst - 1) / tokens_per_s
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                until = max(at + burst, int((loop.time() - begun_s) * tokens_per_s) // burst * burst)
            if self._fault is not None and self._fault.after_tokens > at:
                until = min(until, self._fault.after_tokens)
            events = told.body[at:until]
            await self._writer.send(map(sse, events))
            at += len(events)
            self._seen.tokens = at
        if self._fault is not None and self._fault.kind != "no_done" and await self._strike():
            return False
        await self._writer.send(map(sse, told.tail))
        if self._fault is not None:
            self._struck()  # no_done
        else:
            await self._writer.send((DONE,))
        return True

    def _struck(self) -> None:
        assert self._fault is not None
        self._seen.fault = self._fault.kind
        self._box.carried_out(self._fault)

    async def _strike(self) -> bool:
        """Carry out the fault. True: the stream is over."""
        fault = self._fault
        assert fault is not None
        if fault.kind == "no_done":
            return False
        self._struck()
        self._fault = None
        match fault.kind:
            case "stall":
                await asyncio.sleep(fault.delay_ms / 1000)
                return False
            case "garbage":
                await self._writer.send((b'data: {"id":"chatcmpl- <html>\n\n',))
                return False
            case "bad_utf8":
                await self._writer.send((b'data: {"id":"chatcmpl-\xc3\x28"}\n\n',))
                return False
            case "silence":
                await hold()
            case "comments":
                await self._comments(fault)
            case "error_event":
                error = error_body(refuse("server_error", self._flavour), self._flavour)
                await self._writer.send((sse(error),))
            case "stream_reset" | "stream_cut":
                hang_up(self._request, reset=fault.kind == "stream_reset")
            case "finish_length" | "finish_content_filter":
                await self._writer.send((sse(self._teller.finish(fault.kind.removeprefix("finish_"))), DONE))
            case "endless":
                await self._endless(fault)
        self._seen.end("fault")
        return True

    async def _comments(self, fault: Fault) -> None:
        for _ in range(int(MAX_HOLD_S * 1000 / fault.every_ms)):
            await self._writer.send((COMMENT,))
            await asyncio.sleep(fault.every_ms / 1000)

    async def _endless(self, fault: Fault) -> None:
        event: Chunk = self._teller.token(" and so on")
        block = [sse(event)] * 16
        while self._seen.sent_bytes < fault.endless_bytes:
            await self._writer.send(block)
            self._seen.tokens += len(block)
            await asyncio.sleep(0)  # a write that finds room does not wait
