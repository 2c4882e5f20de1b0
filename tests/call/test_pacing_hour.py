"""An hour of pacing in virtual time, on a machine that is always a little late: no drift, and no gap in an utterance.

The carrier at the other end is the bench's own (bench.sim.playout), which reckons in samples and shares nothing with
the product. Late means up to 15 ms at every wake-up, and 60 ms at one in 500.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import Awaitable, Callable

import pytest

from bench.sim.playout import Playout
from providers.base import AudioFormat
from server.call.downlink import Downlink
from server.call.pacer import TICK_NS, Pacer
from server.dialogue import event as ev
from server.wire.event import MediaFormat
from server.wire.twilio import TwilioWire
from tests.call.test_downlink import START
from tests.support.virtual_loop import VirtualLoop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PCMU = AudioFormat("pcmu", 8000)
HOUR_S = 3600
NS_PER_SAMPLE = 125_000
# What a provider gives at once: no whole number of frames, so that the rest waits for the next.
PIECE_BYTES = 777
MAX_LATE_NS = 15_000_000
STALL_NS = 60_000_000


def late(seed: int = 5) -> Callable[[], int]:
    dice = random.Random(seed)
    return lambda: STALL_NS if dice.random() < 0.002 else dice.randrange(MAX_LATE_NS)


class Line:
    """The carrier: plays what it gets, and sends marks back when their audio was played."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.buffered_bytes = 0
        self.ear = Playout()
        self.sent = hashlib.sha256()
        self.samples = 0
        self.first_ns = 0
        self.on_mark: Callable[[str], None] = lambda name: None
        self._loop = loop
        self._began_ns = loop.clock.now_ns()
        self._marks: dict[str, asyncio.TimerHandle] = {}

    def position(self) -> float:
        return (self._loop.clock.now_ns() - self._began_ns) / NS_PER_SAMPLE

    def send_media(self, message: bytes) -> None:
        pcmu = base64.b64decode(json.loads(message)["media"]["payload"])
        self.first_ns = self.first_ns or self._loop.clock.now_ns()
        self.samples += len(pcmu)
        self.sent.update(pcmu)
        self.ear.media(pcmu, self.position())

    def send_control(self, message: bytes) -> None:
        one = json.loads(message)
        if one["event"] == "mark":
            name = one["mark"]["name"]
            left_s = self.ear.buffered_ms(self.position()) / 1e3
            self._marks[name] = self._loop.call_later(left_s, self._return, name)
        else:
            self.ear.clear(self.position())
            for handle in self._marks.values():
                handle.cancel()
            self._marks.clear()

    def _return(self, name: str) -> None:
        del self._marks[name]
        self.on_mark(name)


