"""Calls that end while their services are being opened leave nothing behind, whoever ends them and however.

    reserve ─► recognition is opened ahead, a voice is warmed ─► stream ─► greeting
        └─ the caller is gone, or the service is, at any point of it ─┘
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from bench.sim.azure import AzureSim, Fault
from bench.sim.openai import Flavour, OpenAiSim
from server.agent.settings import AgentSettings
from server.call import plane
from server.config import ProviderConfig
from server.store.agents import AgentVersion
from tests.bench.azure_client import serving
from tests.providers.azure_service import let_go
from tests.support.call_plane import PlaneServer, plane_server, until
from tests.support.census import REMEMBERED, put_away_spares, threads

pytestmark = pytest.mark.slow

KEY = "sim-key-0123"
CALLS = 50
AT_ONCE = 25
OPENING_MS = 100
OURS = ("audio_native.", "providers.", "server.call.", "server.dialogue.")
KEPT = REMEMBERED | {"server.call.clips.Clip", "providers.base.AudioChunk", "providers.base.SpeechRequest"}
"""Of calls that are over, up to a bound of its own; the greeting as a clip."""
SETTLE_S = 8.0


@pytest.fixture(autouse=True)
def only_these_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was said goes soon. No log record is kept for the test's report, with its error's frames. What is older is
    not looked through each time."""
    monkeypatch.setattr(plane, "RESUME_S", 0.2)
    logging.disable()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def settings(stt: str, llm: str, tts: str) -> AgentSettings:
    providers = {"stt": {"provider": stt}, "llm": {"provider": llm}, "tts": {"provider": tts}}
    return AgentSettings.parse({**providers, "opening": {"text": "Good day, this is the clinic of Doctor Perez."}})


async def held(server: PlaneServer) -> Counter[str]:
    """What there is of calls and of what serves them, without what waits for the next one: by name."""
    voice, catalogue = server.catalogue.synthesizer, server.catalogue
    name = server.version.settings.tts.provider
    pools = [voice(name).pool] if name == "azure" else []  # type: ignore[attr-defined]
    links = [] if pools else [voice(name), catalogue.model("openai"), catalogue.transcriber("openai-stt")]
    await put_away_spares(pools, [one._link.lanes for one in links])  # type: ignore[attr-defined]
    gc.collect()
    kinds = [f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects()]
    found = Counter(kind for kind in kinds if kind.startswith(OURS) and kind not in KEPT)
    found.update(f"task {one.get_coro().__qualname__}" for one in asyncio.all_tasks())  # type: ignore[union-attr]
    found.update({"native threads": threads().count("native"), "descriptors": psutil.Process().num_fds()})
    return found


async def call(server: PlaneServer, number: int) -> None:
    """The caller hangs up within OPENING_MS; one in five before there is a stream at all."""
    name = f"browser-{number}"
    reserved = await server.promised(name)
    leave_s = OPENING_MS * number / CALLS / 1000
    if number % 5 == 4:
        await asyncio.sleep(leave_s)
        assert await server.plane.resume(name) is None  # the carrier says that no stream will come
        return
    socket = await server.begun(reserved)
    await asyncio.sleep(leave_s)
    await socket.close()


async def fifty(server: PlaneServer, trouble: Callable[[], None]) -> Counter[str]:
    """Fifty such calls in `trouble`; what there is more of than after one call in good order."""
    await (await server.talking(await server.promised("first"))).close()
    await server.promised("second")
    await server.plane.resume("second")
    await until(lambda: not server.plane.taken)
    last, before = await held(server), await held(server)
    while last != before:
        last, before = before, await held(server)
    trouble()
    numbers = iter(range(CALLS))

    async def one_after_the_other() -> None:
        for number in numbers:
            await call(server, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    await until(lambda: not server.plane.taken)
    end_s = asyncio.get_running_loop().time() + SETTLE_S
    while (more := await held(server) - before) and asyncio.get_running_loop().time() < end_s:
        pass
    return more


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureSim]:
    with serving(AzureSim(keys=frozenset({KEY}))) as sim:
        yield sim
    let_go()


@pytest.mark.parametrize("kind", ["", "hold", "http", "cut"])
def test_azure_speech_has_nothing_left(kind: str, azure: AzureSim, tmp_path: Path) -> None:
    """It is quick, silent, out of order, or breaks as soon as it is there."""
    let_go()
    azure.faults.clear()
    config = ProviderConfig.from_env({"AZURE_SPEECH_KEY": azure.key, "AZURE_SPEECH_ENDPOINT": azure.host})

    async def main() -> None:
        ears = AgentVersion("v1", "a1", "test", 1, settings("azure", "scripted", "azure"))
        async with plane_server(tmp_path, max_calls=CALLS, config=config, version=ears) as server:
            before = azure.faults.injected.total()
            trouble = [Fault(kind=kind, times=None)] if kind else []
            assert not await fifty(server, lambda: [azure.faults.add(one) for one in trouble])
            assert not kind or azure.faults.injected.total() > before

    uvloop.run(main())


@pytest.mark.parametrize("kind", ["", "slow_first_token", "reset"])
def test_openai_has_nothing_left(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, keys=[KEY]) as sim:
            config = ProviderConfig.from_env({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": sim.base_url})
            ears = AgentVersion("v1", "a1", "test", 1, settings("openai-stt", "openai", "openai-tts"))
            async with plane_server(tmp_path, max_calls=CALLS, config=config, version=ears) as server:
                trouble = [kind] if kind else []
                assert not await fifty(server, lambda: [sim.inject(one, route="any", times=None) for one in trouble])
                assert not kind or sim.faults.picked.total() > 0

    uvloop.run(main())
