"""One process with N calls' worth of one SDK, used as a call uses it; prints `ready`, works for S seconds, prints JSON.

    {"answers": …, "added_ms": {"p50", "p95"}, "tick_late_ms": {"p99", "max"}}

A tick of 20 ms runs beside: how late it is, is what the calls of such a process would feel.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.load.figure import percentile
from bench.sim.clipbook import Clipbook
from bench.sim.sound import FRAME_SAMPLES, SILENCE, to_pcmu

SENTENCE = "Would that be possible?"
TICK_S = 0.02
POLLING = "SPEECH-USPPollingInterval"
"""The SDK's own name for how often it looks at its socket, ms."""
PAUSE_FRAMES = 50  # between two utterances
MESSAGES = [{"role": "user", "content": "turn 1 of +15550000001"}]


class Work:
    """What the calls found, from whatever thread."""

    def __init__(self, seconds: float) -> None:
        self.until_s = time.perf_counter() + seconds
        self.added_ms: list[float] = []

    @property
    def is_over(self) -> bool:
        return time.perf_counter() >= self.until_s


Line = Callable[[int, Work], Awaitable[None]]


def _azure_config() -> Any:
    import azure.cognitiveservices.speech as speech

    config = speech.SpeechConfig(subscription=os.environ["AZURE_SPEECH_KEY"], host=os.environ["AZURE_SPEECH_ENDPOINT"])
    if polling_ms := os.environ.get("SDK_POLLING_MS"):
        config.set_property_by_name(POLLING, polling_ms)
    return config


