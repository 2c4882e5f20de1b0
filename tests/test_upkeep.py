"""What the process does for its providers beside the calls: who is asked at the start, who again, what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from providers.base import AudioFormat, Final, TextDelta, TranscriberConfig, TranscriptEvent
from providers.breaker import FAILURES_IN_A_ROW
from providers.check import Check
from providers.errors import ProviderError, ProviderRejected, ProviderUnavailable
from server.agent.settings import AgentSettings
from server.call.clips import Clips
from server.catalogue import Catalogue
from server.config import ProviderConfig
from server.metrics import Metrics
from server.readiness import Readiness
from server.store.agents import AgentVersion
from server.upkeep import TONE_MS, Upkeep
from tests.support.failing import Step, ToldModel

DOWN = ProviderUnavailable("reset", provider="told")
FORMAT = AudioFormat("s16", 16000)


class ToldEar:
    """Transcriber that opens, hears and closes as it is told; None is well."""

    def __init__(self) -> None:
        self.name = "told"
        self.audio_formats = (FORMAT,)
        self.on_open: ProviderError | None = None
        self.on_hear: ProviderError | None = None
        self.on_close: ProviderError | None = None
        self.opened = 0
        self.fed_bytes: list[int] = []

    def attach_nowait(self) -> None: ...

    def detach_nowait(self) -> None: ...

    async def aclose(self) -> None: ...

    async def open(self, config: TranscriberConfig) -> ToldEarStream:
        self.opened += 1
        if self.on_open is not None:
            raise self.on_open
        return ToldEarStream(self)


class ToldEarStream:
    def __init__(self, ear: ToldEar) -> None:
        self._ear = ear

    def begin_nowait(self, utterance_no: int, start_ms: int) -> None: ...

    def feed_nowait(self, audio: bytes) -> None:
        self._ear.fed_bytes.append(len(audio))

    def commit_nowait(self, utterance_no: int) -> None: ...

    def resume_nowait(self, utterance_no: int) -> None: ...

    async def __aiter__(self) -> AsyncIterator[TranscriptEvent]:
        if self._ear.on_hear is not None:
            raise self._ear.on_hear
        yield Final(1, "")

    async def aclose(self) -> None:
        if self._ear.on_close is not None:
            raise self._ear.on_close


class CheckedModel(ToldModel):
    """A model that can be checked, which costs nothing and says nothing of its answers."""

    checks = 0
    checked = ""
    failure: ProviderError | None = None

    async def check(self, model: str = "") -> Check:
        self.checks += 1
        self.checked = model
        return Check(provider=self.name, is_reached=self.failure is None, failure=self.failure)


class Rig:
    """Agents whose services the test tells, all of them "told"."""

    def __init__(self, model: list[list[Step]] | None = None, agents: int = 1) -> None:
        self.ear, self.model = ToldEar(), CheckedModel("told", model or [[TextDelta("one ")]])
        self.metrics = Metrics()
        self.catalogue = Catalogue(ProviderConfig(), self.metrics.providers)
        self.catalogue._ears.makers["told"] = lambda: self.ear
        self.catalogue._models.makers["told"] = lambda: self.model
        llm = {"provider": "told", "model": "own"}
        raw = {"stt": {"provider": "told"}, "llm": llm, "tts": {"provider": "scripted"}}
        self.settings = AgentSettings.parse(raw)
        self.agents = [self.agent(number) for number in range(agents)]
        clips = Clips()
        self.upkeep = Upkeep(self.catalogue, clips, lambda: tuple(self.agents))
        self.readiness = Readiness(self.catalogue, clips, lambda: tuple(self.agents))

    def agent(self, number: int) -> AgentVersion:
        return AgentVersion(f"v{number}", f"a{number}", f"agent{number}", 1, self.settings)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


def test_every_service_is_reached_once_and_every_agent_opens_its_recognition() -> None:
    async def body() -> None:
        rig = Rig(agents=3)
        await rig.upkeep.warm_up()
        assert rig.ear.opened == 3 and rig.model.checks == 1 and rig.model.checked == "own"
        assert rig.ear.fed_bytes == [TONE_MS * 2 * 16], "one tone"
        await rig.upkeep.warm_up()
        assert rig.ear.opened == 3, "who is warm stays so"
        rig.agents.append(rig.agent(3))
        await rig.upkeep.warm_up()
        assert rig.ear.opened == 4, "one that came later"
        assert rig.readiness.problem() is None and rig.readiness.degraded() == {}
        await rig.catalogue.aclose()

    run(body)


def test_what_fails_at_the_start_is_counted_and_takes_the_process_out() -> None:
    async def body() -> None:
        rig = Rig()
        rig.ear.on_open = ProviderRejected("key", status=401, provider="told")
        rig.model.failure = DOWN
        await rig.upkeep.warm_up()
        for service, kind in (("stt", "rejected_401"), ("llm", "unavailable")):
            assert rig.count("provider_failures_total", service=service, provider="told", kind=kind) == 1
            assert rig.count("provider_attempts_total", service=service, provider="told") == 1
            assert rig.readiness.degraded()[f"{service}/told"] == {"state": "closed", "last_error": kind}
        assert rig.readiness.problem() == "nobody hears for agent agent0 (told: rejected_401)"
        rig.ear.on_open = None
        await rig.upkeep.ask_again()
        # A list of models is no answer: an outage of the answers is over when one comes.
        assert rig.model.checks == 1 and len(rig.model.requests) == 1
        assert rig.readiness.problem() is None and rig.readiness.degraded() == {}
        await rig.catalogue.aclose()

    run(body)


def test_a_service_that_connects_and_does_not_work_has_failed() -> None:
    async def body() -> None:
        rig = Rig(model=[[], [DOWN], [TextDelta("one ")]])
        rig.ear.on_hear = DOWN
        rig.model.failure = DOWN
        await rig.upkeep.warm_up()
        assert rig.count("provider_failures_total", service="stt", provider="told", kind="unavailable") == 1
        for _ in range(2):
            await rig.upkeep.ask_again()
            assert rig.readiness.problem() == "nobody hears for agent agent0 (told: unavailable)"
        assert set(rig.readiness.degraded()) == {"stt/told", "llm/told"}, "an empty answer is none"
        await rig.upkeep.ask_again()
        assert set(rig.readiness.degraded()) == {"stt/told"}
        await rig.catalogue.aclose()

    run(body)


def test_the_breaker_is_the_back_off() -> None:
    async def body() -> None:
        rig = Rig()
        rig.ear.on_open = DOWN
        await rig.upkeep.warm_up()
        for _ in range(50):
            await rig.upkeep.ask_again()
        assert rig.ear.opened == FAILURES_IN_A_ROW
        assert rig.readiness.degraded()["stt/told"]["state"] == "open"
        await rig.catalogue.aclose()

    run(body)


def test_a_stream_that_does_not_close_ends_nothing() -> None:
    async def body() -> None:
        rig = Rig()
        rig.ear.on_close = DOWN
        await rig.upkeep.warm_up()
        assert rig.readiness.problem() is None
        await rig.catalogue.aclose()

    run(body)


def test_nobody_is_asked_again_who_works() -> None:
    async def body() -> None:
        rig = Rig()
        await rig.upkeep.warm_up()
        before = rig.ear.opened
        await rig.upkeep.ask_again()
        assert rig.ear.opened == before and not rig.model.requests
        await rig.catalogue.aclose()

    run(body)


def test_the_process_is_told_once_that_all_is_there_before_it_is_ready() -> None:
    async def body() -> None:
        rig = Rig(agents=2)
        seen: list[tuple[bool, int]] = []
        told = asyncio.Event()

        def on_warm() -> None:
            seen.append((upkeep.is_warm, rig.ear.opened))
            told.set()

        upkeep = Upkeep(rig.catalogue, Clips(), lambda: tuple(rig.agents), on_warm=on_warm)
        running = asyncio.create_task(upkeep.run())
        await told.wait()
        await asyncio.sleep(0)
        assert upkeep.is_warm and seen == [(False, 2)]
        running.cancel()
        await rig.catalogue.aclose()

    run(body)
