"""The conformance suite over all offline providers."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from pathlib import Path

import pytest
import yaml

from providers.base import PCMU_8K, ChatRequest, Message, SpeechRequest, Synthesizer, Transcriber, TranscriberConfig
from providers.offline.dialogue import DialogueModel
from providers.offline.moonshine import MoonshineTranscriber
from providers.offline.pico import PicoSynthesizer
from providers.offline.scripted import ScriptedModel, ScriptedSynthesizer, ScriptedTranscriber
from tests.providers import conformance as suite
from tests.providers.conformance import ModelSubject, SynthesizerSubject, TranscriberSubject
from tests.providers.sound import reading

SCRIPT = yaml.safe_load((Path(__file__).parents[2] / "agents" / "clinic_en.yaml").read_text())["script"]
HEARD = (Message("system", "x"), Message("user", "when do you open?"))
ASK = ChatRequest(messages=HEARD, script=SCRIPT, caller="+15552000012")
SPEAK = SpeechRequest(text="We are open from nine to six. Would you like to book an appointment with us today?")


async def close(adapter: Synthesizer | Transcriber) -> None:
    await adapter.aclose()


MODELS = {
    "dialogue": ModelSubject(
        make=DialogueModel,
        request=ASK,
        slow=partial(DialogueModel, word_delay_ms=200),
        bad=dataclasses.replace(ASK, script={"intents": {"a": {"answer": "no examples"}}}),
    ),
    "scripted": ModelSubject(make=ScriptedModel, request=ASK, slow=partial(ScriptedModel, first_token_ms=200)),
}
VOICES = {
    "pico": SynthesizerSubject(
        make=PicoSynthesizer,
        request=SPEAK,
        # Pico needs some 30 ms for the first block of a long text: enough to miss a deadline of ten.
        slow=PicoSynthesizer,
        bad=SpeechRequest(text="hola", language="ja-JP"),
        long=SpeechRequest(text=SPEAK.text * 20),
        break_it=close,
    ),
    "scripted": SynthesizerSubject(
        make=ScriptedSynthesizer,
        request=SpeechRequest(text="code 12 3 4210, this is the scripted reply"),
        slow=partial(ScriptedSynthesizer, first_byte_ms=200),
        bad=SpeechRequest(text="x" * 30_000),
    ),
}
EARS = {
    "moonshine": lambda: TranscriberSubject(
        make=MoonshineTranscriber,
        config=TranscriberConfig(language="en-US", caller="+15550001111"),
        utterance=reading("beckett"),
        bad=TranscriberConfig(language="es-ES"),
        break_it=close,
    ),
    "scripted": lambda: TranscriberSubject(
        make=ScriptedTranscriber,
        config=TranscriberConfig(caller="+15552000012", audio_format=PCMU_8K),
        utterance=b"\xff" * 8000,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    subject = MODELS[name]
    asyncio.run(suite.model_streams(subject))
    asyncio.run(suite.cancels_within_a_frame(subject.make(), subject.request))
    if subject.slow is not None:
        asyncio.run(suite.misses_deadlines(subject.slow(), subject.request))
    if subject.bad is not None:
        asyncio.run(suite.refuses(subject.make(), subject.bad, subject.request))


@pytest.mark.parametrize("name", VOICES)
def test_synthesizer(name: str) -> None:
    subject = VOICES[name]
    asyncio.run(suite.synthesizer_streams(subject))
    asyncio.run(suite.cancels_within_a_frame(subject.make(), subject.long or subject.request))
    if subject.slow is not None:
        asyncio.run(suite.misses_deadlines(subject.slow(), subject.long or subject.request))
    if subject.bad is not None:
        asyncio.run(suite.refuses(subject.make(), subject.bad, subject.request))
    if subject.break_it is not None and subject.long is not None:
        asyncio.run(suite.fails_in_the_middle(subject.make(), subject.long, subject.break_it))


@pytest.mark.slow
@pytest.mark.parametrize("name", EARS)
def test_transcriber(name: str) -> None:
    subject = EARS[name]()
    asyncio.run(suite.transcriber_streams(subject))
    asyncio.run(suite.transcriber_resumes(subject))
    asyncio.run(suite.transcriber_cancels(subject))
    asyncio.run(suite.transcriber_misses_deadline(subject))
    if subject.bad is not None:
        asyncio.run(suite.transcriber_refuses(subject, subject.bad))
    if subject.break_it is not None:
        asyncio.run(suite.transcriber_fails(subject, subject.break_it))
