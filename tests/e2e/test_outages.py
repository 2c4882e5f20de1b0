"""Ears and voices that go out in mid-call, for longer than anybody waits: what is heard on the line, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bench.demo.script import PlannedCall
from bench.load.server_process import ServerProcess
from bench.sim.caller import Say, ScriptedCaller
from bench.sim.process import ProviderProcesses
from bench.sim.sound import FRAME_MS, FRAME_SAMPLES, is_audible
from bench.sim.twilio import Call, Exchange
from bench.sim.voice import pico_clip
from tests.e2e.test_cloud import DEAD_AIR_MS, ERROR_WORDS, NUMBER, serve

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

PERSON = "+15550142"
APOLOGY = "Could you say that again?"
TEXTS = ("When are you open?", "How much is a cleaning?", "Where can I park my car?")

Order = Callable[[ProviderProcesses], Awaitable[None]]


def longest_silence_ms(call: Call) -> int:
    """The longest time in which neither side was heard, from the caller's first word on."""
    longest = run = 0
    began = False
    for stream in call.streams:
        said, heard = b"".join(stream.said or []), b"".join(stream.heard or [])
        for at in range(0, min(len(said), len(heard)), FRAME_SAMPLES):
            speaks = is_audible(said[at : at + FRAME_SAMPLES])
            began |= speaks
            run = 0 if speaks or is_audible(heard[at : at + FRAME_SAMPLES]) else run + FRAME_MS
            longest = max(longest, run if began else 0)
    return longest


def call_with(tmp_path: Path, order: Order, check: Callable[[Call, list[str], list[str]], None], **limits: str) -> None:
    """One call of three turns; `order` is carried out as the caller begins the second."""
    turns = [Say(clip=pico_clip(text, rate_percent=80)) for text in TEXTS]

    async def body(server: ServerProcess, exchange: Exchange, sims: ProviderProcesses) -> None:
        caller = ScriptedCaller(turns, quiet_ms=900, patience_ms=20_000)

        async def strike() -> None:
            while len(caller.records) < 2:
                await asyncio.sleep(0.02)
            await order(sims)

        async with asyncio.TaskGroup() as group:
            striking = group.create_task(strike())
            call = await exchange.call(caller, from_="+15552000007", to=NUMBER, record=True)
            striking.cancel()
        said = [one for one in server.log_lines()[0] if one.get("event") == "segment"]
        agent = [one["text"] for one in said if one["speaker"] == "agent"]
        heard = [one["text"] for one in said if one["speaker"] == "caller"]
        assert longest_silence_ms(call) <= DEAD_AIR_MS, agent
        assert not any(ERROR_WORDS.search(text.replace("140", "").replace("250", "")) for text in agent), agent
        check(call, agent, heard)

    serve(tmp_path, [PlannedCall("call", "", tuple(turns))], body, fallback_number=PERSON, **limits)


def ears(for_s: float | None, **fault: Any) -> Order:
    """Recognition breaks off now, and cannot be opened again for so long."""

    async def order(sims: ProviderProcesses) -> None:
        again = {} if for_s is None else {"for_s": for_s}
        await sims.fault_azure(on="stt", times=None, **again, **fault)
        await sims.drop_azure()

    return order


@pytest.mark.parametrize("fault", [{"kind": "http", "status": 503}, {"kind": "hold"}], ids=["503", "hangs"])
def test_ears_that_are_out_for_a_while_lose_no_sentence(tmp_path: Path, fault: dict[str, Any]) -> None:
    def check(call: Call, agent: list[str], heard: list[str]) -> None:
        assert call.dialled == []
        assert TEXTS[1] in " ".join(heard), heard
        assert any("90" in text for text in agent), agent

    call_with(tmp_path, ears(7.0, **fault), check)


def test_ears_that_stay_out_hand_the_call_over(tmp_path: Path) -> None:
    def check(call: Call, agent: list[str], heard: list[str]) -> None:
        assert call.dialled == [PERSON]
        assert any(text.endswith(APOLOGY) for text in agent)

    call_with(tmp_path, ears(None, kind="http", status=503), check)


def test_a_voice_that_dies_in_the_middle_and_has_no_successor_is_apologised_for(tmp_path: Path) -> None:
    async def order(sims: ProviderProcesses) -> None:
        await sims.fault_azure(kind="cut", on="tts", after_ms=500)
        await sims.fault_azure(kind="http", on="tts", status=503, times=None)
        await sims.fault_chat("openai", route="speech", kind="close", times=None)

    def check(call: Call, agent: list[str], heard: list[str]) -> None:
        assert any(text.endswith(APOLOGY) for text in agent), agent

    call_with(tmp_path, order, check)
