"""`talkspurt doctor --live PROVIDER`: does the service answer, how fast, and does it have what calls use?

    ok     azure-stt      reached, 83 ms, en-US found
    ok     azure-tts      reached, 121 ms, en-US-AvaMultilingualNeural found
    WRONG  groq           status 401: the key is not accepted; check GROQ_API_KEY

Asks for little: a short clause, a few tokens, the list of models. Never shows a key. An address that takes no
connection is found out first: SDKs take their time to say so, and do not always say why.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from urllib.parse import urlsplit

from providers.azure.voice import default_voice
from providers.azure.voices import AzureVoices
from providers.base import PCMU_8K, AudioChunk, SpeechRequest, TranscriberConfig
from providers.check import Check, Checked
from providers.errors import ProviderError, ProviderTimeout
from providers.observer import Unobserved
from server.catalogue import NEEDS, Catalogue, azure_options
from server.config import Config
from server.live_hint import Account, NotReachable, Reason, explain
from server.logs import redact

CONNECT_S = 3.0
PATIENT_S = 10.0
"""Of a probe, once there is a connection."""
LANGUAGE = "en-US"

Probe = Callable[[], Awaitable[Check]]


def run(config: Config, account: str) -> int:
    """Probe one account, print a line for each of its services. Returns 0 when all is well, else 1."""
    return asyncio.run(_run(config, account))


async def _run(config: Config, account: str) -> int:
    catalogue = Catalogue(config.providers, Unobserved())
    try:
        if not _is_configured(config, account):
            print(f"{'WRONG':<6} {account:<14} not configured; set {NEEDS[account]}", flush=True)
            return 1
        about, is_well = _account(config, account), True
        for name, url, probe in _probes(config, catalogue, account):
            one = await _patiently(name, url, probe)
            line = redact(_line(one, name, about))
            print(f"{'ok' if one.is_well else 'WRONG':<6} {name:<14} {line}", flush=True)
            is_well &= one.is_well
        return 0 if is_well else 1
    finally:
        await catalogue.aclose()


def _is_configured(config: Config, account: str) -> bool:
    providers = config.providers
    return {
        "azure": providers.azure_speech.is_configured,
        "openai": providers.openai.is_configured,
        "groq": providers.groq.is_configured,
        "azure-openai": providers.azure_openai.is_configured,
        "compatible": providers.compatible.is_configured,
    }[account]


def _account(config: Config, account: str) -> Account:
    """The variables that a hint may name."""
    if account == "azure":
        region = config.providers.azure_speech.region
        address = f"AZURE_SPEECH_REGION ({region})" if region else "AZURE_SPEECH_ENDPOINT"
        return Account("AZURE_SPEECH_KEY", address, {}, region)
    if account == "azure-openai":
        models = {"azure-openai": "AZURE_OPENAI_DEPLOYMENT"}
        return Account("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", models)
    prefix = account.upper()
    models = {
        account: f"{prefix}_MODEL",
        f"{account}-stt": f"{prefix}_STT_MODEL",
        f"{account}-tts": f"{prefix}_TTS_MODEL",
    }
    return Account(f"{prefix}_API_KEY", f"{prefix}_BASE_URL", models)


def _probes(config: Config, catalogue: Catalogue, account: str) -> list[tuple[str, str, Probe]]:
    """(name, where its service is, the probe) of each service of the account."""
    providers = config.providers
    if account == "azure":
        options = azure_options(providers.azure_speech)
        heard_at = f"https://{options.region}.stt.speech.microsoft.com" if options.region else options.endpoint
        return [
            ("azure-stt", heard_at, lambda: _hear(catalogue)),
            ("azure-tts", options.synthesis_url, lambda: _speak(catalogue)),
            ("azure-voices", options.synthesis_url, lambda: _voices(config)),
        ]
    url = {
        "openai": providers.openai.base_url,
        "groq": providers.groq.base_url,
        "azure-openai": providers.azure_openai.endpoint,
        "compatible": providers.compatible.base_url,
    }[account]
    asked: list[tuple[str, object]] = [(account, catalogue.model(account))]
    if account in ("openai", "groq"):
        asked.append((f"{account}-stt", catalogue.transcriber(f"{account}-stt")))
        asked.append((f"{account}-tts", catalogue.synthesizer(f"{account}-tts")))
    # Their adapters know how to probe themselves.
    return [(name, url, one.check) for name, one in asked if isinstance(one, Checked)]


async def _patiently(name: str, url: str, probe: Probe) -> Check:
    try:
        await _connect(url)
        async with asyncio.timeout(PATIENT_S):
            return await probe()
    except TimeoutError:
        error: ProviderError = ProviderTimeout("total", round(PATIENT_S * 1000))
    except ProviderError as failed:
        error = failed
    return Check(provider=name, is_reached=False, problem=str(error), failure=error)


async def _connect(url: str) -> None:
    """Whether anybody takes a connection there. Raises NotReachable."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except TimeoutError:
        text = f"no connection to {host}:{port} within {CONNECT_S:.0f} s"
        raise NotReachable(f"{host}:{port}", "timeout", text) from None
    except socket.gaierror as error:
        raise NotReachable(host, "name", f"no address for {host}") from error
    except OSError as error:
        # Of several addresses asyncio gives one error with the texts of all.
        is_refused = f"[Errno {errno.ECONNREFUSED}]" in str(error)
        reason: Reason = "refused" if is_refused else "network"
        raise NotReachable(f"{host}:{port}", reason, f"{host}:{port}: {error.strerror or error}") from error


