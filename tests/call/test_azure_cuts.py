"""Recognition by Azure's real SDK is cut at random places, over real sockets: no final is lost, none is doubled.

`make cuts` does a thousand, as a release wants; the suite does a few.
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
from providers.health import ProviderHealth
from tests.call.test_recogniser import BOOK, SENTENCES, Call

CUTS = int(os.environ.get("CUTS", "24"))
AT_ONCE = 8
MAX_ERRORS = 2  # words of a final; a sentence has four or five
AUDIO_MS = 7000  # of the three sentences with what is sent around them

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + 2 * CUTS)]


async def call_once(ear: AzureTranscriber, health: ProviderHealth) -> Call:
    call = Call(ear, health=[health])
    await call.run()
    return call


def errors_of(calls: list[Call]) -> WordErrors:
    errors = WordErrors(0, 0)
    for call in calls:
        said = " ".join(text for _, text in sorted(call.finals))
        errors += word_errors(" ".join(SENTENCES), said)
    return errors


def test_cuts_of_the_real_sdk_lose_and_double_nothing() -> None:
    """All calls share the health of the one service, as in a process: many are cut at once."""
    dice = random.Random(7)
    calls: list[Call] = []
    whole: list[Call] = []
    cut = 0

    async def body() -> None:
        nonlocal cut
        async with AzureSim(book=BOOK, profile=profile("fast")) as sim:
            ear = AzureTranscriber(AzureSpeechOptions(key=sim.key, endpoint=sim.host))
            health = ProviderHealth("stt", "azure")
            whole.extend(await asyncio.gather(*(call_once(ear, health) for _ in range(AT_ONCE))))
            while cut < CUTS:
                for _ in range(AT_ONCE):
                    sim.faults.add(Fault(kind="cut", on="stt", after_ms=dice.randrange(100, AUDIO_MS)))
                calls.extend(await asyncio.gather(*(call_once(ear, health) for _ in range(AT_ONCE))))
                cut = sim.faults.injected["cut"]
                sim.faults.clear()
            await ear.aclose()

    uvloop.run(body())
    shutdown()
    assert cut >= CUTS
    for call in calls:
        numbers = [number for number, _ in call.finals]
        assert sorted(numbers) == list(range(1, call.utterances + 1)), f"lost or doubled: {call.finals}"
        assert not call.failed
        # A sentence in the final of another is lost or doubled too, and hardly seen among a thousand calls.
        for number, text in call.finals:
            assert word_errors(SENTENCES[number - 1], text).errors <= MAX_ERRORS, f"lost or doubled: {call.finals}"
    errors, without = errors_of(calls), errors_of(whole)
    assert errors.rate <= without.rate + 0.01, f"{errors.rate:.1%} of {errors.words} words, uncut {without.rate:.1%}"
