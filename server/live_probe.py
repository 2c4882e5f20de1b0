"""The probes of `talkspurt doctor --live`: each reaches one service and tells what it found.

An address that takes no connection is found out first: SDKs take their time to say so, and do not always say why.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from urllib.parse import urlsplit

from providers.azure.options import AzureSpeechOptions
from providers.azure.voice import default_voice
from providers.azure.voices import AzureVoices, Voice
from providers.base import PCMU_8K, AudioChunk, SpeechRequest, Synthesizer, Transcriber, TranscriberConfig
from providers.check import Check
from providers.errors import ProviderError, ProviderTimeout
from server.live_hint import NotReachable, Reason

CONNECT_S = 3.0
PATIENT_S = 10.0
"""Of a probe, once there is a connection."""
SILENCE_MS = 500
MAX_SHOWN_STYLES = 8

Probe = Callable[[], Awaitable[Check]]


async def patiently(name: str, url: str, probe: Probe) -> Check:
    """What `probe` found, within CONNECT_S and PATIENT_S. Never raises."""
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


async def hear(transcriber: Transcriber, language: str, model: str = "") -> Check:
    """Opening connects; a refused key, model or language shows when audio is sent, so a little silence is."""
    name, audio_format = transcriber.name, transcriber.audio_formats[0]
    began_s = time.perf_counter()
    stream = await transcriber.open(TranscriberConfig(audio_format=audio_format, language=language, model=model))
    try:
        latency_ms = (time.perf_counter() - began_s) * 1000
        stream.begin_nowait(1, 0)
        silence = b"\xff" if audio_format.encoding == "pcmu" else b"\0" * audio_format.bytes_per_sample
        stream.feed_nowait(silence * (audio_format.rate_hz * SILENCE_MS // 1000))
        stream.commit_nowait(1)
        await anext(aiter(stream))
    finally:
        await stream.aclose()
    wanted = f"{language} by {model}" if model else language
    return Check(provider=name, is_reached=True, latency_ms=latency_ms, wanted=wanted, is_found=True)


async def speak(synthesizer: Synthesizer, language: str, voice: str = "", style: str = "") -> Check:
    """A short clause; the voice of the language when none is named."""
    began_s = time.perf_counter()
    request = SpeechRequest(text="Hello.", audio_format=PCMU_8K, language=language, voice=voice, style=style)
    wanted = voice or default_voice(language)
    async with aclosing(synthesizer.stream(request)) as events:  # type: ignore[type-var]
        async for one in events:
            if isinstance(one, AudioChunk):
                latency_ms = (time.perf_counter() - began_s) * 1000
                return Check(
                    provider=synthesizer.name, is_reached=True, latency_ms=latency_ms, wanted=wanted, is_found=True
                )
    return Check(provider=synthesizer.name, is_reached=True, problem="no audio")


async def find_voice(options: AzureSpeechOptions, language: str, voice: str = "", style: str = "") -> Check:
    """Look the voice (that of the language when none is named) up in the account's list."""
    voices = AzureVoices(options)
    began_s = time.perf_counter()
    try:
        listed = await voices.voices()
    finally:
        await voices.aclose()
    latency_ms = (time.perf_counter() - began_s) * 1000
    wanted = voice or default_voice(language)
    found = next((one for one in listed if one.name == wanted), None)
    if not wanted:
        problem = f"language {language} has no voice by default: name one"
    elif found is None:
        problem = f"voice {wanted} is not among the {len(listed)} of this region"
    else:
        problem = _mismatch(found, language, style)
    return Check(
        provider=voices.name, is_reached=True, latency_ms=latency_ms, wanted=wanted, is_found=found is not None,
        problem=problem,
    )  # fmt: skip


def _mismatch(voice: Voice, language: str, style: str) -> str:
    """Why the voice does not suit; another region of its language does."""
    if not voice.speaks(language.split("-")[0]):
        return f"voice {voice.name} speaks {', '.join((voice.locale, *voice.languages))}, not {language}"
    if style and style.lower() not in (known.lower() for known in voice.styles):
        known = f"; it has {', '.join(voice.styles[:MAX_SHOWN_STYLES])}" if voice.styles else ""
        return f"voice {voice.name} has no style {style}{known}"
    return ""