async def _hear(catalogue: Catalogue) -> Check:
    """Opening connects; a refused key shows when audio is sent, so a little silence is."""
    began_s = time.perf_counter()
    stream = await catalogue.transcriber("azure").open(TranscriberConfig(audio_format=PCMU_8K, language=LANGUAGE))
    try:
        latency_ms = (time.perf_counter() - began_s) * 1000
        stream.begin_nowait(1, 0)
        stream.feed_nowait(b"\xff" * 4000)
        stream.commit_nowait(1)
        await anext(aiter(stream))
    finally:
        await stream.aclose()
    return Check(provider="azure-stt", is_reached=True, latency_ms=latency_ms, wanted=LANGUAGE, is_found=True)


async def _speak(catalogue: Catalogue) -> Check:
    began_s = time.perf_counter()
    request = SpeechRequest(text="Hello.", language=LANGUAGE, audio_format=PCMU_8K)
    async with aclosing(catalogue.synthesizer("azure").stream(request)) as events:  # type: ignore[type-var]
        async for one in events:
            if isinstance(one, AudioChunk):
                latency_ms = (time.perf_counter() - began_s) * 1000
                voice = default_voice(LANGUAGE)
                return Check(provider="azure-tts", is_reached=True, latency_ms=latency_ms, wanted=voice, is_found=True)
    return Check(provider="azure-tts", is_reached=True, problem="no audio")


async def _voices(config: Config) -> Check:
    catalogue = AzureVoices(azure_options(config.providers.azure_speech))
    began_s = time.perf_counter()
    try:
        voices = await catalogue.voices()
    finally:
        await catalogue.aclose()
    latency_ms = (time.perf_counter() - began_s) * 1000
    wanted = default_voice(LANGUAGE)
    is_found = any(one.name == wanted for one in voices)
    problem = "" if is_found else f"voice {wanted} is not among the {len(voices)} of this region"
    return Check(
        provider="azure-voices", is_reached=True, latency_ms=latency_ms, wanted=wanted, is_found=is_found,
        problem=problem,
    )  # fmt: skip


def _line(check: Check, name: str, account: Account) -> str:
    if check.failure is not None:
        return explain(check.failure, name, account)
    if check.problem:
        variable = account.models.get(name, "") if check.is_found is False else ""
        return f"{check.problem}; check {variable}" if variable else check.problem
    reached = "reached" if check.latency_ms is None else f"reached, {check.latency_ms:.0f} ms"
    found = f", {check.wanted} found" if check.is_found else f", {check.wanted} not looked up" if check.wanted else ""
    return reached + found