class Rig:
    def __init__(self, loop: VirtualLoop, kind: type[Pacer] = Pacer) -> None:
        self.clock = loop.clock
        self.line = Line(loop)
        self.ticks: list[tuple[int, int]] = []  # (instant, lateness in ns)
        self.finished: list[bool] = []
        self.idle = asyncio.Event()
        self._clause_no = 0
        self._dice = random.Random(8)
        wire = TwilioWire()
        wire.receive(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        wire.receive(json.dumps(START).encode())
        self.downlink = Downlink(
            wire=wire,
            fmt=MediaFormat("PCMU", 8000),
            sink=self.line,
            pacer=kind(self.clock, lambda late_s: self.ticks.append((self.clock.now_ns(), round(late_s * 1e9)))),
            clock=self.clock,
            dispatch=self._on_event,
            on_lateness=lambda late_s: None,
        )
        self.line.on_mark = self.downlink.on_mark

    def _on_event(self, event: ev.Event) -> None:
        if isinstance(event, ev.PlayoutFinished):
            self.finished.append(event.by_mark)
            if event.clause_no == self._clause_no:
                self.idle.set()

    async def say(self, ms: int, said: hashlib._Hash) -> int:
        """One clause, as a provider gives it; returns its samples, the last frame filled up."""
        self._clause_no += 1
        self.idle.clear()
        self.downlink.begin_clause()
        audio = self._dice.randbytes(8 * ms)
        for at in range(0, len(audio), PIECE_BYTES):
            await self.downlink.wait_room()
            self.downlink.push(self._clause_no, audio[at : at + PIECE_BYTES], PCMU)
        self.downlink.end_clause(self._clause_no)
        filled = audio + b"\xff" * (-len(audio) % 160)
        said.update(filled)
        return len(filled)


def run(body: Callable[[Rig], Awaitable[None]], kind: type[Pacer] = Pacer) -> Rig:
    loop = VirtualLoop(late())
    try:

        async def main() -> Rig:
            rig = Rig(loop, kind)
            await body(rig)
            return rig

        return loop.run_until_complete(main())
    finally:
        loop.close()


def drift_ns(rig: Rig) -> int:
    """How far the last tick's deadline is off its place in the grid that the first one began."""
    deadlines = [now_ns - late_ns for now_ns, late_ns in rig.ticks]
    return (deadlines[-1] - deadlines[0]) % TICK_NS


def test_an_hour_of_one_utterance_drifts_by_no_sample_and_never_underruns() -> None:
    said = hashlib.sha256()
    samples = 0

    async def body(rig: Rig) -> None:
        nonlocal samples
        dice = random.Random(1)
        while samples < HOUR_S * 8000:
            samples += await rig.say(dice.randrange(200, 6000), said)
        await rig.idle.wait()

    rig = run(body)
    counters = rig.line.ear.counters
    assert rig.line.samples == counters.samples == samples > HOUR_S * 8000
    assert rig.line.sent.hexdigest() == said.hexdigest()
    assert counters.underruns == rig.downlink.playout.underruns == 0
    assert counters.overfills == 0 and all(rig.finished)
    # The carrier's buffer ends where the first sample and the number of samples say, here and there.
    end = rig.downlink.playout.free_ns()
    assert end - rig.line.first_ns == samples * NS_PER_SAMPLE
    assert rig.line.ear.buffered_ms(0) * 8 == samples + int((rig.line.first_ns - rig.line._began_ns) / NS_PER_SAMPLE)
    # Ticks were late every time, and none of it adds up.
    assert len(rig.ticks) > 0.95 * HOUR_S * 50 and max(late_ns for _, late_ns in rig.ticks) >= STALL_NS
    assert drift_ns(rig) == 0


def test_an_hour_of_talk_has_gaps_between_utterances_only() -> None:
    said = hashlib.sha256()
    interruptions = utterances = 0

    async def body(rig: Rig) -> None:
        nonlocal interruptions, utterances
        dice = random.Random(2)
        until_ns = rig.clock.now_ns() + HOUR_S * 1_000_000_000
        while rig.clock.now_ns() < until_ns:
            utterances += 1
            rig.line.ear.end_utterance()
            for _ in range(dice.randrange(1, 5)):
                await rig.say(dice.randrange(200, 3000), said)
            if dice.random() < 0.3:
                interruptions += 1
                await asyncio.sleep(dice.uniform(0.05, 0.2))
                rig.downlink.clear()
            else:
                await rig.idle.wait()
            await asyncio.sleep(dice.uniform(0.3, 4))

    rig = run(body)
    counters = rig.line.ear.counters
    assert utterances > 400 and interruptions > 100
    assert counters.underruns == rig.downlink.playout.underruns == 0
    assert counters.overfills == 0
    assert counters.samples == rig.line.samples > HOUR_S * 8000 // 4


class RelativePacer(Pacer):
    """Counts each tick from the one before, as a pacer must not."""

    def _go_on(self, loop: asyncio.AbstractEventLoop, late_ns: int) -> None:
        self._due_ns = self._clock.now_ns()
        super()._go_on(loop, 0)


class SleepyPacer(Pacer):
    """Misses eight ticks of nine."""

    def _go_on(self, loop: asyncio.AbstractEventLoop, late_ns: int) -> None:
        super()._go_on(loop, late_ns + 8 * TICK_NS)


@pytest.mark.parametrize("kind", [RelativePacer, SleepyPacer])
def test_a_pacer_that_drifts_or_sleeps_is_noticed(kind: type[Pacer]) -> None:
    async def body(rig: Rig) -> None:
        said = hashlib.sha256()
        for _ in range(30):
            await rig.say(2000, said)
        await rig.idle.wait()

    rig = run(body, kind)
    if kind is RelativePacer:
        assert drift_ns(rig) != 0
    else:
        assert rig.line.ear.counters.underruns > 10 and rig.downlink.playout.underruns > 10
