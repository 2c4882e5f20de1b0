"""The simulated audio endpoints by the vendors' SDKs: speech in chunks, an utterance to text, their refusals."""

from __future__ import annotations

import io
import json
import time
import wave
from pathlib import Path
from typing import Any

import groq
import httpx
import httpx2
import numpy as np
import openai
import pytest

from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.openai import Flavour, OpenAiSim, hears
from bench.sim.openai.audio import SPEECH_RATE_HZ
from bench.sim.profile import PROFILES
from bench.sim.voice import PICO_RATE_HZ, pico_s16
from tests.bench.openai_client import SPEECH_MODEL, TRANSCRIPTION_MODEL, client, run

ALL = pytest.mark.parametrize("flavour", list(Flavour))
TONE = (8000 * np.sin(np.arange(16000) / 5)).astype("<i2").tobytes()


def wav(s16: bytes = TONE, rate_hz: int = 16000, *, width: int = 2) -> tuple[str, bytes]:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(s16)
    return "utterance.wav", out.getvalue()


def heard(s16: bytes, rate_hz: int, language: str) -> str:
    """A recogniser that shows what it was given."""
    what = "the tone" if s16 == TONE else "something else"
    return f"{len(s16) // 2} samples at {rate_hz}, {language or 'any'}, {what}"


def short_voice(text: str, voice: str) -> bytes:
    """Half a second whose samples count up."""
    return np.arange(SPEECH_RATE_HZ // 2).astype("<i2").tobytes()


async def spoken(one: Any, sim: OpenAiSim, **request: Any) -> list[bytes]:
    style = "wav" if sim.flavour is Flavour.GROQ else "pcm"
    voice = "hannah" if sim.flavour is Flavour.GROQ else "alloy"
    usual = {"model": SPEECH_MODEL[sim.flavour], "input": "Hello.", "voice": voice, "response_format": style}
    chunks: list[bytes] = []
    async with one.audio.speech.with_streaming_response.create(**(usual | request)) as answer:
        async for chunk in answer.iter_bytes():
            chunks.append(chunk)
    return chunks


@ALL
def test_speech_comes_in_chunks_as_it_was_rendered(flavour: Flavour) -> None:
    async def main() -> None:
        async with OpenAiSim(flavour, voice=short_voice) as sim, client(sim) as one:
            audio = b"".join(await spoken(one, sim))
            header = audio[:44] if flavour is Flavour.GROQ else b""
            assert header[:4] in (b"", b"RIFF")
            assert audio[len(header) :] == short_voice("", "")
            [seen] = sim.log.of("speech")
            assert (seen.tokens, seen.ended, seen.body["input"]) == (5, "done", "Hello.")

    run(main)


def test_the_voice_is_pico_at_24_khz() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI) as sim, client(sim) as one:
            audio = b"".join(await spoken(one, sim, input="Good morning <b>to you"))
            samples = np.frombuffer(audio, "<i2")
            assert 0.8 < len(samples) / SPEECH_RATE_HZ < 3
            assert np.abs(samples.astype(int)).max() > 3000
            other = b"".join(await spoken(one, sim, input="Good morning <b>to you", voice="echo"))
            assert other != audio

    run(main)


def test_speech_is_paced_and_a_cold_connection_is_slower() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, voice=short_voice, profile=PROFILES["azure-groq"], seed=3) as sim:
            async with client(sim) as one:
                begun = time.monotonic()
                await spoken(one, sim)
                cold_s = time.monotonic() - begun
            # 180 ms cold, some 120 to the first byte, 20 for 0.4 s of sound at 20 times its pace.
            assert 0.25 < cold_s < 1.5
            assert [seen.is_first for seen in sim.log.of("speech")] == [True]

    run(main)


