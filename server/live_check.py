"""`talkspurt doctor --live PROVIDER`: does the service answer, how fast, and does it have what calls use?

    ok     azure-stt      reached in 83 ms, recognises en-US
    ok     azure-tts      first sound after 121 ms, voice en-US-AvaMultilingualNeural
    WRONG  groq           status 401: the key was refused; check GROQ_API_KEY

Asks for little: a short clause, a few tokens, the list of models. Never shows a key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from providers.azure.voice import default_voice
from providers.azure.voices import AzureVoices
from providers.base import PCMU_8K, AudioChunk, SpeechRequest, TranscriberConfig
from providers.check import Check
from providers.errors import ProviderError, ProviderRejected
from providers.observer import Unobserved
from server.catalogue import NEEDS, Catalogue, azure_options
from server.config import Config
from server.logs import redact

PATIENT_S = 15.0
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
        checks = [await _patiently(name, probe) for name, probe in _probes(config, catalogue, account)]
        for one in checks:
            print(f"{'ok' if one.is_well else 'WRONG':<6} {one.provider:<14} {redact(_line(one, account))}", flush=True)
        return 0 if all(one.is_well for one in checks) else 1
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


def _probes(config: Config, catalogue: Catalogue, account: str) -> list[tuple[str, Probe]]:
    if account == "azure":
        return [
            ("azure-stt", lambda: _hear(catalogue)),
            ("azure-tts", lambda: _speak(catalogue)),
            ("azure-voices", lambda: _voices(config)),
        ]
    # Their adapters know how to probe themselves.
    probes: list[tuple[str, Probe]] = [(account, catalogue.model(account).check)]  # type: ignore[attr-defined]
    if account in ("openai", "groq"):
        probes.append((f"{account}-stt", catalogue.transcriber(f"{account}-stt").check))  # type: ignore[attr-defined]
        probes.append((f"{account}-tts", catalogue.synthesizer(f"{account}-tts").check))  # type: ignore[attr-defined]
    return probes


async def _patiently(name: str, probe: Probe) -> Check:
    try:
        async with asyncio.timeout(PATIENT_S):
            return await probe()
    except TimeoutError:
        return Check(provider=name, is_reached=False, problem=f"no answer within {PATIENT_S:.0f} s")
    except ProviderError as error:
        refused = isinstance(error, ProviderRejected) and error.status in (401, 403)
        hint = "; check AZURE_SPEECH_KEY and AZURE_SPEECH_REGION" if refused else ""
        return Check(provider=name, is_reached=isinstance(error, ProviderRejected), problem=f"{error}{hint}")


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


def _line(check: Check, account: str) -> str:
    if check.problem:
        return check.problem if check.is_reached else f"{check.problem}; check {NEEDS.get(account, '')} and the network"
    reached = "reached" if check.latency_ms is None else f"reached, {check.latency_ms:.0f} ms"
    found = f", {check.wanted} found" if check.is_found else f", {check.wanted} not looked up" if check.wanted else ""
    return reached + found
