"""Transcribers and synthesizers of OpenAI and Groq against the simulated services, by the SDKs over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from bench.sim.openai import Flavour, OpenAiSim
from providers.base import AudioChunk, AudioFormat, Final, SpeechRequest, TranscriberConfig
from providers.errors import ProviderUnavailable
from providers.groq.transcription import WHISPER
from providers.openai.options import (
    LinkOptions,
    OpenAiOptions,
    SpeechOptions,
)
from providers.openai.speech import OpenAISynthesizer, SpeechCore
from providers.openai.transcription import TranscriptionCore
from tests.providers import conformance as suite
from tests.providers.openai_service import KEY, QUICK, run
from tests.providers.rigs import SPOKEN as TEXT
from tests.providers.rigs import TONE, hears_words, openai_synthesizer, openai_transcriber, says_tone

ALL = pytest.mark.parametrize("name", ["openai", "groq"])
CONFIG = TranscriberConfig(language="en-US", caller="+15550001111")


@asynccontextmanager
async def ears(name: str, **how: Any) -> AsyncIterator[tuple[OpenAiSim, TranscriptionCore]]:
    async with OpenAiSim(Flavour(name), recogniser=hears_words) as sim:
        one = openai_transcriber(name, sim, **how)
        try:
            yield sim, one
        finally:
            await one.aclose()


@asynccontextmanager
async def mouth(name: str, **more: Any) -> AsyncIterator[tuple[OpenAiSim, SpeechCore]]:
    async with OpenAiSim(Flavour(name), voice=says_tone) as sim:
        one = openai_synthesizer(name, sim, **more)
        try:
            yield sim, one
        finally:
            await one.aclose()


async def say(stream: Any, number: int, audio: bytes) -> None:
    await suite.say(stream, number, audio, 3200)
    stream.commit_nowait(number)


# ── speech to text ────────────────────────────────────────────────────────────────────────────────────────────


@ALL
def test_what_is_sent_and_what_comes_of_it(name: str) -> None:
    async def main() -> None:
        async with ears(name) as (sim, one):
            phrases = ("Dr. Muñoz", *(f"phrase{n:03}" for n in range(200)))
            stream = await one.open(TranscriberConfig(language="es-ES", phrases=phrases))
            await say(stream, 1, TONE)
            final = await suite.next_final(stream)
            assert final.text == " ".join(f"word{n}" for n in range(15))
            assert (final.start_ms, final.end_ms) == (1000, 2500)
            [seen] = sim.log.of("transcription")
            assert (seen.body["language"], seen.body["temperature"]) == ("es", "0")
            assert seen.body["prompt"].startswith("Dr. Muñoz, phrase000,") and len(seen.body["prompt"]) <= 800
            assert seen.audio[:4] == b"RIFF" and seen.audio[44:] == TONE
            if name == "groq":
                assert (seen.body["model"], seen.body["response_format"]) == (WHISPER, "verbose_json")
                assert final.confidence is not None and 0.8 < final.confidence < 0.83
            else:
                assert (seen.body["model"], seen.body["include"]) == ("gpt-4o-mini-transcribe", ["logprobs"])
            await stream.aclose()
            whole = await one.open(TranscriberConfig(model="whisper-large-v3" if name == "groq" else "whisper-1"))
            await say(whole, 1, TONE)
            assert (await suite.next_final(whole)).confidence == pytest.approx(0.8187, abs=0.001)
            await whole.aclose()

    run(main)


@ALL
def test_silence_is_not_sent(name: str) -> None:
    async def main() -> None:
        async with ears(name) as (sim, one):
            stream = await one.open(CONFIG)
            noise = (np.random.default_rng(1).standard_normal(16_000) * 5).astype(np.int16).tobytes()
            for number, audio in enumerate((b"", TONE[:3000], bytes(32_000), noise), 1):
                await say(stream, number, audio)
                assert await suite.next_final(stream) == Final(
                    number, "", 1000 * number, 1000 * number + len(audio) // 32, None
                )
            stream.commit_nowait(99)
            assert await suite.next_final(stream) == Final(99, "")
            assert sim.log.of("transcription") == []
            await stream.aclose()

    run(main)


@ALL
def test_finals_keep_their_order_and_their_bounds(name: str) -> None:
    async def main() -> None:
        async with ears(name, at_once=3, max_utterance_ms=1000) as (sim, one):
            stream = await one.open(CONFIG)
            sim.inject("stall", route="transcription", delay_ms=60)
            for number in range(1, 5):
                await say(stream, number, TONE[: 6400 * number])
            for number in range(1, 4):
                final = await suite.next_final(stream)
                assert (final.utterance_no, final.text.count("word")) == (number, 2 * number)
            with pytest.raises(ProviderUnavailable, match="3 utterances"):
                await anext(stream)
            await say(stream, 5, TONE)
            final = await suite.next_final(stream)
            assert (final.text.count("word"), stream.dropped_bytes) == (10, 16_000)
            assert (final.start_ms, final.end_ms) == (5000, 6500)
            await stream.aclose()

    run(main)


@ALL
def test_a_failure_that_passes_loses_no_words(name: str) -> None:
    async def main() -> None:
        async with ears(name, total_ms=300) as (sim, one):
            stream = await one.open(CONFIG)
            kinds = (("server_error", {}), ("close", {}), ("rate_limit", {"retry_after_ms": 20}))
            for number, (kind, how) in enumerate(kinds, 1):
                sim.inject(kind, route="transcription", **how)
                await say(stream, number, TONE)
                assert (await suite.next_final(stream)).text.count("word") == 15
            await say(stream, 99, TONE)
            assert (await suite.next_final(stream)).text.count("word") == 15
            await stream.aclose()
            assert (await one.check()).is_well

    run(main)


# ── text to speech ────────────────────────────────────────────────────────────────────────────────────────────

async def speak(one: SpeechCore, request: SpeechRequest) -> tuple[bytes, AudioFormat]:
    chunks = [event async for event in one.stream(request)]
    assert all(isinstance(chunk, AudioChunk) and len(chunk.audio) % 2 == 0 for chunk in chunks)
    return b"".join(chunk.audio for chunk in chunks), chunks[-1].audio_format  # type: ignore[union-attr]


@ALL
def test_what_is_spoken_and_how(name: str) -> None:
    async def main() -> None:
        async with mouth(name) as (sim, one):
            voice = "hannah" if name == "groq" else "alloy"
            audio, audio_format = await speak(one, SpeechRequest(text=TEXT))
            assert (audio, audio_format) == (says_tone(TEXT, voice), AudioFormat("s16", 24_000))
            plain = sim.log.of("speech")[-1].body
            assert plain["response_format"] == ("wav" if name == "groq" else "pcm") and "speed" not in plain
            other = "daniel" if name == "groq" else "shimmer"
            style = {"input": f"[warm] {TEXT}"} if name == "groq" else {"instructions": "Speak in a warm tone."}
            for change, wanted in (
                ({"voice": other}, {"voice": other}), ({"rate_percent": 25}, {"speed": 1.25}),
                ({"rate_percent": -50}, {"speed": 0.5}), ({"style": "warm"}, style),
            ):  # fmt: skip
                await speak(one, SpeechRequest(text=TEXT, **change))
                body = sim.log.of("speech")[-1].body
                assert {k: v for k, v in body.items() if plain.get(k) != v} == wanted, change
            quiet, _ = await speak(one, SpeechRequest(text=TEXT, volume_percent=50))
            full, half = (np.frombuffer(data, "<i2").astype(int) for data in (audio, quiet))
            assert np.abs(full // 2 - half).max() <= 1
            assert [event async for event in one.stream(SpeechRequest(text=" … "))] == []

    run(main)


@ALL
def test_samples_that_are_wrapped_or_cut(name: str) -> None:
    async def main() -> None:
        async with mouth(name, link=QUICK) as (sim, one):
            request = SpeechRequest(text=TEXT)
            whole = says_tone(TEXT, "hannah" if name == "groq" else "alloy")
            for kind in ("wave_header", "half_sample"):
                sim.inject(kind, route="speech")
                audio, _ = await speak(one, request)
                assert audio == (whole if kind == "wave_header" else whole[:-2])
            assert (await speak(one, request))[0] == whole
            assert (await one.check()).is_well

    run(main)


def test_a_long_text_goes_out_in_pieces() -> None:
    async def main() -> None:
        async with mouth("groq") as (sim, one):
            text = " ".join(f"This is sentence number {n} of a long text." for n in range(12))
            audio, _ = await speak(one, SpeechRequest(text=text))
            sent = [seen.body["input"] for seen in sim.log.of("speech")]
            assert " ".join(sent) == text and max(map(len, sent)) <= 190
            assert audio == b"".join(says_tone(piece, "hannah") for piece in sent)
        async with OpenAiSim(Flavour.OPENAI, voice=says_tone) as sim:
            account = OpenAiOptions(key=KEY, base_url=sim.base_url, model="tts-1")
            one = OpenAISynthesizer(account, SpeechOptions(voice="nova", max_chars=40))
            await speak(one, SpeechRequest(text=TEXT, style="warm"))
            bodies = [seen.body for seen in sim.log.of("speech")]
            assert len(bodies) == 2 and all("instructions" not in body and body["voice"] == "nova" for body in bodies)
            await one.aclose()

    run(main)


@ALL
def test_a_clause_after_a_cancelled_one_finds_a_connection(name: str) -> None:
    async def main() -> None:
        async with mouth(name, link=LinkOptions(spares=1)) as (sim, one):
            one.attach_nowait()
            while one._link.lanes.warm != 1:
                await asyncio.sleep(0.001)
            for _ in range(3):
                async with aclosing(one.stream(SpeechRequest(text=TEXT))) as stream:
                    await anext(stream)
                while one._link.lanes.warm != 1:
                    await asyncio.sleep(0.001)
            firsts = {}
            for seen in sim.log.of():
                firsts.setdefault(seen.connection, seen.route)
            assert set(firsts.values()) == {"models"}

    run(main)
