"""A tiny server for the simulator's own tests: the other half of Twilio's protocol, sharing no code with the product.

Speaks a greeting tone, answers each talkspurt of the caller with a tone, clears when the caller talks over it. `broken`
makes it misbehave, one way at a time, so that the bench can be shown to notice.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

import h11
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server
from twilio.request_validator import RequestValidator

from bench.sim.sound import AUDIBLE_PEAK, peak, to_pcmu

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


def packed(*records: tuple[str, Any]) -> bytes:
    """A capture of one part and one block, by docs/replay.md: (kind, what is written as JSON)."""
    framed = b""
    for kind, value in records:
        body = json.dumps(value).encode()
        framed += kind.encode() + len(body).to_bytes(4, "little") + body
    made = zlib.compressobj(wbits=-12)
    block = made.compress(framed) + made.flush(zlib.Z_SYNC_FLUSH)
    sizes = len(block).to_bytes(4, "little") + zlib.crc32(block).to_bytes(4, "little")
    return b"\x89TSCAPTURE\r\n\x1a\n" + sizes + block


Broken = Literal[
    "", "pacer", "slow pacer", "halting", "halting and yielding", "hiding", "breaking off", "vad", "barge-in",
    "one in fifty", "late clear", "stale", "account", "no captures", "leak", "task leak",
]  # fmt: skip
LEAD_MS, CHUNK_MS, CHUNK_BYTES = 200, 100, 800
LATE_CLEAR_MS = 300
HALT_AFTER_BYTES, HALT_NS = 8800, 1_000_000_000
HIDDEN_NS = 400_000_000
"""Of silence that the caller does not take for the end, and a clear after which more is another utterance."""
KEPT_BYTES = 8000
"""Of each answer that is broken off: its code, and little more."""


@dataclass
class Behaviour:
    """What the stand-in does on a stream; `answers` maps a path to TwiML.

    `paced` keeps the caller's buffer at the lead, as a good server does; without it all audio goes out at once.
    `loud`: the peak from which a frame is taken for speech.
    """

    greeting_ms: int = 1000
    reply_ms: int = 1000
    silence_frames: int = 20
    on_start: Callable[[Agent], None] | None = None
    reply: Callable[[int, str], bytes] | None = None  # utterance number, caller's number -> mu-law
    paced: bool = False
    loud: int = AUDIBLE_PEAK
    confirm_frames: int = 1
    broken: Broken = ""
    turns: int = 0  # of all agents, for what breaks now and then
    answers: dict[str, str] = field(default_factory=lambda: {"/twilio/voice": TWIML, "/twilio/after": "<Response/>"})


class Agent(WSListener):
    """One stream. Its own clock is the carrier's: a frame in is 20 ms."""

    def __init__(self, stand_in: StandIn) -> None:
        self.behaviour = stand_in.behaviour
        self.messages = stand_in.messages
        self._stand_in = stand_in
        if self.behaviour.broken == "task leak":
            stand_in.leak_task()
        self.stream_sid = ""
        self.transport: WSTransport
        self._silent = 0
        self._loud = 0
        self._spoke = False
        self._playing = ""
        self._utterance = 0
        self._heard_utterances = 0
        self._queue = b""
        self._ahead_ms = 0.0
        self._sent_bytes = 0
        self._halt_until_ns = 0
        self._has_hidden = False
        self._clear_in = -1
        self._steps: list[tuple[str, Any]] = []
        self._last_ns = 0
        self._speech_end_ns = 0
        self.caller = ""

    def _answer(self) -> bytes:
        if self.behaviour.reply is None:
            return tone(self.behaviour.reply_ms, 660)
        return self.behaviour.reply(self._heard_utterances, self.caller)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        folder = self._stand_in.captures
        if folder is not None and self.behaviour.broken != "no captures":
            named = ("S", [0, "TranscriptFinal", {"text": f"turn 1 of {self.caller}"}, []])
            (folder / f"{self.stream_sid}.capture").write_bytes(packed(("H", {}), named, *self._steps))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        message = json.loads(frame.get_payload_as_utf8_text())
        self.messages.append(message)
        if message["event"] == "start":
            self.stream_sid = message["streamSid"]
            self.caller = self._stand_in.caller_of(message["start"]["callSid"])
            if self.behaviour.on_start:
                self.behaviour.on_start(self)
            elif self.behaviour.greeting_ms:
                self.speak(tone(self.behaviour.greeting_ms))
        elif message["event"] == "mark" and message["mark"]["name"] == self._playing:
            self._playing = ""
        elif message["event"] == "media":
            self._pace()
            self._listen(base64.b64decode(message["media"]["payload"]))

    def speak(self, pcmu: bytes) -> None:
        self._utterance += 1
        self._playing = f"u{self._utterance}"
        self._queue = pcmu[:KEPT_BYTES] if self.behaviour.broken == "breaking off" else pcmu
        self._ahead_ms = 0.0
        self._sent_bytes = self._halt_until_ns = 0
        self._has_hidden = False
        self._send_due()

    def send(self, event: str, **inner: str) -> None:
        message: dict[str, Any] = {"event": event, "streamSid": self.stream_sid}
        if inner:
            message[event] = inner
        self.transport.send(WSMsgType.TEXT, json.dumps(message).encode())

    def _pace(self) -> None:
        # The audio ahead of the caller's ear shrinks with time, not with frames: those may come in a burst.
        now_ns = time.monotonic_ns()
        if self._last_ns:
            self._ahead_ms = max(0.0, self._ahead_ms - (now_ns - self._last_ns) / 1e6)
        self._last_ns = now_ns
        if self._clear_in >= 0:
            self._clear_in -= 1
            if self._clear_in < 0:
                self._clear()
        self._send_due()

    def _send_due(self) -> None:
        paced = self.behaviour.paced and self.behaviour.broken != "pacer"
        # A pacer that waits until the buffer is empty comes too late with every chunk.
        room_ms = 0.0 if self.behaviour.broken == "slow pacer" else LEAD_MS - CHUNK_MS + 20.0
        while self._queue and (not paced or self._ahead_ms <= room_ms):
            if self._halts(time.monotonic_ns()):
                return
            chunk, self._queue = self._queue[:CHUNK_BYTES], self._queue[CHUNK_BYTES:]
            self._sent_bytes += len(chunk)
            self.send("media", payload=base64.b64encode(chunk).decode())
            self._ahead_ms += len(chunk) / 8
            if not self._queue:
                self.send("mark", name=self._playing)

    def _halts(self, now_ns: int) -> bool:
        """The rest of an answer is held back for a while."""
        broken = self.behaviour.broken
        if broken not in ("halting", "halting and yielding", "hiding") or self._sent_bytes < HALT_AFTER_BYTES:
            return False
        if not self._halt_until_ns:
            self._halt_until_ns = now_ns + (HIDDEN_NS if broken == "hiding" else HALT_NS)
        if now_ns < self._halt_until_ns:
            return True
        if broken == "hiding" and not self._has_hidden:
            self._has_hidden = True
            self.send("clear")
        return False

    def _clear(self) -> None:
        rest, self._queue = self._queue, b""
        self._playing = ""
        self._ahead_ms = 0.0
        self._steps.append(("S", [time.monotonic_ns(), "SpeechConfirmed", {}, [["ClearPlayout", {}]]]))
        self.send("clear")
        if self.behaviour.broken == "stale":
            self.send("media", payload=base64.b64encode((rest or tone(200))[:CHUNK_BYTES]).decode())

    def _interrupt(self) -> None:
        if self.behaviour.broken in ("barge-in", "halting"):
            return
        if self.behaviour.broken == "late clear":
            if self._clear_in < 0:
                self._clear_in = LATE_CLEAR_MS // 20
        else:
            self._clear()

    def _listen(self, pcmu: bytes) -> None:
        behaviour = self.behaviour
        if behaviour.broken != "vad" and peak(pcmu) >= behaviour.loud:
            self._silent, self._spoke = 0, True
            self._speech_end_ns = time.monotonic_ns()
            self._loud += 1
            if self._playing and self._loud >= behaviour.confirm_frames:
                self._interrupt()
        else:
            self._silent += 1
            self._loud = 0
            if self._spoke and self._silent == behaviour.silence_frames:
                self._spoke = False
                self._heard_utterances += 1
                behaviour.turns += 1
                if not (behaviour.broken == "one in fifty" and behaviour.turns % 50 == 49):
                    self._account()
                    self.speak(self._answer())

    def _account(self) -> None:
        """A turn as our server's log has it; one that is wrong leaves a part out."""
        latency_ms = (time.monotonic_ns() - self._speech_end_ns) / 1e6
        share = 0.5 if self.behaviour.broken == "account" else 1.0
        stages = {"detect": latency_ms * share, "own": 0.0}
        self._stand_in.turns.append({"event": "turn", "latency_ms": latency_ms, "stages": stages})


