"""Transcribers and synthesizers of OpenAI and Groq against the simulated services, by the SDKs over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from bench.sim.openai import Flavour, OpenAiSim
from providers.base import PCMU_8K, AudioChunk, AudioFormat, Final, SpeechRequest, TranscriberConfig
from providers.errors import ProviderProtocolError, ProviderRejected, ProviderTimeout, ProviderUnavailable
from providers.groq.speech import ORPHEUS, GroqSynthesizer
from providers.groq.transcription import WHISPER, GroqTranscriber
from providers.openai.options import (
    GroqOptions,
    LinkOptions,
    OpenAiOptions,
    SpeechOptions,
    TranscriptionOptions,
)
from providers.openai.speech import OpenAISynthesizer, SpeechCore
from providers.openai.transcription import OpenAITranscriber, TranscriptionCore
from tests.providers import conformance as suite
from tests.providers.openai_service import KEY, QUICK, run

ALL = pytest.mark.parametrize("name", ["openai", "groq"])
TONE = (np.sin(np.arange(24_000) * 0.3) * 6000).astype(np.int16).tobytes()  # 1.5 s at 16 kHz
CONFIG = TranscriberConfig(language="en-US", caller="+15550001111")


def hears_words(s16: bytes, rate_hz: int, *_: object) -> str:
    """A word for each 100 ms that is not silent: what is lost on the way is missing in the text."""
    samples = np.frombuffer(s16, np.int16)
    steps = samples[: len(samples) // (rate_hz // 10) * (rate_hz // 10)].reshape(-1, rate_hz // 10)
    return " ".join(f"word{at}" for at, step in enumerate(steps) if np.abs(step).max() > 100)


def says_tone(text: str, voice: str) -> bytes:
    """s16 at 24 kHz, 70 ms a character, its level by the voice's name."""
    count = 24_000 * 70 // 1000 * len(text)
    return (np.sin(np.arange(count) * 0.2) * (1000 + 50 * len(voice))).astype("<i2").tobytes()


def transcriber(name: str, sim: OpenAiSim, *, key: str = KEY, link: LinkOptions | None = None, **how: Any) -> Any:
    link, options = link or LinkOptions(), TranscriptionOptions(**how)
    if name == "groq":
        return GroqTranscriber(GroqOptions(key=key, base_url=sim.base_url, model=WHISPER, link=link), options)
    account = OpenAiOptions(key=key, base_url=sim.base_url, model="gpt-4o-mini-transcribe", link=link)
    return OpenAITranscriber(account, options)


def synthesizer(name: str, sim: OpenAiSim, *, key: str = KEY, link: LinkOptions | None = None, **more: Any) -> Any:
    link = link or LinkOptions()
    if name == "groq":
        return GroqSynthesizer(GroqOptions(key=key, base_url=sim.base_url, model=ORPHEUS, link=link))
    options = {"model": "gpt-4o-mini-tts"} | more
    return OpenAISynthesizer(OpenAiOptions(key=key, base_url=sim.base_url, link=link, **options))


@asynccontextmanager
async def ears(name: str, **how: Any) -> AsyncIterator[tuple[OpenAiSim, TranscriptionCore]]:
    async with OpenAiSim(Flavour(name), recogniser=hears_words) as sim:
        one = transcriber(name, sim, **how)
        try:
            yield sim, one
        finally:
            await one.aclose()


@asynccontextmanager
async def mouth(name: str, **more: Any) -> AsyncIterator[tuple[OpenAiSim, SpeechCore]]:
    async with OpenAiSim(Flavour(name), voice=says_tone) as sim:
        one = synthesizer(name, sim, **more)
        try:
            yield sim, one
        finally:
            await one.aclose()


async def say(stream: Any, number: int, audio: bytes) -> None:
    await suite.say(stream, number, audio, 3200)
    stream.commit_nowait(number)


# ── speech to text ────────────────────────────────────────────────────────────────────────────────────────────


