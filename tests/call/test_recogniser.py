"""A recognition cut anywhere is opened again: no final is lost, none is doubled, and the words are those without cuts.

The transcriber here recognises by what it was fed, so audio that a replay lost or doubled shows in the words. What
breaks is this side of the network; the same against Azure's simulator is in tests/providers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from audio_native.g711 import pcmu_to_bytes
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.recognise import recognise
from bench.sim.sound import FRAME_SAMPLES
from bench.sim.voice import pico_clip
from providers.base import PCMU_8K, AudioFormat, Final, Interim, TranscriberConfig, TranscriptEvent
from providers.breaker import FAILURES_IN_A_ROW, Breaker
from providers.errors import ProviderError, ProviderRejected, ProviderUnavailable
from providers.health import ProviderHealth
from server.agent.settings import AgentSettings
from server.call.ahead import OpenedAhead
from server.call.recogniser import MAX_REPLAYS, MIN_FAILURES, PATIENCE_S, Ear, OpenedBefore, Recogniser
from server.call.uplink import UplinkPath
from server.clock import ManualClock
from server.dialogue import event as ev
from server.wire.event import MediaFormat
from server.wire.twilio import TwilioWire
from tests.support.failing import Noted

SENTENCES = ("Would that be possible?", "I will come on Tuesday.", "My name is Emma Wilson.")
CLIPS = [pico_clip(text, rate_percent=80) for text in SENTENCES]
BOOK = Clipbook([BookClip.of_pcmu(text, text, clip.pcmu) for text, clip in zip(SENTENCES, CLIPS, strict=True)])
SILENCE = b"\xff" * 8 * 700
STREAM_ID = "MZ" + "0" * 32
FMT = MediaFormat("PCMU", 8000)
CONFIG = TranscriberConfig(audio_format=PCMU_8K)


class ContentEar:
    """Transcriber that hears what is in the audio. `cuts[n]` is after how many calls of stream n it breaks."""

    def __init__(self, name: str, cuts: list[int], error: ProviderError | None = None) -> None:
        self.name = name
        self.audio_formats: tuple[AudioFormat, ...] = (PCMU_8K,)
        self.opened = 0
        self.closed = 0
        self._cuts = cuts
        self.error = error or ProviderUnavailable("cut", provider=name)

    def attach_nowait(self) -> None: ...

    def detach_nowait(self) -> None: ...

    async def aclose(self) -> None: ...

    async def open(self, config: TranscriberConfig) -> ContentStream:
        self.opened += 1
        return ContentStream(self, self._cuts[self.opened - 1] if self.opened <= len(self._cuts) else None)


class ContentStream:
    """One recognition; `works_for` counts its calls, a commit and its final apart; None: for ever."""

    def __init__(self, ear: ContentEar, works_for: int | None) -> None:
        self._ear = ear
        self._works_for = works_for
        self._is_broken = False
        self._heard: dict[int, bytearray] = {}
        self._now = 0
        self._events: asyncio.Queue[TranscriptEvent | ProviderError] = asyncio.Queue()

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None:
        if self._works():
            self._now = utterance_no
            self._heard[utterance_no] = bytearray()

    def feed_nowait(self, audio: bytes) -> None:
        if self._works() and self._now:
            self._heard[self._now] += audio

    def commit_nowait(self, utterance_no: int) -> None:
        if self._works():
            text = hears(bytes(self._heard[utterance_no]))
            self._events.put_nowait(Interim(utterance_no, text[: len(text) // 2]))
            if self._works():
                self._events.put_nowait(Final(utterance_no, text, confidence=0.9))

    def resume_nowait(self, utterance_no: int) -> None:
        if self._works():
            self._now = utterance_no

    def __aiter__(self) -> AsyncIterator[TranscriptEvent]:
        return self

    async def __anext__(self) -> TranscriptEvent:
        one = await self._events.get()
        if isinstance(one, ProviderError):
            raise one
        return one

    async def aclose(self) -> None:
        self._ear.closed += 1

    def _works(self) -> bool:
        if self._works_for == 0 and not self._is_broken:
            self._is_broken = True
            self._events.put_nowait(self._ear.error)
        if self._works_for:
            self._works_for -= 1
        return not self._is_broken


_known: dict[bytes, str] = {}


def hears(pcmu: bytes) -> str:
    """The words that are in the audio; the same audio is looked up once."""
    if pcmu not in _known:
        _known[pcmu] = " ".join(word.text for word in recognise(BOOK, pcmu_to_bytes(pcmu)))
    return _known[pcmu]


class Call:
    """An uplink that carries the three sentences, and a recogniser over `ears`, or over the ears of an agent."""

    def __init__(
        self,
        *ears: ContentEar,
        health: Sequence[ProviderHealth] = (),
        ahead: OpenedBefore | None = None,
        chain: Sequence[Ear] = (),
        config: TranscriberConfig = CONFIG,
    ) -> None:
        self.noted = Noted()
        self.finals: list[tuple[int, str]] = []
        self.failed = False
        wire = TwilioWire()
        wire.receive(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        wire.receive(json.dumps(START).encode())
        settings = AgentSettings.parse({"turn": {"vad": "webrtc"}})
        self.uplink = UplinkPath(
            wire=wire,
            stream_id=STREAM_ID,
            fmt=FMT,
            settings=settings,
            stt_format=config.audio_format,
            scorer=None,
            clock=ManualClock(),
            dispatch=self.on_event,
            on_mark=lambda name: None,
            on_stop=lambda: None,
        )
        healths = health or [ProviderHealth("stt", one.name, self.noted) for one in ears]
        chain = chain or [Ear(*one) for one in zip(ears, healths, strict=True)]
        self.recogniser = Recogniser(chain, config, self.uplink, self.on_event, ahead)
        self._number = 0
        self._chunk = 0

    def on_event(self, event: ev.Event) -> None:
        match event:
            case ev.SpeechStarted(start_ms):
                self._number += 1
                self.uplink.begin(self._number, start_ms)
            case ev.SpeechStopped():
                self.uplink.commit(self._number)
            case ev.TranscriptFinal(number, text):
                self.finals.append((number, text))
            case ev.TranscriberFailed():
                self.failed = True

    async def hear(self, line: bytes) -> None:
        for at in range(0, len(line) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
            self._chunk += 1
            media = {
                "track": "inbound", "chunk": str(self._chunk), "timestamp": str(20 * self._chunk),
                "payload": base64.b64encode(line[at : at + FRAME_SAMPLES]).decode(),
            }  # fmt: skip
            message = {"event": "media", "sequenceNumber": str(self._chunk + 1), "media": media, "streamSid": STREAM_ID}
            self.uplink.on_message(json.dumps(message).encode(), True)
            await asyncio.sleep(0)

    async def run(self) -> None:
        async with asyncio.timeout(20):
            task = asyncio.create_task(self.recogniser.run())
            await asyncio.sleep(0)
            for clip in CLIPS:
                await self.hear(SILENCE + clip.pcmu)
            await self.hear(SILENCE)
            while len({number for number, _ in self.finals}) < self._number and not task.done():
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await self.recogniser.aclose()

    @property
    def utterances(self) -> int:
        return self._number


START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC" + "b" * 32,
        "streamSid": STREAM_ID,
        "callSid": "CA" + "a" * 32,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {},
    },
    "streamSid": STREAM_ID,
}


@pytest.fixture(scope="module")
def whole() -> list[tuple[int, str]]:
    """What is understood without any cut."""
    call = Call(ContentEar("a", []))
    asyncio.run(call.run())
    words = " ".join(text for _, text in call.finals).lower().split()
    assert len(words) >= 12, f"the ear is bad: {call.finals}"
    return call.finals


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Openings follow each other at once: the pause between them is not what is tested here."""
    monkeypatch.setattr("server.call.recogniser.PAUSE_S", 0.0)
    monkeypatch.setattr("server.call.recogniser.MAX_PAUSE_S", 0.0)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_thousand_cuts_lose_and_double_nothing(whole: list[tuple[int, str]]) -> None:
    dice = random.Random(23)
    for number in range(1000):
        cuts = [dice.randrange(0, 60) for _ in range(dice.choice((1, 1, 2)))]
        ears = [ContentEar("a", cuts)] if number % 2 else [ContentEar("a", cuts[:1]), ContentEar("b", cuts[1:])]
        call = Call(*ears)
        asyncio.run(call.run())
        assert sorted(call.finals) == whole, f"run {number}, cuts {cuts}: {call.finals}"
        assert sum(one.opened for one in ears) == sum(one.closed for one in ears)
        assert not call.failed


