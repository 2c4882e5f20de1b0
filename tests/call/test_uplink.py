"""Whether a stream waits for what is missing: by its carrier, and as it did then when a capture is heard again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from audio_native.g711 import bytes_to_pcmu
from audio_native.tape import TAPE_MEDIA
from providers.base import PCMU_8K, AudioFormat, TranscriberConfig
from providers.offline.scripted import ScriptedTranscriber
from server.agent.settings import AgentSettings
from server.call.capture_file import HEAD, Head, frame, read
from server.call.rehear import HeardAgain, Scores
from server.call.uplink import UplinkPath
from server.clock import ManualClock
from server.dialogue.event import SpeechStarted, SpeechStopped
from server.wire.browser import BrowserWire
from server.wire.event import MediaFormat, Wire
from server.wire.telnyx import TelnyxWire
from server.wire.twilio import TwilioWire
from tests.audio_native.test_uplink import call_of
from tests.call.captured import OPENING, packed

MS = 1_000_000
FRAME = 160
SETTINGS = AgentSettings.parse({"turn": {"vad": "webrtc"}})


@pytest.mark.parametrize(
    ("wire", "waits"),
    [(TwilioWire(), False), (BrowserWire("MZ1"), False), (TelnyxWire(), True)],
    ids=["twilio", "browser", "telnyx"],
)
def test_a_stream_waits_from_the_start_where_its_carrier_may_reorder(wire: Wire, waits: bool) -> None:
    path = UplinkPath(
        wire=wire,
        stream_id="MZ1",
        fmt=MediaFormat("PCMU", 8000),
        settings=SETTINGS,
        stt_format=AudioFormat("s16", 16000),
        scorer=None,
        clock=ManualClock(),
        dispatch=lambda event: None,
        on_mark=lambda name: None,
        on_stop=lambda: None,
    )
    for number in (1, 2, 4):
        path.on_media(b"\xff" * FRAME, number, number * 20)
    assert path.native.position_samples == (2 if waits else 4) * FRAME


def test_what_a_late_recogniser_cannot_hear_any_more_is_counted() -> None:
    async def main() -> None:
        path = UplinkPath(
            wire=TwilioWire(),
            stream_id="MZ1",
            fmt=MediaFormat("PCMU", 8000),
            settings=SETTINGS,
            stt_format=PCMU_8K,
            scorer=None,
            clock=ManualClock(),
            dispatch=lambda event: None,
            on_mark=lambda name: None,
            on_stop=lambda: None,
        )
        path.begin(1, 0)
        for number in range(1, 451):
            path.on_media(b"\xff" * FRAME, number, number * 20)
        # Nine seconds of it, of which eight are kept; first while it goes on, then when it is over.
        path.attach(await ScriptedTranscriber().open(TranscriberConfig(audio_format=PCMU_8K)))
        assert path.lost_samples == 8000
        path.commit(1)
        path.attach(await ScriptedTranscriber().open(TranscriberConfig(audio_format=PCMU_8K)))
        assert path.lost_samples == 16000

    asyncio.run(main())


def heard_at_ms(head: Head) -> int:
    """When the caller is heard to speak whose 50th message, of silence, was lost; speech begins with the 51st."""
    coded = bytes_to_pcmu(call_of([("silence", 1), ("speech", 1)]).tobytes())
    heard = HeardAgain(head, SETTINGS, None, Scores())
    for number in range(1, 101):
        if number != 50:
            payload = coded[number * FRAME - FRAME : number * FRAME]
            heard.entry((TAPE_MEDIA, number * 20 * MS, number, number * 20, FRAME, payload))
    at_ns, event = heard.heard[0]
    assert isinstance(event, SpeechStarted)
    return at_ns // MS


def test_a_capture_is_heard_with_the_waiting_of_its_call(tmp_path: Path) -> None:
    """Also one of before that was noted, when every stream waited."""
    values = {
        "capture": 1, "call_id": "call-1", "carrier": "twilio", "stream_id": "MZ1", "codec": "PCMU", "rate_hz": 8000,
        "has_audio": True, "scored": False, "resumed": False, "settings": {},
        "opening": [one.decode() for one in OPENING],
    }  # fmt: skip
    heads = []
    for noted in ({}, {"may_reorder": True}, {"may_reorder": False}):
        path = tmp_path / "call-1.capture"
        path.write_bytes(packed(frame(HEAD, orjson.dumps({**values, **noted}))))
        heads += [one for one in read(path) if isinstance(one, Head)]
    before, waiting, at_once = (heard_at_ms(head) for head in heads)
    assert before == waiting == at_once + 20


class Recording:
    """A recognition that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        self.begun.append((utterance_no, start_ms))

    def feed_nowait(self, audio: bytes) -> None: ...

    def commit_nowait(self, utterance_no: int) -> None: ...

    def resume_nowait(self, utterance_no: int) -> None: ...


@pytest.mark.parametrize(("has_words", "overlaps"), [(True, False), (False, True)])
def test_audio_is_heard_twice_only_where_nothing_was_understood_in_it(has_words: bool, overlaps: bool) -> None:
    """Two utterances so near that the second one's first sounds may be in the first one's hangover."""
    ends_ms: list[int] = []

    def on_event(event: object) -> None:
        if isinstance(event, SpeechStarted):
            path.begin(len(ends_ms) + 1, event.start_ms)
        elif isinstance(event, SpeechStopped):
            ends_ms.append(path.native.position_samples // 8)
            path.commit(len(ends_ms))
            path.settle(len(ends_ms), has_words=has_words)

    path = UplinkPath(
        wire=TwilioWire(),
        stream_id="MZ1",
        fmt=MediaFormat("PCMU", 8000),
        settings=SETTINGS,
        stt_format=AudioFormat("s16", 16000),
        scorer=None,
        clock=ManualClock(),
        dispatch=on_event,
        on_mark=lambda name: None,
        on_stop=lambda: None,
    )
    stt = Recording()
    assert path.attach(stt) == []  # type: ignore[arg-type]
    coded = bytes_to_pcmu(call_of([("silence", 1), ("speech", 1), ("silence", 0.4), ("speech", 1)]).tobytes())
    for number, at in enumerate(range(0, len(coded), FRAME), 1):
        path.on_media(coded[at : at + FRAME], number, number * 20)
    (_, _), (_, second_ms) = stt.begun
    assert (second_ms < ends_ms[0]) is overlaps
    assert overlaps or second_ms == ends_ms[0]