@ALL
def test_transcriber_conformance(name: str) -> None:
    async def main() -> None:
        async with ears(name) as (sim, _):
            subject = suite.TranscriberSubject(
                make=lambda: transcriber(name, sim), config=CONFIG, utterance=TONE,
                bad=TranscriberConfig(audio_format=PCMU_8K),
            )  # fmt: skip

            async def break_it(_: object) -> None:
                sim.inject("server_error", route="transcription", times=2)

            await suite.transcriber_streams(subject)
            await suite.transcriber_resumes(subject)
            await suite.transcriber_cancels(subject)
            await suite.transcriber_misses_deadline(subject)
            await suite.transcriber_refuses(subject, TranscriberConfig(audio_format=PCMU_8K))
            await suite.transcriber_refuses(subject, TranscriberConfig(language="?"))
            await suite.transcriber_fails(subject, break_it)

    run(main)


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
            number = 0
            for kind, how in (("server_error", {}), ("close", {}), ("rate_limit", {"retry_after_ms": 20})):
                number += 1
                sim.inject(kind, route="transcription", **how)
                await say(stream, number, TONE)
                assert (await suite.next_final(stream)).text.count("word") == 15
            for kind, how, error, sent in (
                ("rate_limit", {"retry_after": "7"}, ProviderRejected, 1), ("unauthorized", {}, ProviderRejected, 1),
                ("server_error", {"times": 2}, ProviderUnavailable, 2), ("silence", {}, ProviderTimeout, 1),
                ("json_200", {"times": 2}, ProviderProtocolError, 2),
                ("empty_200", {"times": 2}, ProviderProtocolError, 2),
            ):  # fmt: skip
                number += 1
                before = sim.log.count
                sim.inject(kind, route="transcription", **how)
                await say(stream, number, TONE)
                with pytest.raises(error) as raised:
                    await suite.next_final(stream)
                assert type(raised.value) is error and raised.value.provider == one.name
                assert sim.log.count - before == sent, kind
                assert KEY not in str(raised.value)
            await say(stream, 99, TONE)
            assert (await suite.next_final(stream)).text.count("word") == 15
            await stream.aclose()
            assert (await one.check()).is_well

    run(main)


# ── text to speech ────────────────────────────────────────────────────────────────────────────────────────────

TEXT = "We are open from nine to six, and on Saturdays until noon."


async def speak(one: SpeechCore, request: SpeechRequest) -> tuple[bytes, AudioFormat]:
    chunks = [event async for event in one.stream(request)]
    assert all(isinstance(chunk, AudioChunk) and len(chunk.audio) % 2 == 0 for chunk in chunks)
    return b"".join(chunk.audio for chunk in chunks), chunks[-1].audio_format  # type: ignore[union-attr]


@ALL
def test_synthesizer_conformance(name: str) -> None:
    async def main() -> None:
        async with mouth(name) as (sim, _):
            request = SpeechRequest(text=TEXT)
            subject = suite.SynthesizerSubject(make=lambda: synthesizer(name, sim), request=request)
            await suite.synthesizer_streams(subject)
            await suite.cancels_within_a_frame(synthesizer(name, sim), request)
            sim.inject("slow_first_token", route="speech", delay_ms=2000)
            await suite.misses_deadlines(synthesizer(name, sim), request)
            await suite.refuses(synthesizer(name, sim), SpeechRequest(text=TEXT, voice="nobody"), request)

            async def break_it(_: object) -> None:
                pass

            sim.inject("stream_reset", route="speech", after_tokens=3)
            await suite.fails_in_the_middle(synthesizer(name, sim), request, break_it)
            assert sim.faults.injected["stream_reset"] == 1

    run(main)


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
def test_speech_that_goes_wrong(name: str) -> None:
    async def main() -> None:
        async with mouth(name, link=QUICK) as (sim, one):
            request = SpeechRequest(text=TEXT)
            whole = says_tone(TEXT, "hannah" if name == "groq" else "alloy")
            for kind in ("wave_header", "half_sample"):
                sim.inject(kind, route="speech")
                audio, _ = await speak(one, request)
                assert audio == (whole if kind == "wave_header" else whole[:-2])
            for kind, error, how in (
                ("silence", ProviderTimeout, {"after_tokens": 2}),
                ("stream_cut", ProviderUnavailable, {"after_tokens": 2}),
                ("early_end", ProviderProtocolError, {"after_tokens": 3}), ("endless", ProviderProtocolError, {}),
                ("json_200", ProviderProtocolError, {}), ("rate_limit", ProviderRejected, {}),
                ("unauthorized", ProviderRejected, {}), ("overloaded", ProviderUnavailable, {}),
            ):  # fmt: skip
                sim.inject(kind, route="speech", **how)
                await suite.fails(one, request, error, secret=KEY)
                assert sim.faults.injected[kind] == 1, kind
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
