"""Each provider setting of an agent changes what each provider that claims it is sent, there and nowhere else; and no
byte for a provider that does not claim it. Observed at the simulators' sockets, through the real SDKs.

The settings are the schema's own and the claims those of docs/providers.md, which this file is held against: a new
setting fails here until somebody says, for every provider, where its effect is or that there is none.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import pytest

from server.agent.settings import AgentSettings, LlmSettings, SttSettings, TtsSettings
from server.catalogue import NEEDS, Catalogue
from tests.support.services import (
    Asked,
    Services,
    account_of,
    ask,
    differences,
    listen,
    services,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
GROUPS = {"stt": SttSettings, "llm": LlmSettings, "tts": TtsSettings}
# Of the agent as a whole, and sent to providers too.
SHARED = ("language", "prompt")
# Who is asked, rather than what for: `sent` and the test of the fallbacks look at that.
WHO = ("provider", "fallbacks")
PHRASE = "context.phraseDetection"
INPUT = "context.synthesis.input"


@dataclass(frozen=True)
class Case:
    """One provider, perhaps in a mode of its own.

    Args:
        changes: setting -> the places of its request that differ when it is changed. What is not here changes nothing.
        base: settings beside the provider's name. variables: of the process.
        values: a setting's other value, where the schema's own would mean nothing to this provider.
        beside: what must be set for a setting to mean anything to it.
        mode: it differs from the column of docs/providers.md, which tells of it in words.
    """

    service: str
    provider: str
    changes: Mapping[str, set[str]]
    base: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mode: str = ""

    @property
    def name(self) -> str:
        return f"{self.provider} {self.mode}".strip()


def chat(limit: str, **more: set[str]) -> dict[str, set[str]]:
    """What every chat model is told; `limit` is its name for the longest answer."""
    return {
        "language": {"body.messages"},
        "prompt": {"body.messages"},
        "llm.model": {"body.model"},
        "llm.max_tokens": {f"body.{limit}"},
        "llm.reasoning_effort": {"body.reasoning_effort"},
    } | {f"llm.{name}": places for name, places in more.items()}


SAMPLED = {name: {f"body.{name}"} for name in ("temperature", "frequency_penalty", "presence_penalty")}
HEARD_WHOLE = {
    "language": {"body.language"},
    "stt.language": {"body.language"},
    "stt.phrases": {"body.prompt"},
    "stt.model": {"body.model"},
}
HEARD_BY_AZURE = {
    "language": {"query.language", "context.phraseDetection.language"},
    "stt.language": {"query.language", "context.phraseDetection.language"},
    "stt.model": {"query.cid"},
    "stt.phrases": {"context.dgi.Groups", "context.dgi.bias"},
    "stt.phrase_weight": {"context.dgi.bias"},
    "stt.profanity": {"query.profanity", "context.phraseDetection.enrichment.profanity"},
    "stt.stable_words": {"query.stableIntermediateThreshold", "context.phraseOutput.interimResults.stableThreshold"},
    "stt.segmentation_silence_ms": {f"{PHRASE}.CONVERSATION.segmentation.segmentationSilenceTimeoutMs"},
    "stt.initial_silence_ms": {"query.initialSilenceTimeoutMs", f"{PHRASE}.initialSilenceTimeout"},
}
SPOKEN_BY_AZURE = {
    "language": {"ssml.speak@lang", "ssml.voice@name"},
    "tts.voice": {"ssml.voice@name"},
    "tts.style": {"ssml.express-as@style"},
    "tts.style_degree": {"ssml.express-as@styledegree"},
    "tts.rate_percent": {"ssml.prosody@rate"},
    "tts.pitch_percent": {"ssml.prosody@pitch"},
    "tts.volume_percent": {"ssml.prosody@volume"},
    "tts.lexicon_url": {"ssml.lexicon@uri"},
}
STREAMED_TO_AZURE = {
    "language": {f"{INPUT}.language", f"{INPUT}.voiceName"},
    "tts.voice": {f"{INPUT}.voiceName"},
    "tts.style": {f"{INPUT}.style"},
    "tts.rate_percent": {f"{INPUT}.rate"},
    "tts.pitch_percent": {f"{INPUT}.pitch"},
    "tts.volume_percent": {f"{INPUT}.volume"},
    "tts.lexicon_url": {f"{INPUT}.customLexiconUrl"},
}
# Streamed text has no degree of a style: such a clause goes to the other address, in the other form.
AS_SSML = {
    "path", "pieces", "ssml.speak@version", "ssml.speak@lang", "ssml.voice@name", "ssml.express-as@style",
    "ssml.express-as@styledegree", f"{INPUT}.bidirectionalStreamingMode", f"{INPUT}.language", f"{INPUT}.style",
    f"{INPUT}.voiceName",
}  # fmt: skip
STYLED = {
    "tts.style": {"voice": "en-US-JennyNeural"},
    "tts.style_degree": {"style": "cheerful", "voice": "en-US-JennyNeural"},
    "stt.phrase_weight": {"phrases": ["Harbour Dental"]},
}
CHEERFUL = {"tts.style_degree": {"style": "cheerful"}}
ENDPOINT = "0f7ab9c2-custom-endpoint"

CASES: list[Case] = [
    Case("stt", "azure", HEARD_BY_AZURE, values={"stt.model": ENDPOINT}, beside=STYLED),
    Case("stt", "azure-2", HEARD_BY_AZURE, values={"stt.model": ENDPOINT}, beside=STYLED),
    Case("stt", "openai-stt", HEARD_WHOLE, values={"stt.model": "gpt-4o-transcribe"}),
    Case("stt", "groq-stt", HEARD_WHOLE, values={"stt.model": "whisper-large-v3"}),
    Case("llm", "openai", chat("max_completion_tokens", **SAMPLED)),
    Case(
        "llm", "openai",
        chat("max_completion_tokens", model={"body.model", "body.temperature", "body.reasoning_effort"}),
        base={"model": "gpt-5-mini"}, mode="that reasons",
    ),
    Case(
        "llm", "groq", chat("max_completion_tokens", **SAMPLED), values={"llm.model": "openai/gpt-oss-120b"},
    ),
    Case(
        "llm", "groq",
        chat("max_completion_tokens", **SAMPLED, model={"body.model", "body.reasoning_effort", "body.reasoning_format",
                                                        "body.include_reasoning"}),
        base={"model": "qwen/qwen3.8-27b"}, values={"llm.model": "openai/gpt-oss-120b"}, mode="qwen",
    ),
    Case("llm", "azure-openai", chat("max_completion_tokens", **SAMPLED, model={"path", "body.model"})),
    Case(
        "llm", "azure-openai",
        chat("max_completion_tokens", model={"path", "body.model", "body.temperature", "body.reasoning_effort"}),
        base={"model": "gpt-5-mini"}, mode="that reasons",
    ),
    Case("llm", "compatible", chat("max_tokens", **SAMPLED)),
    Case("tts", "azure", SPOKEN_BY_AZURE, beside=STYLED),
    Case("tts", "azure-2", SPOKEN_BY_AZURE, beside=STYLED),
    Case(
        "tts", "azure", STREAMED_TO_AZURE | {"tts.style_degree": AS_SSML}, beside=STYLED,
        variables={"AZURE_SPEECH_TEXT_STREAM": "on"}, mode="by streamed text",
    ),
    Case(
        "tts", "openai-tts",
        {"tts.voice": {"body.voice"}, "tts.style": {"body.instructions"}, "tts.style_degree": {"body.instructions"},
         "tts.rate_percent": {"body.speed"}, "tts.volume_percent": {"sound"}},
        values={"tts.voice": "nova"}, beside=CHEERFUL,
    ),
    Case(
        "tts", "groq-tts",
        {"tts.voice": {"body.voice"}, "tts.style": {"body.input"}, "tts.rate_percent": {"body.speed"},
         "tts.volume_percent": {"sound"}},
        values={"tts.voice": "troy"}, beside=CHEERFUL,
    ),
]  # fmt: skip

# What each may be asked for by name, and where that stands in its request.
OWN_NAMES: dict[str, dict[str, tuple[str, str]]] = {
    "stt": {
        "azure": (ENDPOINT, "query.cid"),
        "openai-stt": ("gpt-4o-transcribe", "body.model"),
        "groq-stt": ("whisper-large-v3", "body.model"),
    },
    "llm": {
        "openai": ("gpt-4.1-nano", "body.model"),
        "groq": ("openai/gpt-oss-120b", "body.model"),
        "azure-openai": ("gpt-4.1-mini", "body.model"),
        "compatible": ("gpt-4.1-mini", "body.model"),
    },
    "tts": {
        "azure": ("en-US-GuyNeural", "ssml.voice@name"),
        "openai-tts": ("nova", "body.voice"),
        "groq-tts": ("troy", "body.voice"),
    },
}
# Providers without a socket: what they claim is heard, or not, in these tests.
PICO, MOONSHINE = "providers/test_pico.py", "providers/test_moonshine.py"
OWNED: dict[tuple[str, str], str] = {
    ("moonshine", "language"): f"{MOONSHINE}::test_languages",
    ("moonshine", "stt.language"): f"{MOONSHINE}::test_languages",
    ("moonshine", "stt.phrases"): f"{MOONSHINE}::test_phrases_reach_the_final",
    ("pico", "language"): f"{PICO}::test_nearest_voice_of_a_language",
    ("pico", "tts.voice"): f"{PICO}::test_a_setting_of_the_voice_is_heard",
    ("pico", "tts.rate_percent"): f"{PICO}::test_a_setting_of_the_voice_is_heard",
    ("pico", "tts.pitch_percent"): f"{PICO}::test_a_setting_of_the_voice_is_heard",
    ("pico", "tts.volume_percent"): f"{PICO}::test_a_setting_of_the_voice_is_heard",
}

# Values that a type alone does not suggest; the rest are derived from the schema.
OTHERS: dict[str, Any] = {
    "language": "es-ES",
    "prompt": "You answer for a dentist.",
    "stt.language": "es-ES",
    "stt.phrases": ["Harbour Dental"],
    "llm.model": "gpt-4.1-mini",
    "tts.voice": "en-US-GuyNeural",
    "tts.style": "cheerful",
    "tts.lexicon_url": "https://cdn.example.com/words.xml",
}


def settings_of(service: str) -> Iterator[str]:
    """Those of the service's own group, and the shared ones."""
    yield from SHARED
    yield from (f"{service}.{one.name}" for one in dataclasses.fields(GROUPS[service]) if one.name not in WHO)


