"""Each adapter of the table beside the service that it talks to: how it is made, asked, and made to suffer.

A rig knows no outcome; table.py has those and cells.py looks at them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from bench.sim.azure import AzureSim, Fault
from bench.sim.openai import FixtureBrain, Flavour, OpenAiSim
from providers.base import (
    PCMU_8K,
    AudioFormat,
    ChatRequest,
    Message,
    SpeechRequest,
    TranscriberConfig,
)
from providers.groq.speech import ORPHEUS, GroqSynthesizer
from providers.groq.transcription import WHISPER, GroqTranscriber
from providers.offline.dialogue import DialogueModel
from providers.offline.moonshine import MoonshineTranscriber
from providers.offline.pico import PicoSynthesizer
from providers.offline.scripted import ScriptedModel, ScriptedSynthesizer, ScriptedTranscriber
from providers.openai.options import GroqOptions, LinkOptions, OpenAiOptions, TranscriptionOptions
from providers.openai.speech import OpenAISynthesizer
from providers.openai.transcription import OpenAITranscriber
from tests.providers.azure_service import CLIPS, LISTEN, SAID, let_go, silence, synthesizer, transcriber, utterance
from tests.providers.openai_service import FLAVOURS, KEY, ask, model
from tests.providers.sound import reading
from tests.providers.table import Case

Kind = Literal["ear", "model", "voice"]
TEXT = "Wir öffnen um neun – ¡perfecto! 😀 Das Übliche kostet 90 €."
LONG = " ".join(f"word{n}" for n in range(200))
SPOKEN = "We are open from nine to six, and on Saturdays until noon."
TONE = (np.sin(np.arange(24_000) * 0.3) * 6000).astype(np.int16).tobytes()  # 1.5 s at 16 kHz
SCRIPT = yaml.safe_load((Path(__file__).parents[2] / "agents" / "clinic_en.yaml").read_text())["script"]


@dataclass(kw_only=True)
class Rig:
    """One adapter and its service.

    Args:
        make: with options of the adapter.
        request: that is answered whole; of an ear its config. long: takes long enough to be cut short.
        whole: what the whole answer is: text, or samples; None: what the first whole answer was.
        utterances: what is said to an ear, the first of them again and again. chunk_bytes: how it is fed.
        then: the words of those after the first, by their number.
        strike: let one fault wait for its request. struck: how often it came to pass. asked: requests so far.
        clear: no fault waits any more. forget: nor does anything that was given up still come for one.
        stays_failed: a stream that failed gives nothing any more; else it goes on with the next utterance.
    """

    kind: Kind
    make: Callable[..., Any]
    request: Any
    long: Any = None
    whole: Callable[[], Any] | None = None
    utterances: tuple[bytes, ...] = ()
    then: Mapping[int, str] = field(default_factory=dict)
    resumable: bytes = b""
    chunk_bytes: int = 3200
    strike: Callable[[Case, Mapping[str, Any]], None] | None = None
    struck: Callable[[Case], int] = field(default=lambda case: 0)
    asked: Callable[[], int] = field(default=lambda: 0)
    stays_failed: bool = False
    clear: Callable[[], None] = field(default=lambda: None)
    forget: Callable[[], None] = field(default=lambda: None)

    def changed(self, changes: Mapping[str, Any]) -> Any:
        if changes.get("audio_format") == "s16 24000":
            changes = {"audio_format": AudioFormat("s16", 24_000)}
        return dataclasses.replace(self.request, **changes)


# ── OpenAI's protocol ─────────────────────────────────────────────────────────────────────────────────────────


def hears_words(s16: bytes, rate_hz: int, *_: object) -> str:
    """A word for each 100 ms that is not silent: what is lost on the way is missing in the text."""
    samples = np.frombuffer(s16, np.int16)
    steps = samples[: len(samples) // (rate_hz // 10) * (rate_hz // 10)].reshape(-1, rate_hz // 10)
    return " ".join(f"word{at}" for at, step in enumerate(steps) if np.abs(step).max() > 100)


def says_tone(text: str, voice: str) -> bytes:
    """s16 at 24 kHz, 70 ms a character, its level by the voice's name."""
    count = 24_000 * 70 // 1000 * len(text)
    return (np.sin(np.arange(count) * 0.2) * (1000 + 50 * len(voice))).astype("<i2").tobytes()