def test_a_refusal_that_will_not_pass_goes_to_the_next_at_once(whole: list[tuple[int, str]]) -> None:
    first = ContentEar("a", [0, 0], ProviderRejected("no", status=401, provider="a"))
    second = ContentEar("b", [])
    call = Call(first, second)
    asyncio.run(call.run())
    assert sorted(call.finals) == whole and (first.opened, second.opened) == (1, 1)
    assert call.noted.lines[:4] == ["attempt a", "failure a rejected_401", "fallback a b", "attempt b"]


def test_an_utterance_that_breaks_every_stream_is_given_up_and_the_call_hears_on(whole: list[tuple[int, str]]) -> None:
    """The first utterance's final never comes: each stream breaks at its commit."""

    class Poisoned(ContentStream):
        def commit_nowait(self, utterance_no: int) -> None:
            if utterance_no == 1:
                self._works_for = 0
            super().commit_nowait(utterance_no)

    class PoisonedEar(ContentEar):
        async def open(self, config: TranscriberConfig) -> ContentStream:
            self.opened += 1
            return Poisoned(self, None)

    call = Call(PoisonedEar("a", []), PoisonedEar("b", []))
    asyncio.run(call.run())
    assert dict(call.finals) == {**dict(whole), 1: ""}
    assert MAX_REPLAYS < MIN_FAILURES