def other_value(name: str) -> Any:
    """A valid value that is not the default."""
    if name in OTHERS:
        return OTHERS[name]
    group, _, key = name.partition(".")
    spec = next(one for one in dataclasses.fields(GROUPS[group]) if one.name == key)
    hint = typing.get_type_hints(GROUPS[group])[key]
    if typing.get_origin(hint) is Literal:
        return next(one for one in reversed(typing.get_args(hint)) if one != spec.default)
    low, high = spec.metadata["low"], spec.metadata["high"]
    middle = (low + high) / 2
    value = round(middle, 2) if hint is float else int(middle)
    return value if value != spec.default else high


def agent(case: Case, name: str = "", value: Any = None) -> AgentSettings:
    """An agent of this case, with what must stand beside `name`; `value` None leaves its default."""
    group = {"provider": case.provider} | case.base | case.beside.get(name, {})
    raw: dict[str, Any] = {case.service: group}
    if value is not None:
        at, _, key = name.rpartition(".")
        (raw[at] if at else raw)[key] = value
    return AgentSettings.parse(raw)


async def sent(made: Services, catalogue: Catalogue, case: Case, settings: AgentSettings) -> Asked:
    """What the provider was asked by one request, and the sound that came of it."""
    made.forget()
    sound = await ask(case.service, catalogue, settings)
    (asked,) = made.asked(case.service)
    assert asked["service"] == account_of(case.provider)
    return asked | {"sound": sound}