def openai_transcriber(
    name: str, sim: OpenAiSim, *, key: str = KEY, link: LinkOptions | None = None, **how: Any
) -> Any:
    link, options = link or LinkOptions(), TranscriptionOptions(**how)
    if name.startswith("groq"):
        return GroqTranscriber(GroqOptions(key=key, base_url=sim.base_url, model=WHISPER, link=link), options)
    account = OpenAiOptions(key=key, base_url=sim.base_url, model="gpt-4o-mini-transcribe", link=link)
    return OpenAITranscriber(account, options)


def openai_synthesizer(
    name: str, sim: OpenAiSim, *, key: str = KEY, link: LinkOptions | None = None, **more: Any
) -> Any:
    link = link or LinkOptions()
    if name.startswith("groq"):
        return GroqSynthesizer(GroqOptions(key=key, base_url=sim.base_url, model=ORPHEUS, link=link))
    options = {"model": "gpt-4o-mini-tts"} | more
    return OpenAISynthesizer(OpenAiOptions(key=key, base_url=sim.base_url, link=link, **options))


def _link(options: Mapping[str, Any]) -> dict[str, Any]:
    """`read_ms` belongs to the link, the rest to the adapter."""
    rest = {name: value for name, value in options.items() if name != "read_ms"}
    link = LinkOptions(connect_ms=500, read_ms=options.get("read_ms", 8000), spares=0)
    return rest | {"link": link}


@asynccontextmanager
async def of_openai(name: str) -> AsyncIterator[Rig]:
    route = {"-stt": "transcription", "-tts": "speech"}.get(name[-4:], "chat")
    flavour = Flavour(name.split("-")[0]) if route != "chat" else FLAVOURS[name]
    brain = FixtureBrain({"hello": TEXT, "long": LONG})
    async with OpenAiSim(flavour, brain=brain, recogniser=hears_words, voice=says_tone) as sim:
        service: dict[str, Any] = {
            "strike": lambda case, how: sim.inject(case.fault, route=route, **{"times": case.times, **how}),
            "struck": lambda case: sim.faults.injected[case.fault],
            "asked": lambda: len(sim.log.of(route)),
            "clear": sim.faults.clear,
            "forget": sim.faults.clear,
        }
        if route == "chat":
            yield Rig(
                kind="model", make=lambda **options: model(name, sim, **_link(options)), request=ask("hello"),
                long=ask("long"), whole=lambda: TEXT, **service,
            )  # fmt: skip
        elif route == "speech":
            voice = "hannah" if flavour is Flavour.GROQ else "alloy"
            request = SpeechRequest(text=SPOKEN)
            yield Rig(
                kind="voice", make=lambda **options: openai_synthesizer(name, sim, **_link(options)), request=request,
                long=request, whole=lambda: says_tone(SPOKEN, voice), **service,
            )  # fmt: skip
        else:
            yield Rig(
                kind="ear", make=lambda **options: openai_transcriber(name, sim, **_link(options)),
                request=TranscriberConfig(language="en-US", caller="+15550001111"), utterances=(TONE,), resumable=TONE,
                whole=lambda: " ".join(f"word{n}" for n in range(15)), **service,
            )  # fmt: skip