async def azure_stt(calls: int, work: Work) -> None:
    """N recognizers, 20 ms of mu-law each tick; from our commit to the final."""
    import azure.cognitiveservices.speech as speech

    pcmu = to_pcmu(Clipbook.load(Path(os.environ["SDK_BOOK"])).clips[0].s16)
    pcmu += b"\xff" * (-len(pcmu) % FRAME_SAMPLES)
    frames = [pcmu[at : at + FRAME_SAMPLES] for at in range(0, len(pcmu), FRAME_SAMPLES)]
    config = _azure_config()
    config.set_service_property("setfeature", "forcecommit", speech.ServicePropertyChannel.UriQueryParameter)
    made, committed = [], [0.0] * calls

    def finals(number: int) -> Callable[[Any], None]:
        def on_final(event: Any) -> None:
            if event.result.commit_token and event.result.text and committed[number]:
                work.added_ms.append((time.perf_counter() - committed[number]) * 1000)

        return on_final

    for number in range(calls):
        form = speech.audio.AudioStreamFormat(8000, 8, 1, wave_stream_format=speech.AudioStreamWaveFormat.MULAW)
        stream = speech.audio.PushAudioInputStream(form)
        recognizer = speech.SpeechRecognizer(config, speech.audio.AudioConfig(stream=stream), language="en-US")
        recognizer.recognized.connect(finals(number))
        await asyncio.to_thread(recognizer.start_continuous_recognition_async().get)
        made.append((recognizer, stream))
    period = len(frames) + PAUSE_FRAMES
    announce(work)
    start_s, tick = time.perf_counter(), 0
    while not work.is_over:
        for number, (_, stream) in enumerate(made):
            at = (tick + number * period // calls) % period
            stream.write(frames[at] if at < len(frames) else SILENCE)
            if at == len(frames):
                committed[number] = time.perf_counter()
                stream.commit()
        tick += 1
        await asyncio.sleep(max(0.0, start_s + tick * TICK_S - time.perf_counter()))
    for recognizer, stream in made:
        await asyncio.to_thread(recognizer.stop_continuous_recognition_async().get)
        recognizer.recognized.disconnect_all()
        stream.close()


async def azure_tts(calls: int, work: Work) -> None:
    """N connected synthesizers, a clause each second; from the request to the first audio."""
    import azure.cognitiveservices.speech as speech

    config = _azure_config()
    config.set_speech_synthesis_output_format(speech.SpeechSynthesisOutputFormat.Raw8Khz8BitMonoMULaw)
    config.speech_synthesis_voice_name = "en-US-AvaMultilingualNeural"
    made, asked = [], [0.0] * calls

    def audio(number: int) -> Callable[[Any], None]:
        def on_audio(event: Any) -> None:
            if asked[number]:
                work.added_ms.append((time.perf_counter() - asked[number]) * 1000)
                asked[number] = 0.0

        return on_audio

    for number in range(calls):
        one = speech.SpeechSynthesizer(config, audio_config=None)
        one.synthesizing.connect(audio(number))
        made.append(one)
        await asyncio.to_thread(one.speak_text_async("Hello.").get)
    announce(work)

    async def speak(number: int) -> None:
        await asyncio.sleep(number / calls)
        while not work.is_over:
            asked[number] = time.perf_counter()
            await asyncio.to_thread(made[number].speak_text_async(SENTENCE).get)
            await asyncio.sleep(1.0)

    await asyncio.gather(*(speak(number) for number in range(calls)))
    for one in made:
        one.synthesizing.disconnect_all()


async def _chat(calls: int, work: Work, ask: Callable[[], Awaitable[None]]) -> None:
    """Each call asks once a second; `ask` returns at the first word."""
    await asyncio.gather(*(ask() for _ in range(calls)))
    work.added_ms.clear()
    announce(work)

    async def one(number: int) -> None:
        await asyncio.sleep(number / calls)
        while not work.is_over:
            began_s = time.perf_counter()
            await ask()
            await asyncio.sleep(max(0.0, began_s + 1.0 - time.perf_counter()))

    await asyncio.gather(*(one(number) for number in range(calls)))


async def _first_word(stream: Any, began_s: float, work: Work) -> None:
    seen = False
    async for chunk in stream:
        if not seen and chunk.choices and chunk.choices[0].delta.content:
            work.added_ms.append((time.perf_counter() - began_s) * 1000)
            seen = True


async def openai_chat(calls: int, work: Work) -> None:
    import openai

    client = openai.AsyncOpenAI(
        api_key=os.environ["OPENAI_API_KEY"], base_url=os.environ["OPENAI_BASE_URL"], max_retries=0
    )

    async def ask() -> None:
        began_s = time.perf_counter()
        stream = await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
        await _first_word(stream, began_s, work)

    await _chat(calls, work, ask)
    await client.close()


async def groq_chat(calls: int, work: Work) -> None:
    import groq

    client = groq.AsyncGroq(api_key=os.environ["GROQ_API_KEY"], base_url=os.environ["GROQ_BASE_URL"], max_retries=0)

    async def ask() -> None:
        began_s = time.perf_counter()
        stream = await client.chat.completions.create(model="openai/gpt-oss-20b", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
        await _first_word(stream, began_s, work)

    await _chat(calls, work, ask)
    await client.close()


async def bare_chat(calls: int, work: Work) -> None:
    """The floor: the same answers by a plain HTTP client that only looks for the first content."""
    import aiohttp

    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    body = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask() -> None:
            began_s, seen = time.perf_counter(), False
            async with http.post(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", json=body) as answer:
                async for line in answer.content:
                    if not seen and line.startswith(b"data: {"):
                        choices = json.loads(line[6:])["choices"]
                        if choices and choices[0]["delta"].get("content"):
                            work.added_ms.append((time.perf_counter() - began_s) * 1000)
                            seen = True

        await _chat(calls, work, ask)


LINES: dict[str, Line] = {
    "azure-stt": azure_stt, "azure-tts": azure_tts, "openai-chat": openai_chat, "groq-chat": groq_chat,
    "bare-chat": bare_chat,
}  # fmt: skip


def announce(work: Work) -> None:
    """Everything is connected: the window begins now."""
    print("ready", flush=True)
    work.until_s = time.perf_counter() + float(sys.argv[3])


async def watch(late_ms: list[float]) -> None:
    """A tick as a call's pacer has it."""
    due_s = time.perf_counter()
    while True:
        due_s += TICK_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        late_ms.append(max(0.0, (time.perf_counter() - due_s) * 1000))
        due_s = max(due_s, time.perf_counter() - TICK_S)


async def run(line: str, calls: int, seconds: float) -> None:
    work, late_ms = Work(seconds), []
    watching = asyncio.create_task(watch(late_ms))
    await LINES[line](calls, work)
    watching.cancel()
    added = work.added_ms
    found = {
        "answers": len(added),
        "added_ms": {"p50": percentile(added, 0.5) or 0.0, "p95": percentile(added, 0.95) or 0.0},
        "tick_late_ms": {"p99": percentile(late_ms, 0.99) or 0.0, "max": max(late_ms, default=0.0)},
    }
    print(json.dumps(found), flush=True)
    sys.stdin.read()  # whoever measures may be late


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