def test_faults_of_speech() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, voice=short_voice) as sim, client(sim, read_s=0.2) as one:
            whole = short_voice("", "")
            # The SDK hands on what its HTTP library raises in a body of raw bytes.
            for kind, error in (
                ("silence", httpx2.ReadTimeout),
                ("stream_reset", httpx2.ReadError),
                ("stream_cut", httpx2.RemoteProtocolError),
            ):
                sim.inject(kind, route="speech", after_tokens=2)
                with pytest.raises(error):
                    await spoken(one, sim)
            sim.inject("early_end", route="speech", after_tokens=2)
            assert b"".join(await spoken(one, sim)) == whole[:9600]
            sim.inject("half_sample", route="speech")
            assert b"".join(await spoken(one, sim)) == whole[:-1]
            sim.inject("wave_header", route="speech")
            assert b"".join(await spoken(one, sim))[:4] == b"RIFF"
            sim.inject("empty_200", route="speech")
            assert await spoken(one, sim) == []
            sim.inject("stall", route="speech", after_tokens=2, delay_ms=60)
            assert b"".join(await spoken(one, sim)) == whole
            sim.inject("wrong_rate", route="speech")
            assert b"".join(await spoken(one, sim)) == np.frombuffer(whole, "<i2").repeat(2).tobytes()
            sim.inject("garbage", route="speech")
            noise = b"".join(await spoken(one, sim))
            assert len(noise) == len(whole) and len(set(noise)) == 256
            sim.inject("rate_limit", route="speech")
            with pytest.raises(openai.RateLimitError):
                await spoken(one, sim)
            assert sim.faults.injected == dict.fromkeys(sim.faults.picked, 1)
            assert len(sim.faults.injected) == 11

    run(main)


def test_faults_of_an_answer_in_one_piece() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, recogniser=heard) as sim, client(sim, read_s=0.2) as one:

            async def told() -> Any:
                create = one.audio.transcriptions.with_raw_response.create
                return (await create(model="gpt-4o-transcribe", file=wav())).content

            whole = await told()
            for kind in ("silence", "stream_reset", "stream_cut"):
                for after in (0, 10):
                    sim.inject(kind, route="transcription", after_tokens=after)
                    with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
                        await told()
                    seen = sim.log.of("transcription")[-1]
                    assert (seen.sent_bytes, seen.status) == ((10, 200) if after else (0, 0)), kind
            for kind in ("garbage", "bad_utf8"):
                sim.inject(kind, route="transcription")
                with pytest.raises(ValueError):
                    json.loads(await told())
            for after in (0, 10):
                sim.inject("stall", route="transcription", after_tokens=after, delay_ms=60)
                begun = time.monotonic()
                assert await told() == whole and time.monotonic() - begun >= 0.06
            sim.inject("endless", route="transcription", endless_bytes=1 << 20)
            assert 1 << 20 <= len(await told()) < 1.2 * (1 << 20)
            assert sim.faults.injected == sim.faults.picked and await told() == whole

    run(main)


def test_a_transcription_is_told_while_it_is_written() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, recogniser=heard) as sim, client(sim, read_s=0.2) as one:

            async def told() -> list[Any]:
                create = one.audio.transcriptions.create
                return [event async for event in await create(model="gpt-4o-transcribe", file=wav(), stream=True)]

            *deltas, done = await told()
            assert "".join(event.delta for event in deltas) == done.text == "16000 samples at 16000, any, the tone"
            assert {event.type for event in deltas} == {"transcript.text.delta"}
            for kind in ("silence", "stream_reset", "stream_cut", "garbage", "error_event"):
                sim.inject(kind, route="transcription", after_tokens=3)
                with pytest.raises((openai.OpenAIError, httpx2.TransportError, ValueError)):
                    await told()
                assert sim.log.of("transcription")[-1].tokens == (7 if kind == "garbage" else 3), kind
            sim.inject("early_end", route="transcription", after_tokens=3)
            assert [event.delta for event in await told()] == ["16000", " samples", " at"]
            assert sim.faults.injected == sim.faults.picked

    run(main)


@ALL
def test_an_utterance_is_recognised_by_what_arrived(flavour: Flavour) -> None:
    async def main() -> None:
        async with OpenAiSim(flavour, recogniser=heard) as sim, client(sim) as one:
            create = one.audio.transcriptions.create
            model = TRANSCRIPTION_MODEL[flavour]
            got = await create(model=model, file=wav(), language="en", prompt="Harbour Dental", temperature=0)
            assert got.text == "16000 samples at 16000, en, the tone"
            [seen] = sim.log.of("transcription")
            assert seen.body["prompt"] == "Harbour Dental"
            assert seen.audio == wav()[1]
            got = await create(model=model, file=wav(TONE[:8000], 8000), response_format="verbose_json")
            assert got.text == "4000 samples at 8000, any, something else"
            segment = got.segments[0]
            segment = segment if isinstance(segment, dict) else segment.model_dump()
            assert (segment["no_speech_prob"], segment["end"]) == (0.01, 0.5)
            text = await create(model=model, file=wav(), response_format="text")
            assert str(text).strip() == "16000 samples at 16000, any, the tone"

    run(main)


