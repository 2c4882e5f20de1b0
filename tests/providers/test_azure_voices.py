"""The live list of voices at the simulated service, its filters and its failures; what the options refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from bench.sim.azure import VOICES, AzureSim, Fault
from providers.azure import voices as voices_module
from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import speech_config
from providers.azure.voices import AzureVoices
from providers.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from tests.bench.azure_client import serving
from tests.providers.azure_service import options, run


@pytest.fixture(scope="module")
def served() -> Iterator[AzureSim]:
    with serving(AzureSim()) as one:
        yield one


@pytest.fixture
def sim(served: AzureSim) -> Iterator[AzureSim]:
    yield served
    served.faults.clear()


def test_the_list_and_its_filters(sim: AzureSim) -> None:
    async def main() -> None:
        catalogue = AzureVoices(options(sim))
        every = await catalogue.voices()
        assert [one.name for one in every] == list(VOICES)
        german = await catalogue.voices(language="de")
        assert {"de-DE-KatjaNeural", "en-US-AvaMultilingualNeural"} <= {one.name for one in german}
        assert "en-GB-SoniaNeural" not in {one.name for one in german}
        assert {one.gender for one in await catalogue.voices(gender="female")} == {"Female"}
        styled = await catalogue.voices(style="Chat", language="en-US")
        assert styled and all("chat" in one.styles for one in styled)
        assert await catalogue.voices(status="GA") and not await catalogue.voices(status="Nothing")
        assert every[0].rate_hz == 24_000 and every[0].words_per_minute > 0
        await catalogue.aclose()

    run(main())


def test_one_fetch_serves_all_and_is_kept(sim: AzureSim) -> None:
    async def main() -> None:
        before = sim.counts["voices"]
        catalogue = AzureVoices(options(sim))
        await asyncio.gather(*(catalogue.voices() for _ in range(10)))
        assert sim.counts["voices"] == before + 1
        await catalogue.aclose()
        fresh = AzureVoices(options(sim, voices_ttl_s=0))
        await fresh.voices()
        await fresh.voices()
        assert sim.counts["voices"] == before + 3
        sim.faults.add(Fault(kind="http", on="voices", status=503))
        assert await fresh.voices(), "an outage falls back to the list that was kept"
        await fresh.aclose()

    run(main())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="http", status=401), ProviderRejected),
        (Fault(kind="http", status=429), ProviderRejected),
        (Fault(kind="http", status=503), ProviderUnavailable),
        (Fault(kind="refuse"), ProviderUnavailable),
        (Fault(kind="hold"), ProviderTimeout),
    ],
    ids=lambda one: one.label if isinstance(one, Fault) else "",
)
@pytest.mark.parametrize("service", ["voices", "token"])
def test_failures(
    sim: AzureSim, monkeypatch: pytest.MonkeyPatch, fault: Fault, error: type[ProviderError], service: str
) -> None:
    from dataclasses import replace

    from providers.azure import token

    monkeypatch.setattr(voices_module, "FETCH_MS", 200)
    monkeypatch.setattr(token, "FETCH_MS", 150)

    async def main() -> None:
        sim.faults.add(replace(fault, on=service))
        catalogue = AzureVoices(options(sim, use_token=service == "token"))
        with pytest.raises(error) as raised:
            await catalogue.voices()
        assert raised.value.provider == "azure" and sim.key not in str(raised.value)
        assert await catalogue.voices()
        await catalogue.aclose()

    run(main())


@pytest.mark.parametrize(
    "body", [b"[", b"{}", b'[{"ShortName": 1, "Locale": 2}]', b'[{"Locale": "x"}]', b"[1]", b"x" * (9 << 20)]
)
def test_a_list_that_is_none(body: bytes) -> None:
    async def main() -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=body)

        app = web.Application()
        app.router.add_get("/cognitiveservices/voices/list", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        catalogue = AzureVoices(AzureSpeechOptions(key="some-key", endpoint=f"ws://127.0.0.1:{port}"))
        try:
            with pytest.raises(ProviderProtocolError):
                await catalogue.voices()
        finally:
            await catalogue.aclose()
            await runner.cleanup()

    run(main())


def test_addresses() -> None:
    region = AzureSpeechOptions(key="some-key", region="westeurope")
    assert region.synthesis_url == "https://westeurope.tts.speech.microsoft.com"
    assert region.token_url == "https://westeurope.api.cognitive.microsoft.com/sts/v1.0/issueToken"
    assert region.text_stream_url == "wss://westeurope.tts.speech.microsoft.com/cognitiveservices/websocket/v2"
    own = AzureSpeechOptions(key="some-key", endpoint="https://name.cognitiveservices.azure.com/")
    assert own.synthesis_url == "https://name.cognitiveservices.azure.com/tts"
    assert own.token_url == "https://name.cognitiveservices.azure.com/sts/v1.0/issueToken"
    assert own.text_stream_url == "wss://name.cognitiveservices.azure.com/tts/cognitiveservices/websocket/v2"
    host = AzureSpeechOptions(key="some-key", endpoint="wss://speech.example.com:8443")
    assert host.synthesis_url == "https://speech.example.com:8443"
    assert host.text_stream_url == "wss://speech.example.com:8443/cognitiveservices/websocket/v2"
    assert "some-key" not in repr(region)


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"key": ""}, {"region": "a", "endpoint": "ws://h"}, {"region": "", "endpoint": "ftp://h"},
        {"region": "", "endpoint": "https://h/path"}, {"region": "", "endpoint": "https://"},
        {"final_wait_ms": 0}, {"polling_ms": 201}, {"sdk_retries": -1}, {"warm_limit": 1001},
    ],
)  # fmt: skip
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"key": "some-key", "region": "westeurope"}
    with pytest.raises(ValueError, match=r"expected"):
        AzureSpeechOptions(**(good | wrong if wrong else {"key": "some-key"}))


@pytest.mark.parametrize("token", ["", "a.token"])
@pytest.mark.parametrize(
    "place",
    [
        {"region": "westeurope"},
        {"endpoint": "https://name.cognitiveservices.azure.com"},
        {"endpoint": "wss://speech.example.com"},
    ],
)
def test_the_sdk_takes_every_kind_of_account(place: dict[str, str], token: str) -> None:
    where = AzureSpeechOptions(key="some-key", polling_ms=50, **place)
    for url in ("", where.text_stream_url):
        config = speech_config(where, token, url=url)
        assert (config.authorization_token or "") == token
        assert (config.subscription_key or "") == ("" if token else "some-key")
        assert config.get_property_by_name("SPEECH-USPPollingInterval") == "50"
        assert config.get_property_by_name("SPEECH-Error-MaxRetryCount") == "0"