class StandIn:
    """HTTP and media on two ports; `url` is the HTTP one and forwards upgrades is not needed: one socket each."""

    def __init__(self, behaviour: Behaviour | None = None, captures: Path | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.captures = captures
        self.posts: list[tuple[str, dict[str, str], bool]] = []
        self.messages: list[dict[str, Any]] = []
        self.upgrades: list[dict[str, str]] = []
        self.agents: list[Agent] = []
        self.turns: list[dict[str, Any]] = []
        self.left: list[asyncio.Task[bool]] = []
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
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
        for task in self.left:
            task.cancel()
        # Not cancelled: asyncio's own callback of a connection would log that as an error.
        for writer in self._serving.values():
            writer.transport.abort()
        if self._serving:
            await asyncio.wait(set(self._serving), timeout=5)
        for server in (self._http, self._media):
            await server.wait_closed()

    def leak_task(self) -> None:
        """What a call leaves running that nobody will ever end."""
        self.left.append(asyncio.create_task(asyncio.Event().wait()))

    def caller_of(self, call_sid: str) -> str:
        return next(form["From"] for _, form, _ in self.posts if form["CallSid"] == call_sid)

    def _accept(self, request: Any) -> Agent:
        self.upgrades.append({name.lower(): value for name, value in request.headers.items()})
        self.upgrades[-1][":path"] = request.path.decode()
        agent = Agent(self)
        self.agents.append(agent)
        return agent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, media_port: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head.lower():
                await self._pipe(head, reader, writer, media_port)
            else:
                await self._post(head, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the bench is over and does not wait for its last callbacks
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

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, inner_writer))
                tasks.create_task(copy(inner_reader, writer))
        finally:
            inner_writer.close()

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
