"""Synthesis by the real SDK at the simulated service: what is asked for, what is heard, and every way to fail."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.sim.azure import AzureSim, Fault
from providers.azure import sdk_native
from providers.azure.ssml import MAX_SSML_BYTES, WordFinder, build_ssml
from providers.azure.tts import AzureSynthesizer
from providers.azure.voice import DEFAULT_VOICES, default_voice
from providers.base import (
    PCMA_8K,
    PCMU_8K,
    S16_16K,
    AudioChunk,
    AudioFormat,
    SpeechEvent,
    SpeechRequest,
    WordMark,
)
from providers.deadline import with_deadlines
from providers.errors import (
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.health import ProviderHealth
from tests.bench.azure_client import serving
from tests.providers.azure_service import let_go, run, synthesizer
from tests.providers.conformance import FRAME_S
from tests.support.failing import Noted

SPEAK = SpeechRequest(text="We are open from nine to six. Would you like to book?", audio_format=PCMU_8K)
SHORT = SpeechRequest(text="Good day.", audio_format=PCMU_8K)


@pytest.fixture(scope="module")
def served() -> Iterator[AzureSim]:
    with serving(AzureSim()) as one:
        yield one


@pytest.fixture
def sim(served: AzureSim) -> Iterator[AzureSim]:
    yield served
    served.faults.clear()
    let_go()


def sound(events: list[SpeechEvent]) -> bytes:
    return b"".join(one.audio for one in events if isinstance(one, AudioChunk))


async def speak(adapter: AzureSynthesizer, request: SpeechRequest) -> list[SpeechEvent]:
    return [one async for one in adapter.stream(request)]


async def first_ms(adapter: AzureSynthesizer, request: SpeechRequest) -> float:
    """To the first sound; then the stream is closed."""
    began = time.perf_counter()
    async with aclosing(adapter.stream(request)) as events:
        async for one in events:
            if isinstance(one, AudioChunk):
                return (time.perf_counter() - began) * 1000
    raise AssertionError("no sound")


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────────────────


def ssml(request: SpeechRequest, **more: Any) -> ElementTree.Element:
    return ElementTree.fromstring(build_ssml(request, provider="azure", **more))


def test_the_document_holds_each_setting_and_no_other() -> None:
    plain = build_ssml(SPEAK, provider="azure")
    assert ElementTree.fromstring(plain) is not None
    for absent in ("prosody", "express-as", "lexicon", "effect"):
        assert absent not in plain
    assert plain.count("mstts:silence") == 2
    full = dataclasses.replace(
        SPEAK, voice="en-US-JennyNeural", style="chat", style_degree=0.5, rate_percent=-10, pitch_percent=5,
        volume_percent=70, lexicon_url="https://example.com/a.xml?b=1&c=2", language="en-US",
    )  # fmt: skip
    text = build_ssml(full, provider="azure", telephone_effect=True)
    for present in ('styledegree="0.5"', 'rate="-10%"', 'pitch="+5%"', 'volume="70"', 'effect="eq_telecomhp8k"',
                    'uri="https://example.com/a.xml?b=1&amp;c=2"', 'name="en-US-JennyNeural"'):  # fmt: skip
        assert present in text
    wide = dataclasses.replace(full, audio_format=S16_16K)
    assert "effect" not in build_ssml(wide, provider="azure", telephone_effect=True), "8 kHz only"


@pytest.mark.parametrize(
    "text", ["a < b & c > d", "</voice><voice name='x'>", '"quoted" \'text\'', "]]>", "a\x00b\x1fc\ud800"]
)
def test_text_is_text(text: str) -> None:
    root = ssml(dataclasses.replace(SPEAK, text=text))
    assert len(root) == 1 and len(root[0]) == 2, "the two silences and nothing else"
    spoken = "".join(root.itertext())
    assert len(spoken) == len(text)
    assert all(said == wanted or said == " " for said, wanted in zip(spoken, text, strict=True))


def test_names_are_escaped_and_lexicons_are_urls() -> None:
    root = ssml(dataclasses.replace(SPEAK, voice='x"><audio src="', style='a"b', language='en"US'))
    assert len(root) == 1
    with pytest.raises(ProviderRejected):
        ssml(dataclasses.replace(SPEAK, lexicon_url="file:///etc/passwd"))


def test_every_default_voice_belongs_to_its_language() -> None:
    for locale, voice in DEFAULT_VOICES.items():
        assert voice.startswith(locale) and default_voice(locale) == voice
    assert default_voice("de") == default_voice("DE-de") == "de-DE-KatjaNeural"
    assert default_voice("es-BO") == "es-ES-ElviraNeural"
    assert default_voice("xx") == ""


def test_words_are_found_in_the_clause() -> None:
    finder = WordFinder("It is it, is it? Yes & no.")
    assert [finder.find(word) for word in ("It", "is", "it", "is", "IT", "Yes", "&", "no")] == [
        (0, 2), (3, 5), (6, 8), (10, 12), (13, 15), (17, 20), (21, 22), (23, 25),
    ]  # fmt: skip
    assert finder.find("no") is None and finder.find("") is None and finder.missed == 2


def test_the_service_understands_what_is_sent(sim: AzureSim) -> None:
    request = SpeechRequest(
        text="Fish & chips, <b>now</b>?", audio_format=PCMU_8K, voice="en-US-JennyNeural", style="chat",
        style_degree=1.5, rate_percent=10, pitch_percent=-5, volume_percent=50,
        lexicon_url="https://example.com/lexicon.xml",
    )  # fmt: skip
    run_speak(sim, request)
    turn = sim.tts_turns[-1]
    assert turn.text == request.text and not turn.refusal and turn.output_format == "raw-8khz-8bit-mono-mulaw"
    [said] = [one for one in turn.said if hasattr(one, "text")]
    assert (said.voice, said.style, said.degree) == ("en-US-JennyNeural", "chat", 1.5)
    assert said.volume == 0.5
    assert turn.lexicons == ("https://example.com/lexicon.xml",)
    run_speak(sim, SHORT)
    assert sim.tts_turns[-1].voices == (default_voice("en-US"),)


def run_speak(sim: AzureSim, request: SpeechRequest, **more: Any) -> list[SpeechEvent]:
    events: list[SpeechEvent] = []

    async def main() -> None:
        adapter = synthesizer(sim, **more)
        events.extend(await speak(adapter, request))
        await adapter.aclose()

    run(main())
    return events


@pytest.mark.parametrize(
    ("wanted", "name", "got"),
    [
        (PCMU_8K, "raw-8khz-8bit-mono-mulaw", PCMU_8K),
        (PCMA_8K, "raw-8khz-8bit-mono-alaw", PCMA_8K),
        (AudioFormat("s16", 8000), "raw-8khz-16bit-mono-pcm", AudioFormat("s16", 8000)),
        (S16_16K, "raw-16khz-16bit-mono-pcm", S16_16K),
        (AudioFormat("s16", 24_000), "raw-24khz-16bit-mono-pcm", AudioFormat("s16", 24_000)),
        (AudioFormat("s16", 11_025), "raw-16khz-16bit-mono-pcm", S16_16K),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_formats(sim: AzureSim, wanted: AudioFormat, name: str, got: AudioFormat) -> None:
    events = run_speak(sim, dataclasses.replace(SHORT, audio_format=wanted))
    turn = sim.tts_turns[-1]
    assert turn.output_format == name
    assert {one.audio_format for one in events if isinstance(one, AudioChunk)} == {got}
    assert sound(events) == turn.audio, "untouched"


def test_words_come_with_their_places(sim: AzureSim) -> None:
    text = "Hello, hello & goodbye: it's nine o'clock."
    events = run_speak(sim, dataclasses.replace(SHORT, text=text))
    marks = [one for one in events if isinstance(one, WordMark)]
    # They come on another thread than the sound and nobody waits for the last.
    assert [text[mark.start : mark.end] for mark in marks][:4] == ["Hello", "hello", "&", "goodbye"]
    assert [mark.offset_ms for mark in marks] == sorted(mark.offset_ms for mark in marks)
    assert marks[-1].offset_ms < len(sound(events)) / 8


def test_text_streaming(sim: AzureSim) -> None:
    request = dataclasses.replace(SPEAK, voice="en-US-AvaNeural", rate_percent=10)
    events = run_speak(sim, request, text_stream=True)
    turn = sim.tts_turns[-1]
    assert turn.connection.path == "/cognitiveservices/websocket/v2" and not turn.ssml
    assert "".join(turn.pieces) == request.text and turn.voices == ("en-US-AvaNeural",)
    assert turn.context["synthesis"]["input"]["rate"] == "+10%"
    assert sound(events) == turn.audio
    # What the streamed input cannot say goes as SSML.
    run_speak(sim, dataclasses.replace(request, style="chat", style_degree=2), text_stream=True)
    assert sim.tts_turns[-1].ssml and 'styledegree="2"' in sim.tts_turns[-1].ssml


def test_nothing_speakable_asks_for_nothing(sim: AzureSim) -> None:
    turns = sim.counts["tts_turns"]
    assert run_speak(sim, dataclasses.replace(SHORT, text=" … !")) == []
    assert sim.counts["tts_turns"] == turns


def test_too_much_is_refused_before_it_is_sent(sim: AzureSim) -> None:
    connections = sim.counts["tts_connections"]
    with pytest.raises(ProviderRejected) as raised:
        run_speak(sim, dataclasses.replace(SHORT, text="é" * (MAX_SSML_BYTES // 2)))
    assert raised.value.status == 400 and sim.counts["tts_connections"] == connections


# ── warm lines ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_speaks_many_clauses(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = synthesizer(sim)
        before = sim.counts["tts_connections"]
        for _ in range(5):
            assert sound(await speak(adapter, SHORT)) == sim.tts_turns[-1].audio
        assert sim.counts["tts_connections"] == before + 1 and adapter.pool.built == 1
        await adapter.aclose()

    run(main())


def test_each_call_has_a_line_and_a_barge_in_gets_another(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = synthesizer(sim, warm_limit=3)
        before = sim.counts["tts_connections"]
        for _ in range(5):
            adapter.attach_nowait()
        await sim.until(lambda: adapter.pool.ready == adapter.pool.idle == 3)
        assert sim.counts["tts_connections"] == before + 3
        await first_ms(adapter, SPEAK)
        await sim.until(lambda: adapter.pool.ready == 3)
        assert sim.counts["tts_connections"] == before + 4
        assert adapter.pool.cold == 0 and adapter.pool.warm == 1
        for _ in range(5):
            adapter.detach_nowait()
        assert adapter.pool.idle <= 1
        await adapter.aclose()
        assert adapter.pool.idle == 0

    run(main())


def test_lines_for_calls_that_are_over_are_not_kept(sim: AzureSim) -> None:
    """Callers who hang up while their lines are made; they were kept for four minutes, three threads each."""

    async def main() -> None:
        adapter = synthesizer(sim)
        for _ in range(6):
            adapter.attach_nowait()
        for _ in range(6):
            adapter.detach_nowait()
        await sim.until(lambda: adapter.pool.built == 6)
        await sim.until(lambda: not adapter.pool._tasks)
        assert adapter.pool.idle == 1
        await sim.until(lambda: sdk_native.alive() == 1)
        await adapter.aclose()

    run(main())


def test_the_kinds_that_are_kept_follow_the_requests(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = synthesizer(sim)
        for _ in range(8):
            adapter.attach_nowait()
        await sim.until(lambda: adapter.pool.ready == 8)
        wide = dataclasses.replace(SHORT, audio_format=S16_16K)
        await speak(adapter, wide)
        assert adapter.pool.cold == 1
        await sim.until(lambda: adapter.pool.ready >= 8)
        assert adapter.pool.idle <= 10, "one call of another kind does not double the lines"
        await speak(adapter, wide)
        await speak(adapter, SHORT)
        assert adapter.pool.cold == 1
        await adapter.aclose()

    run(main())


def test_an_idle_line_is_replaced_before_the_service_drops_it(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = synthesizer(sim, warm_s=1)
        before = sim.counts["tts_connections"]
        adapter.attach_nowait()
        await sim.until(lambda: adapter.pool.built == 2 and adapter.pool.ready == 1)
        assert sim.counts["tts_connections"] == before + 2
        await adapter.aclose()

    run(main())


def test_a_service_that_is_down_is_not_asked_in_a_loop(sim: AzureSim) -> None:
    async def main() -> None:
        sim.faults.add(Fault(kind="http", on="tts", status=503, times=None))
        adapter = synthesizer(sim)
        adapter.attach_nowait()
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await speak(adapter, SHORT)
        assert sim.faults.injected["http_503"] < 20
        sim.faults.clear()
        assert sound(await speak(adapter, SHORT))
        await adapter.aclose()

    run(main())


def test_closing_takes_no_frame_and_leaves_nothing_to_hear(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = synthesizer(sim)
        for _ in range(5):
            stream = adapter.stream(SPEAK)
            await anext(stream)
            began = time.perf_counter()
            await stream.aclose()
            assert time.perf_counter() - began < FRAME_S
            # The line that was stopped is not the one that speaks next.
            assert sound(await speak(adapter, SHORT)) == sim.tts_turns[-1].audio
        await adapter.aclose()
        with pytest.raises(ProviderUnavailable):
            await speak(adapter, SHORT)

    run(main())


def test_calls_do_not_hear_each_other(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = synthesizer(sim)
        texts = [f"Number {number} is next." for number in ("one", "two", "three", "four", "five", "six")]
        turns = sim.counts["tts_turns"]
        spoken = await asyncio.gather(*(speak(adapter, dataclasses.replace(SHORT, text=text)) for text in texts))
        rendered = {turn.text: turn.audio for turn in list(sim.tts_turns) if turn.no > turns}
        assert [sound(events) for events in spoken] == [rendered[text] for text in texts]
        await adapter.aclose()

    run(main())


# ── when it fails ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fmt", [PCMU_8K, S16_16K])
@pytest.mark.parametrize("kind", ["flat", "wrong_rate", "riff_head", "garbage_binary", "short", "empty"])
def test_no_bad_sound_is_heard_and_the_next_voice_speaks(sim: AzureSim, kind: str, fmt: AudioFormat) -> None:
    async def main() -> None:
        adapter, noted = synthesizer(sim), Noted()
        request = dataclasses.replace(SPEAK, audio_format=fmt)
        good = sound(await speak(adapter, request))
        injected = sim.faults.injected[kind]
        sim.faults.add(Fault(kind=kind, on="tts"))
        candidates = [SpeechCandidate(adapter, ProviderHealth("tts", name, noted)) for name in ("azure", "next")]
        heard = [one async for one in FallbackSynthesizer(candidates).stream(request)]
        assert sim.faults.injected[kind] == injected + 1
        failures = [one for one in noted.lines if one.startswith("failure")]
        if kind == "garbage_binary":
            # The SDK passes such a message over: there is no bad sound, and the clause is whole.
            assert sound(heard) == good and not failures
        elif kind == "short":
            assert failures == ["failure azure protocol"] and len(sound(heard)) > len(good) // 2
        else:
            assert sound(heard) == good and failures == ["failure azure protocol"]
        await adapter.aclose()

    run(main())


def test_an_end_that_never_comes(sim: AzureSim) -> None:
    """All of the sound, and the clause is not over: the deadline ends it, and the line is not used again."""

    async def main() -> None:
        sim.faults.add(Fault(kind="no_turn_end", on="tts"))
        adapter = synthesizer(sim)
        stream = with_deadlines(adapter.stream(SPEAK), first_ms=2000, idle_ms=200, total_ms=5000, provider="azure")
        given: list[SpeechEvent] = []
        with pytest.raises(ProviderTimeout) as late:
            async for one in stream:
                given.append(one)
        assert late.value.phase == "idle" and sound(given) == sim.tts_turns[-1].audio
        assert sound(await speak(adapter, SHORT)) == sim.tts_turns[-1].audio
        await adapter.aclose()

    run(main())