class Closed(ContentEar):
    """Refuses the openings whose numbers are in `refused`, or all of them."""

    def __init__(self, name: str, error: ProviderError | None = None, refused: range | None = None) -> None:
        super().__init__(name, [], error)
        self._refused = refused

    async def open(self, config: TranscriberConfig) -> ContentStream:
        if self._refused is None or self.opened in self._refused:
            self.opened += 1
            raise self.error
        return await super().open(config)


def test_when_refusals_will_not_pass_the_conversation_is_told_once_and_soon() -> None:
    ears = [Closed(name, ProviderRejected("no", status=401, provider=name)) for name in "ab"]
    call = Call(*ears)
    asyncio.run(call.run())
    assert call.failed and call.finals == []
    assert 2 <= sum(one.opened for one in ears) <= MIN_FAILURES


def test_an_outage_is_waited_for_as_long_as_the_ring_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.call.recogniser.PATIENCE_S", 0.5)
    monkeypatch.setattr("server.call.recogniser.MAX_PAUSE_S", 0.02)
    call, began_s = Call(Closed("a")), time.monotonic()
    asyncio.run(call.run())
    assert call.failed and time.monotonic() - began_s >= 0.49
    assert PATIENCE_S * 1000 <= 8000, "the ring of the uplink holds eight seconds"


def test_a_short_outage_ends_no_call(whole: list[tuple[int, str]]) -> None:
    """More refusals than open a breaker, and more than are borne when they will not pass."""
    call = Call(Closed("a", refused=range(3 * FAILURES_IN_A_ROW)))
    asyncio.run(call.run())
    assert not call.failed and sorted(call.finals) == whole


def test_calls_that_are_cut_together_all_hear_on(whole: list[tuple[int, str]]) -> None:
    """One restart of the service cuts all streams of the process, which share its health."""

    async def body() -> None:
        noted = Noted()
        health = ProviderHealth("stt", "a", noted)
        calls = [Call(ContentEar("a", [20 + at]), health=[health]) for at in range(4 * FAILURES_IN_A_ROW)]
        await asyncio.gather(*(call.run() for call in calls))
        for call in calls:
            assert sorted(call.finals) == whole and not call.failed
        assert noted.lines.count("failure a unavailable") == len(calls)
        assert health.breaker.state == "closed"

    asyncio.run(body())


def test_a_stream_that_is_refused_as_soon_as_it_works_opens_the_breaker() -> None:
    """It connects, and breaks before it was of any use: new ones would too."""
    noted = Noted()
    health = ProviderHealth("stt", "a", noted)
    call = Call(ContentEar("a", [0] * 200), health=[health])
    asyncio.run(call.run())
    assert "breaker a open" in noted.lines[: 4 * FAILURES_IN_A_ROW]


def test_the_stream_that_is_opened_while_the_phone_rings_is_waited_for(whole: list[tuple[int, str]]) -> None:
    """It may be the probe of a breaker: a second one beside it would be refused."""

    class Slow(ContentEar):
        async def open(self, config: TranscriberConfig) -> ContentStream:
            await connected.wait()
            return await super().open(config)

    async def body() -> None:
        ear = Slow("a", [])
        health = ProviderHealth("stt", "a")
        ahead = OpenedAhead(Ear(ear, health), CONFIG)
        call = Call(ear, health=[health], ahead=partial(ahead.take, CONFIG))
        opening, running = asyncio.create_task(ahead.open()), asyncio.create_task(call.run())
        for _ in range(100):
            await asyncio.sleep(0)
        assert ear.opened == 0
        connected.set()
        await asyncio.gather(opening, running)
        await ahead.close()
        assert sorted(call.finals) == whole and (ear.opened, ear.closed) == (1, 1)

    connected = asyncio.Event()
    asyncio.run(body())


@pytest.mark.parametrize("comes_late", [False, True])
def test_a_stream_opened_for_a_call_that_never_came_is_closed_and_frees_the_probe(comes_late: bool) -> None:
    async def body() -> None:
        ear, health = ContentEar("a", []), tripped()
        ahead = OpenedAhead(Ear(ear, health), CONFIG)
        if comes_late:
            await ahead.close()
            await ahead.open()
            assert ear.opened == 0
        else:
            await ahead.open()
            assert not health.may()
            await ahead.close()
            assert (ear.opened, ear.closed) == (1, 1) and health.breaker.state == "closed"

    asyncio.run(body())


def test_a_failure_while_the_phone_rings_is_told_to_the_breaker() -> None:
    async def body() -> None:
        health = tripped()
        ahead = OpenedAhead(Ear(Closed("a"), health), CONFIG)
        await ahead.open()
        assert health.breaker.state == "open" and not health.may()
        assert await ahead.take(CONFIG) is None

    asyncio.run(body())


def tripped() -> ProviderHealth:
    """Its breaker would let the probe through now."""
    health = ProviderHealth("stt", "a")
    health.breaker = Breaker(lambda: 0.5)
    for _ in range(FAILURES_IN_A_ROW):
        health.breaker.on_failure(asyncio.get_running_loop().time() - 60)
    return health
