"""Recognition by Azure's real SDK is cut at random places, over real sockets: no final is lost, none is doubled.

`CUTS=1000 pytest tests/call/test_azure_cuts.py` does as many as a release wants; the suite does a few.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
import uvloop

from bench.demo.score import WordErrors, word_errors
from bench.sim.azure import AzureSim, Fault
from bench.sim.profile import profile
from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import shutdown
from providers.azure.stt import AzureTranscriber
from tests.call.test_recogniser import BOOK, SENTENCES, Call

CUTS = int(os.environ.get("CUTS", "24"))
AT_ONCE = 8
AUDIO_MS = 7000  # of the three sentences with what is sent around them

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + 2 * CUTS)]


async def call_once(sim: AzureSim, ear: AzureTranscriber) -> Call:
    call = Call(ear)
    await call.run()
    return call


def test_cuts_of_the_real_sdk_lose_and_double_nothing() -> None:
    dice = random.Random(7)
    calls: list[Call] = []
    cut = 0

    async def body() -> None:
        nonlocal cut
        async with AzureSim(book=BOOK, profile=profile("fast")) as sim:
            ear = AzureTranscriber(AzureSpeechOptions(key=sim.key, endpoint=sim.host))
            while cut < CUTS:
                for _ in range(AT_ONCE):
                    sim.faults.add(Fault(kind="cut", on="stt", after_ms=dice.randrange(100, AUDIO_MS)))
                calls.extend(await asyncio.gather(*(call_once(sim, ear) for _ in range(AT_ONCE))))
                cut = sim.faults.injected["cut"]
                sim.faults.clear()
            await ear.aclose()

    uvloop.run(body())
    shutdown()
    assert cut >= CUTS
    errors = WordErrors(0, 0)
    for call in calls:
        numbers = [number for number, _ in call.finals]
        assert sorted(numbers) == list(range(1, call.utterances + 1)), f"lost or doubled: {call.finals}"
        said = " ".join(text for _, text in sorted(call.finals))
        errors += word_errors(" ".join(SENTENCES), said)
    assert errors.rate <= 0.01, f"{errors.rate:.1%} of {errors.words} words, without cuts none"
