"""The simulated Speech service by a bare client of its protocol: small frames, limits, bad clients."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bench.demo.book import book_of
from bench.demo.script import load_heldout
from bench.sim.azure import AzureSim, Fault
from bench.sim.azure.outbox import MOST
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.recognise import recognise
from bench.sim.voice import pico_clip
from tests.bench.azure_client import serving, wait_for

PATH = "/speech/recognition/conversation/cognitiveservices/v1?language=en-US"
CLIP = pico_clip("Hello, can you tell me when you are open?", rate_percent=80)
WAVE = (
    b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 7, 1, 8000, 8000, 1, 8) + b"data\0\0\0\0"
)  # fmt: skip
STRANGE = WAVE.replace(b"\x07\x00\x01", b"\x09\x00\x01")


@pytest.fixture
def sim() -> Iterator[AzureSim]:
    with serving(AzureSim(book=Clipbook([BookClip.of_clip("open", CLIP)]))) as one:
        yield one


class Bare:
    """One turn of recognition, message by message."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.id = socket, uuid.uuid4().hex

    def text(self, path: str, body: Any, more: str = "") -> None:
        content = body if isinstance(body, str) else json.dumps(body)
        self.socket.send(f"Path:{path}\r\nX-RequestId:{self.id}\r\n{more}\r\n{content}")

    def audio(self, payload: bytes) -> None:
        head = f"Path:audio\r\nX-RequestId:{self.id}\r\nX-StreamId:1\r\n".encode()
        self.socket.send(struct.pack(">H", len(head)) + head + payload)

    def receive(self) -> tuple[str, dict[str, Any]]:
        message = self.socket.recv(5)
        assert isinstance(message, str)
        head, _, body = message.partition("\r\n\r\n")
        headers = dict(line.split(":", 1) for line in head.split("\r\n"))
        assert headers["X-RequestId"] == self.id
        return headers["Path"], json.loads(body)

    def until_end(self) -> list[tuple[str, dict[str, Any]]]:
        came = [self.receive()]
        while came[-1][0] != "turn.end":
            came.append(self.receive())
        return came


def bare(sim: AzureSim) -> ClientConnection:
    return connect(sim.host + PATH, additional_headers={"Ocp-Apim-Subscription-Key": sim.key}, subprotocols=["USP"])  # type: ignore[list-item]


def context(**detection: Any) -> dict[str, Any]:
    return {"phraseDetection": {"language": "en-US", "mode": "CONVERSATION"} | detection}


def test_small_frames_and_the_order_of_messages(sim: AzureSim) -> None:
    with bare(sim) as socket:
        one = Bare(socket)
        one.text("speech.context", context())
        one.audio(WAVE)
        sound = b"\xff" * 2400 + CLIP.pcmu
        for at in range(0, len(sound), 160):
            one.audio(sound[at : at + 160])
        one.audio(b"")
        came = one.until_end()
    paths = [path for path, _ in came]
    assert paths[:2] == ["turn.start", "speech.startDetected"] and paths[-3:-1] == [
        "speech.endDetected",
        "speech.phrase",
    ]
    statuses = [body["RecognitionStatus"] for path, body in came if path == "speech.phrase"]
    assert set(statuses[:-1]) == {"Success"} and statuses[-1] == "EndOfDictation"
    texts = [body["Text"] for path, body in came if path == "speech.hypothesis"]
    assert texts[0] == "hello" and texts[-1].startswith("hello can you tell me when you")
    [turn] = sim.stt_turns
    assert turn.audio_ms == len(sound) / 8


def test_a_phrase_has_a_greatest_length(sim: AzureSim) -> None:
    segmentation = {"segmentationSilenceTimeoutMs": 900, "segmentationForcedTimeoutMs": 1500, "mode": "Custom"}
    with bare(sim) as socket:
        one = Bare(socket)
        one.text("speech.context", context(CONVERSATION={"segmentation": segmentation}))
        one.audio(WAVE + CLIP.pcmu + b"\xff" * 8000)
        one.audio(b"")
        phrases = [body for path, body in one.until_end() if path == "speech.phrase"]
    assert [body.get("DisplayText") for body in phrases[:-1]] == ["Hello, can you", "tell me when you are open?"]
    assert all(body["Duration"] / 10_000 <= 1600 for body in phrases)


def test_a_commit_without_its_feature_is_ignored(sim: AzureSim) -> None:
    with bare(sim) as socket:
        one = Bare(socket)
        one.text("speech.context", context())
        one.audio(WAVE + CLIP.pcmu)
        one.text("audio.commit", "", "X-Client-Commit-Token:7\r\n")
        one.audio(b"")
        assert all("clientAudioMetadata" not in body for _, body in one.until_end())
    assert not sim.stt_turns[-1].commits


@pytest.mark.parametrize(
    "messages",
    [
        ["Path:speech.context\r\nX-RequestId:1\r\n\r\n{no json"],
        ["Path:speech.context\r\nX-RequestId:1\r\n\r\n[1]"],
        ['Path:speech.context\r\nX-RequestId:1\r\n\r\n{"dgi":{"Groups":[7]}}'],
        [b"\xff\xff\x00"],
        ["Path:speech.context\r\nX-RequestId:1\r\n\r\n{}", b"\x00\x19Path:audio\r\nX-RequestId:1" + STRANGE],
    ],
    ids=["json", "array", "shape", "torn", "coding"],
)
def test_a_bad_client_is_told_and_costs_nobody_else(sim: AzureSim, messages: list[str | bytes]) -> None:
    with bare(sim) as socket:
        for message in messages:
            socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(5)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1007
    assert sim.counts["client_errors"] == 1
    with bare(sim) as socket:
        one = Bare(socket)
        one.text("speech.context", context())
        assert one.receive()[0] == "turn.start"


def test_a_client_that_lets_too_much_pile_up_is_cut_off(sim: AzureSim) -> None:
    sim.faults.add(Fault(kind="slow", on="stt", delay_ms=60_000))
    with bare(sim) as socket:
        one = Bare(socket)
        one.text("speech.context", context())
        wait_for(lambda: sim.stt_turns)
        [outbox] = sim._live.values()
        assert sim.loop is not None
        sim.loop.call_soon_threadsafe(lambda: [outbox.put("x") for _ in range(MOST + 1)])
        with pytest.raises((ConnectionClosed, OSError)):
            socket.recv(5)


def test_an_address_that_is_none_is_not_found(sim: AzureSim) -> None:
    assert httpx.get(f"{sim.url}/speech/recognition/other/v1").status_code == 404


def test_the_callers_of_the_demo_are_a_book() -> None:
    calls = load_heldout()
    book = book_of(calls)
    assert len(book.clips) == len({turn.clip.pcmu for call in calls for turn in call.turns if turn.clip})
    for clip in book.clips:
        assert " ".join(word.text for word in recognise(book, bytes(4800) + clip.s16 + bytes(4800))) == clip.text
