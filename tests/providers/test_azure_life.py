"""What is left over: threads, sockets and native objects after many calls, and the exit of a process that made some."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.sim.azure import AzureSim, Fault
from providers.azure import sdk_native
from providers.base import PCMU_8K, AudioChunk, SpeechRequest
from providers.errors import ProviderError, ProviderUnavailable
from tests.bench.azure_client import serving
from tests.providers.azure_service import (
    LISTEN,
    SAID,
    book,
    feed,
    heard,
    let_go,
    run,
    synthesizer,
    transcriber,
    utterance,
)

CALLS = 200
ROOT = Path(__file__).parents[2]
SPEAK = SpeechRequest(text="Good day, how can I help you?", audio_format=PCMU_8K)


@pytest.fixture(scope="module")
def served() -> Iterator[AzureSim]:
    with serving(AzureSim(book=book())) as one:
        yield one


@pytest.fixture
def sim(served: AzureSim) -> Iterator[AzureSim]:
    let_go()
    yield served
    served.faults.clear()
    let_go()


def count() -> tuple[int, int]:
    """Threads, native ones too, and file descriptors. libuv's resolvers belong to the loop and come when they like."""
    names = []
    for thread in psutil.Process().threads():
        try:
            names.append((Path("/proc/self/task") / str(thread.id) / "comm").read_text().strip())
        except FileNotFoundError:
            pass  # it ended just now
    return sum(name != "libuv-worker" for name in names), psutil.Process().num_fds()


def settled(before: tuple[int, int]) -> tuple[int, int]:
    """The same when the SDK's last threads and the server's sockets have ended, which takes a little."""
    end_s = time.monotonic() + 5
    while True:
        now = count()
        if (now[0] <= before[0] and now[1] <= before[1]) or time.monotonic() > end_s:
            return now
        time.sleep(0.01)


@pytest.mark.slow
def test_two_hundred_calls_leave_nothing(sim: AzureSim) -> None:
    """Some end politely, some in mid-speech, some before they were open, some on a service that breaks."""

    async def call(number: int) -> None:
        ears, voice = transcriber(sim), synthesizer(sim)
        voice.attach_nowait()
        if number % 4 == 3:
            sim.faults.add(Fault(kind="cut", on="tts", after_ms=100))
        try:
            if number % 4 == 0:
                opening = asyncio.ensure_future(ears.open(LISTEN))
                await asyncio.sleep(0.001 * (number % 12))
                opening.cancel()
                await asyncio.wait([opening])
                if not opening.cancelled():
                    await opening.result().aclose()
            else:
                stream = await ears.open(LISTEN)
                stream.begin_nowait(1, 0)
                await feed(stream, utterance(2))
                if number % 4 == 1:
                    stream.commit_nowait(1)
                    assert [one.text for one in await heard(aiter(stream))] == [SAID[2]]
                await stream.aclose()
            speech = voice.stream(SPEAK)
            async for one in speech:
                if isinstance(one, AudioChunk) and number % 4 == 2:
                    break
            await speech.aclose()
        except ProviderError as error:
            assert isinstance(error, ProviderUnavailable)  # a cut finds any of the four that speak
        voice.detach_nowait()
        await voice.aclose()
        await ears.aclose()

    async def calls(count: int) -> None:
        for first in range(0, count, 4):
            await asyncio.gather(*(call(number) for number in range(first, first + 4)))

    run(calls(16))  # libraries and pools take what they keep
    let_go()
    gc.collect()
    before = count()
    run(calls(CALLS))
    sim.faults.clear()
    let_go()
    gc.collect()
    after = settled(before)
    assert after[0] <= before[0] and after[1] <= before[1], f"{before} before, {after} after"
    assert sdk_native.alive() == 0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("azure-")]


EXITS = """
import asyncio, sys
from providers.azure import sdk_native
from providers.azure.options import AzureSpeechOptions
from providers.azure.stt import AzureTranscriber
from providers.azure.tts import AzureSynthesizer
from providers.base import PCMU_8K, SpeechRequest, TranscriberConfig

async def main() -> None:
    options = AzureSpeechOptions(key="sim-key", endpoint=sys.argv[1])
    ears, voice = AzureTranscriber(options), AzureSynthesizer(options)
    voice.attach_nowait()
    stream = await ears.open(TranscriberConfig(audio_format=PCMU_8K))
    stream.begin_nowait(1, 0)
    stream.feed_nowait(bytes([255]) * 8000)
    stream.commit_nowait(1)
    speech = voice.stream(SpeechRequest(text="Good day, how can I help you?", audio_format=PCMU_8K))
    await anext(speech)
    if "leave" not in sys.argv:
        await speech.aclose()
        await stream.aclose()

asyncio.run(main())
if "shutdown" in sys.argv:
    sdk_native.shutdown()
    assert not sdk_native.alive()
print("end")
"""


@pytest.mark.parametrize("how", ["shutdown", "leave", "leave shutdown", "abort"])
def test_a_process_exits_as_it_should(sim: AzureSim, how: str) -> None:
    """In the middle of callbacks too; a process that forgets `shutdown` is forgiven."""
    if how == "abort":
        sim.faults.add(Fault(kind="silent", on="any", times=None))
        how = "leave shutdown"
        wait = "await asyncio.wait([asyncio.ensure_future(anext(speech))], timeout=0.05)"
        script = EXITS.replace("await anext(speech)", wait)
    else:
        script = EXITS
    command = [sys.executable, "-c", script, sim.host, *how.split()]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "end\n"), done
    # asyncio itself complains of the tasks of adapters that nobody closed.
    assert not done.stderr or "leave" in how, done