# ── Azure Speech ──────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def of_azure(name: str, sim: AzureSim) -> AsyncIterator[Rig]:
    on = name.removeprefix("azure-")

    def strike(case: Case, how: Mapping[str, Any]) -> None:
        sim.faults.add(Fault(kind=case.fault, on=on, times=case.times, **how))

    def struck(case: Case) -> int:
        return sim.faults.injected[Fault(kind=case.fault, **case.how).label]

    def forget() -> None:
        sim.faults.clear()
        let_go()

    service: dict[str, Any] = {"strike": strike, "struck": struck, "clear": sim.faults.clear, "forget": forget}
    # A final that is late on a busy machine is no guess.
    patient = {"final_wait_ms": 3000, "empty_wait_ms": 5000, "connect_ms": 5000}
    if on == "stt":
        yield Rig(
            kind="ear", make=lambda **options: transcriber(sim, **(patient | options)), request=LISTEN,
            utterances=(utterance(2), utterance(1)), resumable=two_clips(),
            chunk_bytes=800, whole=lambda: SAID[2], then={2: SAID[1]}, stays_failed=True, **service,
        )  # fmt: skip
    else:
        request = SpeechRequest(text=SPOKEN, audio_format=PCMU_8K)
        yield Rig(
            kind="voice", make=partial(synthesizer, sim), request=request, long=request,
            whole=lambda: sim.tts_turns[-1].audio, **service,
        )  # fmt: skip


def two_clips() -> bytes:
    """Two utterances one after the other; both halves hold one and end in silence, so that the middle cuts no word."""
    first, second = CLIPS[2], CLIPS[1]
    half = max(first.speech_samples, second.speech_samples) + 4000 - 4000 % 800
    spoken = (clip.pcmu[: clip.speech_samples] for clip in (first, second))
    return b"".join((silence(100) + pcmu + silence(3000))[:half] for pcmu in spoken)


# ── without a service ─────────────────────────────────────────────────────────────────────────────────────────

ASKED = ChatRequest(
    messages=(Message("system", "x"), Message("user", "when do you open?")), script=SCRIPT, caller="+15552000012"
)
CLAUSE = SpeechRequest(text="We are open from nine to six. Would you like to book an appointment with us today?")
CODE = SpeechRequest(text="code 12 3 4210, this is the scripted reply", audio_format=PCMU_8K)


@cache
def beckett() -> bytes:
    return reading("beckett", seconds=5)


def of_nobody(name: str) -> Rig:
    match name:
        case "moonshine":
            config = TranscriberConfig(language="en-US", caller="+15550001111")
            return Rig(kind="ear", make=MoonshineTranscriber, request=config, utterances=(beckett(),),
                       resumable=beckett(), stays_failed=True)  # fmt: skip
        case "dialogue":
            return Rig(kind="model", make=DialogueModel, request=ASKED, long=ASKED)
        case "pico":
            long = dataclasses.replace(CLAUSE, text=CLAUSE.text * 20)
            return Rig(kind="voice", make=PicoSynthesizer, request=CLAUSE, long=long)
        case "scripted-stt":
            config = TranscriberConfig(caller="+15552000012", audio_format=PCMU_8K)
            return Rig(kind="ear", make=ScriptedTranscriber, request=config, utterances=(b"\xff" * 8000,),
                       resumable=b"\xff" * 8000, chunk_bytes=800)  # fmt: skip
        case "scripted-llm":
            return Rig(kind="model", make=ScriptedModel, request=ASKED, long=ASKED)
        case "scripted-tts":
            return Rig(kind="voice", make=ScriptedSynthesizer, request=CODE, long=CODE)
    raise KeyError(name)


@asynccontextmanager
async def rig_of(name: str, azure: Callable[[], AzureSim]) -> AsyncIterator[Rig]:
    """The rig of one column of the table. `azure` gives the simulator of Azure Speech where it is needed."""
    if name in ("azure-stt", "azure-tts"):
        async with of_azure(name, azure()) as rig:
            yield rig
    elif name in FLAVOURS or name.split("-")[0] in ("openai", "groq"):
        async with of_openai(name) as rig:
            yield rig
    else:
        yield of_nobody(name)


def places(case: Case, seed: int) -> list[dict[str, Any]]:
    """The arguments of the case's fault, once for each try."""
    dice = random.Random(seed)
    return [
        {**case.how, **({case.at: dice.randint(*case.between)} if case.at else {})} for _ in range(case.tries)
    ]