@pytest.mark.parametrize("case", CASES, ids=[one.name for one in CASES])
def test_a_setting_changes_what_it_claims_to_and_nothing_else(case: Case) -> None:
    async def body() -> dict[str, set[str]]:
        found = {}
        async with services() as made, made.catalogue(**made.second, **case.variables) as catalogue:
            plain = await sent(made, catalogue, case, agent(case))
            for name in settings_of(case.service):
                value = case.values[name] if name in case.values else other_value(name)
                before = await sent(made, catalogue, case, agent(case, name)) if name in case.beside else plain
                changed = differences(before, await sent(made, catalogue, case, agent(case, name, value)))
                if changed:
                    found[name] = changed
            again = await sent(made, catalogue, case, agent(case))
            assert not differences(plain, again), "the same settings are sent differently: the comparison says nothing"
        return found

    assert asyncio.run(body()) == case.changes


@pytest.mark.parametrize("service", GROUPS)
def test_fallbacks_are_asked_in_their_order_and_by_their_own_names(service: str) -> None:
    """In a call of an agent whose first choice is refused its key: heard again from the ring, thought, spoken."""
    named = OWN_NAMES[service]

    async def body() -> None:
        async with services() as made, made.catalogue() as catalogue:
            for first, second in permutations(named, 2):
                made.forget()
                made.kill(first)
                name, place = named[second]
                last = next(one for one in named if one not in (first, second))
                fallbacks = [f"{second}/{name}", last]
                settings = AgentSettings.parse({service: {"provider": first, "fallbacks": fallbacks}})
                if service == "stt":
                    assert [number for number, _ in await listen(catalogue, settings)] == [1, 2, 3]
                else:
                    await ask(service, catalogue, settings)
                asked = made.asked(service)
                assert {(one["service"], one[place]) for one in asked} == {(account_of(second), name)}, (first, second)
                made.revive()

    asyncio.run(body())


