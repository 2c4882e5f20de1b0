"""What services say of their limits reaches the metrics, from every adapter; and the log, once, when little is left."""

from __future__ import annotations

import asyncio
import logging

import pytest

from providers.openai.limits import LimitWatch
from server.agent.settings import AgentSettings
from server.metrics import Metrics
from tests.support.services import account_of, ask, services

PROVIDERS = [
    ("llm", "openai"), ("llm", "groq"), ("llm", "azure-openai"), ("llm", "compatible"),
    ("stt", "openai-stt"), ("stt", "groq-stt"), ("tts", "openai-tts"), ("tts", "groq-tts"),
]  # fmt: skip


def gauge(metrics: Metrics, name: str, service: str, provider: str, of: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"service": service, "provider": provider, "of": of})


@pytest.mark.slow
def test_what_is_left_of_each_account_is_a_metric() -> None:
    async def body() -> None:
        metrics = Metrics()
        async with services() as made, made.catalogue(metrics.providers) as catalogue:
            for service, provider in PROVIDERS:
                assert gauge(metrics, "provider_limit_remaining", service, provider, "requests") is None
                await ask(service, catalogue, AgentSettings.parse({service: {"provider": provider}}))
                told = made.others[account_of(provider)].meter.headers()
                for of in ("requests", "tokens"):
                    left = gauge(metrics, "provider_limit_remaining", service, provider, of)
                    assert left == float(told[f"x-ratelimit-remaining-{of}"]), (provider, of)
                    whole = told.get(f"x-ratelimit-limit-{of}")  # Azure does not tell it
                    assert gauge(metrics, "provider_limit", service, provider, of) == (whole and float(whole))

    asyncio.run(body())


def test_the_log_says_once_that_little_is_left_and_again_when_it_was_more(caplog: pytest.LogCaptureFixture) -> None:
    watch = LimitWatch("groq")

    def see(remaining: int, limit: int | None = 100) -> int:
        whole = {} if limit is None else {"x-ratelimit-limit-tokens": str(limit)}
        caplog.clear()
        with caplog.at_level(logging.WARNING, "providers.openai.limits"):
            watch.see({"x-ratelimit-remaining-tokens": str(remaining), "x-ratelimit-reset-tokens": "54s"} | whole)
        return len(caplog.records)

    assert [see(one) for one in (100, 10, 9, 5, 0, 9, 10, 9)] == [0, 0, 1, 0, 0, 0, 0, 1]
    assert caplog.messages == ["groq: 9 tokens left of the account's limit of 100, whole again in 54 s"]
    assert vars(caplog.records[0])["event"] == "provider_limit_low"
    assert [see(one, None) for one in (5, 0, 0)] == [0, 1, 0], "without the whole, only nothing is little"
    watch.see({})
    assert watch.newest is not None and watch.newest.remaining_tokens == 0, "what says nothing changes nothing"