def test_a_book_of_clips_is_heard_and_what_did_not_arrive_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        said = "I would like to make an appointment."
        s16 = pico_s16(said, rate_percent=80)
        Clipbook([BookClip.of("a", said, s16, rate_hz=PICO_RATE_HZ, language="en-GB")]).save(tmp_path / "book.json")
        recogniser = hears(Clipbook.load(tmp_path / "book.json"))
        async with OpenAiSim(Flavour.GROQ, recogniser=recogniser) as sim, client(sim) as one:

            async def got(s16: bytes, language: str = "en") -> str:
                create = one.audio.transcriptions.create
                return str((await create(model="whisper-large-v3", file=wav(s16), language=language)).text)

            assert await got(s16) == said
            assert await got(s16, "es") == ""
            half = len(s16) // 4 * 2
            assert said.startswith(some := await got(s16[:half] + bytes(len(s16) - half)))
            assert 0 < len(some) < len(said)
            assert await got(bytes(len(s16))) == ""

    run(main)


@ALL
def test_an_utterance_that_the_vendor_would_not_take(flavour: Flavour) -> None:
    async def main() -> None:
        vendor: Any = groq if flavour is Flavour.GROQ else openai
        async with OpenAiSim(flavour, recogniser=heard) as sim, client(sim) as one:
            create = one.audio.transcriptions.create
            model = TRANSCRIPTION_MODEL[flavour]
            for file, word in (
                (wav(TONE[:1600]), "too short"),
                (("a.wav", b"no sound"), "Invalid file format"),
                (("a.wav", wav()[1][:-100]), "corrupted"),
                (wav(width=1), "16-bit"),
            ):
                with pytest.raises(vendor.BadRequestError, match=word):
                    await create(model=model, file=file)
            for change, word in (
                ({"language": "en-US"}, "ISO-639-1"),
                ({"temperature": 2}, "temperature"),
                ({"extra_body": {"lang": "en"}}, "lang"),
            ):
                with pytest.raises(vendor.BadRequestError, match=word):
                    await create(model=model, file=wav(), **change)
            with pytest.raises(vendor.NotFoundError):
                await create(model="no-such", file=wav())
            bearer = {"authorization": "Bearer sim-key"}
            async with httpx.AsyncClient(headers=bearer) as bare:
                url = f"{sim.url}{sim.log.of('transcription')[-1].path}"
                query = sim.log.of("transcription")[-1].query
                for kind, body in (
                    ("application/json", b"{}"),
                    ("multipart/form-data", b"x"),
                    ("multipart/form-data; boundary=a", b"--a\r\nno header\r\n"),
                    ("multipart/form-data; boundary=a", b"--a\r\n\r\nx\r\n--a--\r\n"),
                ):
                    answer = await bare.post(url, content=body, params=query, headers={"content-type": kind})
                    assert answer.status_code in (400, 404), (kind, body, answer.text)
            for kind in ("rate_limit", "overloaded", "close", "json_200"):
                sim.inject(kind, route="transcription")
            for error in (vendor.RateLimitError, vendor.InternalServerError, vendor.APIConnectionError):
                with pytest.raises(error):
                    await create(model=model, file=wav())
            assert not getattr(await create(model=model, file=wav()), "text", None)

    run(main)


@ALL
def test_speech_that_the_vendor_would_not_render(flavour: Flavour) -> None:
    async def main() -> None:
        vendor: Any = groq if flavour is Flavour.GROQ else openai
        async with OpenAiSim(flavour, voice=short_voice) as sim, client(sim) as one:
            for change in (
                {"input": ""}, {"input": "x" * 5000}, {"voice": "nobody"}, {"response_format": "mp3"}, {"speed": 9},
                {"extra_body": {"pitch": 1}},
            ):  # fmt: skip
                with pytest.raises(vendor.BadRequestError):
                    await spoken(one, sim, **change)

    run(main)
