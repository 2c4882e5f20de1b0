"""A server that is broken on purpose: only where nobody calls, said loudly, and each way does what its name says."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import get_args

import pytest

from bench.load.options import BREAKAGES
from providers.base import ChatDone, ChatRequest, Message
from server import breakage
from server.call.capture import CaptureStore
from server.call.clips import Clips
from server.call.pacer import Pacer
from server.call.scoring import SpeechScoring
from server.call.services import CallFacts, CallServices
from server.catalogue import Catalogue
from server.clock import SystemClock
from server.config import Config, ProviderConfig
from server.config.breakage import Breakage
from server.errors import ConfigError
from server.metrics import Metrics
from server.node import doctor
from server.store.spool import Spool
from server.tool.http_tool import HttpTools
from server.tool.runner import ToolRunner
from tests.support.call_plane import VERSION

TWILIO = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "t", "TWILIO_API_URL": "http://127.0.0.1:9"}
TELNYX = {"TELNYX_API_KEY": "KEY1", "TELNYX_PUBLIC_KEY": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="}
TEST_STAND = {"ALLOW_EMBEDDED": "1", "PUBLIC_URL": "https://bench.example.test", "HOST": "127.0.0.1"} | TWILIO


def config(changes: dict[str, str]) -> Config:
    return Config.from_env({"TALKSPURT_TEST_BREAK": "pacer", "AGENTS_DIR": str(Path(__file__).parent)} | changes)


@pytest.mark.parametrize("changes", [{}, TEST_STAND, {"PUBLIC_URL": "http://localhost:8080", "ALLOW_EMBEDDED": "1"}])
def test_it_is_broken_where_nobody_calls(changes: dict[str, str]) -> None:
    assert config(changes).breakage == "pacer"
    assert config(changes | {"TALKSPURT_TEST_BREAK": ""}).breakage == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"HOST": "0.0.0.0", "ALLOW_EMBEDDED": "1"},
        {"PUBLIC_URL": "https://voice.example.com", "ALLOW_EMBEDDED": "1"},
        TEST_STAND | {"PUBLIC_URL": "https://voice.example.com"},
        TEST_STAND | {"PUBLIC_URL": "https://contest"},
        TEST_STAND | {"TWILIO_API_URL": "https://api.twilio.com"},
        TEST_STAND | TELNYX,
        TEST_STAND | {"HOST": "192.0.2.1"},
        {"TALKSPURT_TEST_BREAK": "everything"},
    ],
)
def test_it_is_refused_where_calls_can_come(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="TALKSPURT_TEST_BREAK"):
        config(changes)
    assert Config.from_env({"AGENTS_DIR": str(Path(__file__).parent)} | changes | {"TALKSPURT_TEST_BREAK": ""})


def test_the_doctor_names_it() -> None:
    with pytest.raises(doctor.Problem, match="broken on purpose: pacer; unset TALKSPURT_TEST_BREAK"):
        doctor._configuration(config({}))


def test_readyz_shows_it() -> None:
    assert breakage.told("vad", lambda: {"llm/x": {"state": "open"}})() == {
        "llm/x": {"state": "open"},
        "test": {"broken_on_purpose": "vad"},
    }
    whole = dict
    assert breakage.told("", whole) is whole


def test_the_bench_knows_every_way() -> None:
    assert set(BREAKAGES) == set(get_args(Breakage)) - {""}


def test_each_way_breaks_one_thing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(*_: object) -> bool:
        return False

    async def hang_up(facts: CallFacts) -> None:
        return

    async def main() -> None:
        clock, metrics, spool = SystemClock(), Metrics(), Spool(tmp_path)
        services = CallServices(
            clock=clock,
            pacer=Pacer(clock, lambda late_s: None),
            scoring=SpeechScoring.load(clock),
            clips=Clips(),
            metrics=metrics,
            spool=spool,
            hang_up=hang_up,
            hand_over=nothing,
            captures=CaptureStore(tmp_path, clock),
            tools=ToolRunner(HttpTools({}, ()), spool, metrics, clock),
            lead_ms=200,
            chunk_ms=100,
        )
        providers_for = Catalogue(ProviderConfig(), metrics.providers).for_call
        whole = services.settings_for(VERSION.settings, "twilio")
        assert whole == VERSION.settings.for_channel("twilio")
        assert breakage.broken("", services, providers_for) == (services, providers_for)
        assert not caplog.records

        unpaced, _ = breakage.broken("pacer", services, providers_for)
        assert (unpaced.lead_ms, unpaced.chunk_ms) == (3_600_000, 100)
        deaf, _ = breakage.broken("vad", services, providers_for)
        assert deaf.settings_for(VERSION.settings, "twilio").turn.level_gate_dbfs == 0
        stubborn, _ = breakage.broken("barge_in", services, providers_for)
        assert not stubborn.settings_for(VERSION.settings, "twilio").interruption.allowed
        assert whole.interruption.allowed
        same, forgetful_for = breakage.broken("turn_in_fifty", services, providers_for)
        assert same is services
        assert [one.levelname for one in caplog.records] == ["ERROR"] * 4
        assert "broken on purpose: pacer (TALKSPURT_TEST_BREAK)" in caplog.text

        request = ChatRequest(messages=(Message("user", "turn 1 of +15550012"),), model="")
        answered = []
        for _ in range(100):  # each call has a model of its own
            model = forgetful_for(whole).model
            answered.append([one async for one in model.stream(request)] != [ChatDone()])
        assert [no for no, one in enumerate(answered) if not one] == [24, 74]

    caplog.set_level(logging.WARNING)
    asyncio.run(main())
