"""A tiny server for the simulator's own tests: the other half of Twilio's protocol, sharing no code with the product.

Speaks a greeting tone, answers each talkspurt of the caller with a tone, clears when the caller talks over it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import h11
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server
from twilio.request_validator import RequestValidator

from bench.sim.sound import is_audible, to_pcmu

TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC = "https://bench.example.test"
TWIML = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Connect action="https://bench.example.test/twilio/after">'
    '<Stream url="wss://bench.example.test/media/twilio/abc" '
    'statusCallback="https://bench.example.test/twilio/stream-status">'
    '<Parameter name="token" value="secret"/></Stream></Connect></Response>'
)


def tone(ms: int, hz: int = 440) -> bytes:
    """A tone as mu-law codes."""
    count = ms * 8
    samples = (int(8000 * math.sin(2 * math.pi * hz * n / 8000)) for n in range(count))
    return to_pcmu(struct.pack(f"<{count}h", *samples))


@dataclass
class Behaviour:
    """What the stand-in does on a stream; `answers` maps a path to TwiML."""

    greeting_ms: int = 1000
    reply_ms: int = 1000
    silence_frames: int = 20
    on_start: Callable[[Agent], None] | None = None
    reply: Callable[[int, str], bytes] | None = None  # utterance number, caller's number -> mu-law
    answers: dict[str, str] = field(default_factory=lambda: {"/twilio/voice": TWIML, "/twilio/after": "<Response/>"})


class Agent(WSListener):
    def __init__(self, behaviour: Behaviour, messages: list[dict[str, Any]]) -> None:
        self.behaviour = behaviour
        self.messages = messages
        self.stream_sid = ""
        self.transport: WSTransport
        self._silent = 0
        self._spoke = False
        self._playing = ""
        self._utterance = 0
        self._heard_utterances = 0
        self.caller = ""

    def _answer(self) -> bytes:
        if self.behaviour.reply is None:
            return tone(self.behaviour.reply_ms, 660)
        return self.behaviour.reply(self._heard_utterances, self.caller)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        message = json.loads(frame.get_payload_as_utf8_text())
        self.messages.append(message)
        if message["event"] == "start":
            self.stream_sid = message["streamSid"]
            if self.behaviour.on_start:
                self.behaviour.on_start(self)
            elif self.behaviour.greeting_ms:
                self.speak(tone(self.behaviour.greeting_ms))
        elif message["event"] == "mark" and message["mark"]["name"] == self._playing:
            self._playing = ""
        elif message["event"] == "media":
            self._listen(base64.b64decode(message["media"]["payload"]))

    def speak(self, pcmu: bytes) -> None:
        for at in range(0, len(pcmu), 800):
            self.send("media", payload=base64.b64encode(pcmu[at : at + 800]).decode())
        self._utterance += 1
        self._playing = f"u{self._utterance}"
        self.send("mark", name=self._playing)

    def send(self, event: str, **inner: str) -> None:
        message: dict[str, Any] = {"event": event, "streamSid": self.stream_sid}
        if inner:
            message[event] = inner
        self.transport.send(WSMsgType.TEXT, json.dumps(message).encode())

    def _listen(self, pcmu: bytes) -> None:
        if is_audible(pcmu):
            self._silent, self._spoke = 0, True
            if self._playing:
                self._playing = ""
                self.send("clear")
        else:
            self._silent += 1
            if self._spoke and self._silent == self.behaviour.silence_frames:
                self._spoke = False
                self._heard_utterances += 1
                self.speak(self._answer())


class StandIn:
    """HTTP and media on two ports; `url` is the HTTP one and forwards upgrades is not needed: one socket each."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.posts: list[tuple[str, dict[str, str], bool]] = []
        self.messages: list[dict[str, Any]] = []
        self.upgrades: list[dict[str, str]] = []
        self.agents: list[Agent] = []
        self._validator = RequestValidator(TOKEN)

    async def __aenter__(self) -> StandIn:
        self._media = await ws_create_server(self._accept, "127.0.0.1", 0)
        media_port = self._media.sockets[0].getsockname()[1]
        self._http = await asyncio.start_server(lambda r, w: self._serve(r, w, media_port), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._http.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in (self._http, self._media):
            server.close()
            await server.wait_closed()

    def _accept(self, request: Any) -> Agent:
        self.upgrades.append({name.lower(): value for name, value in request.headers.items()})
        self.upgrades[-1][":path"] = request.path.decode()
        agent = Agent(self.behaviour, self.messages)
        agent.caller = next(form["From"] for path, form, _ in reversed(self.posts) if path == "/twilio/voice")
        self.agents.append(agent)
        return agent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, media_port: int) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            if b"upgrade: websocket" in head.lower():
                await self._pipe(head, reader, writer, media_port)
            else:
                await self._post(head, reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _pipe(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, media_port: int
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", media_port)
        inner_writer.write(head)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(reader, inner_writer))
            tasks.create_task(copy(inner_reader, writer))

    async def _post(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        headers = {name.decode(): value.decode() for name, value in request.headers}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        path = request.target.decode()
        valid = self._validator.validate(PUBLIC + path, form, headers.get("x-twilio-signature", ""))
        self.posts.append((path, form, valid))
        answer = self.behaviour.answers.get(path, "").encode()
        status = "200 OK" if answer else "204 No Content"
        head_out = f"HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {len(answer)}\r\nconnection: close"
        writer.write(head_out.encode() + b"\r\n\r\n" + answer)
        await writer.drain()
