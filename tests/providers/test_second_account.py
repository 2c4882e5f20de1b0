"""A second key of Azure Speech, here in another region: it stands in for the first, each with a breaker of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from providers.breaker import FAILURES_IN_A_ROW
from server.agent.choice import Choice, with_standby
from server.agent.settings import AgentSettings
from server.catalogue import STANDBY_LINES
from tests.support.failing import Noted
from tests.support.services import KEY, OTHER_KEY, ask, listen, services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

AGENT: dict[str, Any] = {
    "stt": {"provider": "azure", "model": "endpoint-of-the-first", "fallbacks": ["groq-stt"]},
    "tts": {"provider": "azure", "voice": "en-US-JennyNeural", "style": "cheerful", "fallbacks": ["openai-tts"]},
}
SAID = ["would that be possible", "i will come on tuesday", "my name is emma wilson"]


class Timed(Noted):
    """When each was asked, by the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s: dict[str, float] = {}

    def on_attempt(self, service: str, provider: str) -> None:
        super().on_attempt(service, provider)
        self.asked_s.setdefault(provider, time.monotonic())


def words(finals: list[tuple[int, str]]) -> list[str]:
    return ["".join(c for c in text.lower() if c.isalpha() or c == " ") for _, text in finals]


def test_a_revoked_key_is_not_noticed_by_the_caller() -> None:
    """Within a second, and with every word from the first on; before any other provider is asked."""

    async def body() -> None:
        noted = Timed()
        async with services() as made, made.catalogue(noted, **made.second) as catalogue:
            settings = AgentSettings.parse(AGENT)
            made.kill("azure")
            assert words(await listen(catalogue, settings)) == SAID
            assert noted.asked_s["azure-2"] - noted.asked_s["azure"] < 1
            (heard,) = made.asked("stt")
            assert (heard["service"], heard["header.ocp-apim-subscription-key"]) == ("azure-2", OTHER_KEY)
            assert "query.cid" not in heard, "a custom endpoint of the first region is not known in the second"
            assert noted.lines[:4] == [
                "attempt azure", "failure azure rejected_401", "fallback azure azure-2", "attempt azure-2",
            ]  # fmt: skip
            await ask("tts", catalogue, settings)
            (spoken,) = made.asked("tts")
            assert (spoken["service"], spoken["ssml.voice@name"]) == ("azure-2", "en-US-JennyNeural")
            assert spoken["ssml.express-as@style"] == "cheerful"

    asyncio.run(body())


def test_each_key_has_its_breaker() -> None:
    async def body() -> None:
        noted = Noted()
        async with services() as made, made.catalogue(noted, **made.second) as catalogue:
            settings = AgentSettings.parse({"tts": {"provider": "azure"}})
            made.kill("azure")
            for _ in range(FAILURES_IN_A_ROW + 2):
                await ask("tts", catalogue, settings)
            assert noted.lines.count("failure azure rejected_401") == FAILURES_IN_A_ROW
            assert [one for one in noted.lines if one.startswith("breaker")] == ["breaker azure open"]
            states = {one.provider: one.breaker.state for one in catalogue.healths() if one.service == "tts"}
            assert states == {"azure": "open", "azure-2": "closed"}

    asyncio.run(body())


def test_a_call_beyond_the_limit_of_the_first_goes_to_the_second() -> None:
    async def body() -> None:
        async with services() as made, made.catalogue(**made.second) as catalogue:
            made.azure.limits["stt"] = 1
            settings = AgentSettings.parse({"stt": {"provider": "azure"}})
            together = await asyncio.gather(*(listen(catalogue, settings) for _ in range(2)))
            assert [words(one) for one in together] == [SAID, SAID]
            keys = sorted(one["header.ocp-apim-subscription-key"] for one in made.asked("stt"))
            assert keys == [KEY, OTHER_KEY]

    asyncio.run(body())


def test_few_lines_wait_at_the_second() -> None:
    """Each has six threads: as many as at the first would double the price of a call."""

    async def body() -> None:
        async with services() as made, made.catalogue(**made.second) as catalogue:
            call = catalogue.for_call(AgentSettings.parse({"tts": {"provider": "azure"}}))
            for _ in range(6):
                call.attach_nowait()
            await made.azure.until(lambda: made.azure.open["tts"] >= 6)
            await made.azure_2.until(lambda: made.azure_2.open["tts"] >= STANDBY_LINES)
            assert made.azure_2.counts["tts_connections"] == STANDBY_LINES

    asyncio.run(body())


def test_who_stands_where() -> None:
    azure = Choice(provider="azure", own="v", style="s", setting="tts.provider")
    groq = Choice(provider="groq-tts", own="troy", setting="tts.fallbacks[0]")
    behind = Choice(provider="azure-2", own="v", style="s", setting="tts.provider")
    bare = Choice(provider="azure-2", style="s", setting="tts.provider")
    placed = Choice(provider="azure-2", setting="tts.fallbacks[1]")
    for found, has_its_models, expected in (
        ([azure, groq], True, [azure, behind, groq]),
        ([azure, groq], False, [azure, bare, groq]),
        ([azure, groq, placed], True, [azure, groq, placed]),
        ([groq], True, [groq]),
    ):
        assert with_standby(found, "azure", "azure-2", has_its_models=has_its_models) == expected