def test_every_setting_has_an_effect_or_an_owner() -> None:
    seen = {name for case in CASES for name in case.changes} | {name for _, name in OWNED}
    wanted = {name for service in GROUPS for name in settings_of(service)}
    assert seen == wanted, "a setting that changes nothing, or a claim on a setting that there is not"
    for place in OWNED.values():
        path, _, test = place.partition("::")
        assert f"def {test}(" in (TESTS / path).read_text(), place


def test_every_provider_has_its_case() -> None:
    assert {case.provider for case in CASES if not case.mode} == set(NEEDS)


def documented() -> dict[str, set[str]]:
    """Provider -> settings, as the tables of docs/providers.md have them: a cell that says something is a claim."""
    part = (DOCS / "providers.md").read_text().partition("## Which setting reaches whom")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for table in re.findall(r"(?:^\|.*\n)+", part, re.M):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for what, *cells in rows:
            group, names = "", []
            for one in re.findall(r"`([\w.]+)`", what):
                group = f"{one.partition('.')[0]}." if "." in one else group
                names.append(one if "." in one or one in SHARED else group + one)
            for providers, cell in zip(head[1:], cells, strict=True):
                for provider in providers.split(", "):
                    found.setdefault(provider, set()).update(names if cell else ())
    return found


def test_the_page_claims_what_is_so() -> None:
    claimed: dict[str, set[str]] = {}
    for case in CASES:
        if not case.mode and case.provider != "azure-2":  # which is another account of the same
            claimed.setdefault(case.provider, set()).update(case.changes)
    for provider, name in OWNED:
        claimed.setdefault(provider, set()).add(name)
    assert documented() == claimed
