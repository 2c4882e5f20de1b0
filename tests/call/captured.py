"""Captures a conversation that a test drives, through a real store: its thread, its files."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from server.agent.settings import AgentSettings
from server.call.capture import Capture, CaptureStore
from server.call.capture_file import FRAME_BYTES, MAGIC, OF_TAPE, TAPE, block, compressor, frame
from server.clock import SystemClock
from server.dialogue import event as ev
from server.wire.event import MediaFormat
from tests.dialogue.driver import BASE, MS, RATE_HZ, Driver

CALL_ID = "call-1"
START = (
    b'{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":'
    b'["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},'
    b'"customParameters":{"secret":"very-single-use"}},"streamSid":"MZ1"}'
)
OPENING = (b'{"event":"connected","protocol":"Call","version":"1.0.0"}', START)


def opened(
    store: CaptureStore, *, resumed: bool = False, tools: Sequence[dict[str, Any]] = (), **capture: Any
) -> Capture:
    """A capture of a Twilio stream, begun; `tools` and `capture` are the agent's settings."""
    settings = AgentSettings.parse({**BASE, "tools": [*tools], "capture": capture})
    one = store.open(
        settings,
        call_id=CALL_ID,
        carrier="twilio",
        stream_id="MZ1",
        fmt=MediaFormat("PCMU", RATE_HZ),
        scored=False,
        may_reorder=False,
        resumed=resumed,
    )
    assert one is not None
    one.begin(OPENING)
    return one


class Captured(Driver):
    """A driver whose every step is captured, as the session's are."""

    def __init__(self, capture: Capture, **overrides: Any) -> None:
        super().__init__(**overrides)
        self.capture = capture

    def step(self, event: ev.Event) -> list[ev.Action]:
        actions = super().step(event)
        self.capture.step(self.now_ns, event, actions)
        if self.capture.tape.now_ns % 5 == 0:
            self.capture.hand_over()  # as the store's timer does
        self.capture.tape.now_ns += 1
        return actions


def talk(driver: Driver) -> None:
    """A question, an answer that is interrupted, a model that fails, keys, the end."""
    driver.begin()
    driver.speaks("tell me everything, ¿vale?")
    driver.wait(600)
    driver.replies("One two three four five.")
    clause = max(a.clause_no for a in driver.actions if isinstance(a, ev.Speak))
    driver.render(clause)
    driver.heard = ((clause, 4000, 8000),)
    driver.feed(ev.SpeechStarted(9000))
    driver.wait(200)
    driver.feed(ev.SpeechConfirmed())
    driver.feed(ev.SpeechStopped(9000, 9900, driver.now_ns - 200 * MS))
    driver.final("stop")
    driver.wait(600)
    driver.feed(ev.ReplyFailed(driver.reply_no, "down: key sk-hidden-key refused"))
    driver.play_all()
    driver.feed(ev.DigitReceived("1"), ev.StreamEnded("caller_hung_up"))


def with_store(folder: Path, body: Callable[[CaptureStore], None], **options: Any) -> None:
    """Run `body` with a store in a loop; all is written when this returns."""

    async def main() -> None:
        store = CaptureStore(folder, SystemClock(), **options)
        store.start()
        try:
            body(store)
        finally:
            store.close()

    asyncio.run(main())


def record(folder: Path, **capture: Any) -> Path:
    """A captured talk; returns its file."""

    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store, **capture))
        talk(driver)
        driver.capture.close("caller_hung_up", {"frames_in": 0})

    with_store(folder, body, secrets=["sk-hidden-key"])
    return folder / f"{CALL_ID}.capture"


def inflated(path: Path) -> bytes:
    """All records of the file, as they were before compression, those of the tape with their bytes."""
    raw, data, tape, at = path.read_bytes(), b"", b"", 0
    inflate = zlib.decompressobj(wbits=-12)
    while at < len(raw):
        if raw.startswith(MAGIC, at):
            inflate, at = zlib.decompressobj(wbits=-12), at + len(MAGIC)
        length = int.from_bytes(raw[at : at + 4], "little")
        end = at + 8 + (length & 0x7FFF_FFFF)
        if length >> 31:
            tape += raw[at + 8 : end]
        else:
            data += inflate.decompress(raw[at + 8 : end])
        at = end
    return with_tape(data, tape)


def begun(path: Path) -> bytes:
    """All records of the file but the one that ends its last part."""
    data = inflated(path)
    at, last = 0, 0
    while at < len(data):
        last, at = at, at + FRAME_BYTES + int.from_bytes(data[at + 1 : at + FRAME_BYTES], "little")
    return data[:last]


def with_tape(records: bytes, tape: bytes) -> bytes:
    """The tape among the records, as the first version of the format had it."""
    out, at = b"", 0
    while at < len(records):
        end = at + FRAME_BYTES + int.from_bytes(records[at + 1 : at + FRAME_BYTES], "little")
        if records[at] == OF_TAPE:
            size = int.from_bytes(records[at + FRAME_BYTES : end], "little")
            out += frame(TAPE, tape[:size])
            tape = tape[size:]
        else:
            out += records[at:end]
        at = end
    return out


def packed(records: bytes) -> bytes:
    """A part of one block with these records."""
    made = compressor()
    return MAGIC + block(made.compress(records) + made.flush(zlib.Z_SYNC_FLUSH))
