"""All cloud services as simulators, a catalogue of a process with accounts at them, and what it asks, laid flat.

    settings, variables ─► Catalogue ─► the vendors' SDKs ─► sockets ─► simulators ─► {"body.model": …, "query.cid": …}

What differs between two requests is then a set of places. Values that a client draws anew for each request (ids,
times) are no part of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any
from xml.etree import ElementTree

from bench.sim.azure import AzureSim, SttTurn, TtsTurn
from bench.sim.openai import Flavour, Model, OpenAiSim, Seen
from providers.base import PCMU_8K, AudioChunk, Final
from providers.observer import ProviderObserver, Unobserved
from server.agent.settings import AgentSettings
from server.call.clips import speech_request
from server.call.recogniser import common_format, open_stream, transcriber_config
from server.catalogue import Catalogue
from server.config import Config
from server.dialogue.conversation import Conversation
from tests.call.test_recogniser import BOOK, Call

KEYS = KEY, OTHER_KEY, THIRD_KEY = "sim-key-0123", "sim-key-4567", "sim-key-8901"
TEXT = "We are open from nine to six."
CALLER = "+15550000001"
LOUD_PCMU = bytes(range(256)) * 40
ROUTES = {"stt": "transcription", "llm": "chat", "tts": "speech"}
FLAVOURS = {
    "openai": Flavour.OPENAI, "compatible": Flavour.OPENAI, "groq": Flavour.GROQ, "groq-2": Flavour.GROQ,
    "azure-openai": Flavour.AZURE, "azure-openai-2": Flavour.AZURE,
}  # fmt: skip
MORE_MODELS = (Model("another-voice", "speech"),)
_OWN_HEADERS = ("authorization", "api-key", "ocp-apim-subscription-key")
# Drawn anew for each connection or request.
_FRESH = re.compile(r"(?i)connectionid|requestid|service-tag|audio\.offsets|timestamp|\.time$")

Asked = dict[str, Any]
"""Place in the request -> value. `sound` is what was heard of the answer, `service` who was asked."""


class Services:
    """Simulators of all services, `…-2` a second one of the same.

    `env`: the variables of an account at each first one; `second`: those of the second Azure Speech.
    """

    def __init__(self, azure: AzureSim, azure_2: AzureSim, others: Mapping[str, OpenAiSim]) -> None:
        self.azure, self.azure_2, self.others = azure, azure_2, dict(others)
        self.second = {"AZURE_SPEECH_KEY_2": OTHER_KEY, "AZURE_SPEECH_ENDPOINT_2": azure_2.host}
        self.env = {
            "AZURE_SPEECH_KEY": KEY, "AZURE_SPEECH_ENDPOINT": azure.host,
            "GROQ_API_KEY": KEY, "GROQ_BASE_URL": others["groq"].base_url,
            "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": others["openai"].base_url,
            "AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": others["azure-openai"].base_url,
            "AZURE_OPENAI_DEPLOYMENT": "gpt-4o-mini",
            "COMPATIBLE_API_KEY": KEY, "COMPATIBLE_BASE_URL": others["compatible"].base_url,
            "COMPATIBLE_MODEL": "gpt-4o-mini",
        }  # fmt: skip

    @asynccontextmanager
    async def catalogue(self, observer: ProviderObserver | None = None, **variables: str) -> AsyncIterator[Catalogue]:
        """Of a process with these accounts; a variable that is "" is not set."""
        env = {name: value for name, value in (self.env | variables).items() if value}
        made = Catalogue(Config.from_env(env).providers, observer or Unobserved())
        try:
            yield made
        finally:
            await made.aclose()

    def kill(self, provider: str) -> None:
        """Refuse its key from now on."""
        azures = {"azure": self.azure, "azure-2": self.azure_2}
        ({**azures, **self.others}[account_of(provider)]).keys = {"nobodys-key"}

    def revive(self) -> None:
        for one in (self.azure, self.azure_2, *self.others.values()):
            one.keys = set(KEYS)

    def forget(self) -> None:
        """What was asked until now."""
        for azure in (self.azure, self.azure_2):
            azure.stt_turns.clear()
            azure.tts_turns.clear()
        for one in self.others.values():
            one.log.clear()

    def asked(self, service: str) -> list[Asked]:
        """Every request of this service that was not refused, since `forget`."""
        found: list[Asked] = []
        for name, azure in (("azure", self.azure), ("azure-2", self.azure_2)):
            if service == "stt":
                found += [{"service": name} | of_recognition(one) for one in azure.stt_turns]
            if service == "tts":
                found += [{"service": name} | of_synthesis(one) for one in azure.tts_turns]
        for name, sim in self.others.items():
            seen = (one for one in sim.log.of(ROUTES[service]) if one.status == 200)
            found += [{"service": name} | of_request(one) for one in seen]
        return found


@asynccontextmanager
async def services() -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        keys = frozenset(KEYS)
        azure, azure_2 = [await stack.enter_async_context(AzureSim(keys=keys, book=BOOK)) for _ in range(2)]
        others = {
            name: await stack.enter_async_context(OpenAiSim(flavour, keys=keys, models=MORE_MODELS))
            for name, flavour in FLAVOURS.items()
        }
        yield Services(azure, azure_2, others)


def account_of(provider: str) -> str:
    return provider.removesuffix("-stt").removesuffix("-tts")


# ── to ask ────────────────────────────────────────────────────────────────────────────────────────────────────


async def ask(service: str, catalogue: Catalogue, settings: AgentSettings) -> str:
    """Hear, think or speak once as a call of this agent does; a digest of the sound, where there is any."""
    async with asyncio.timeout(20):
        if service == "stt":
            return await _hear(catalogue, settings)
        return await (_think if service == "llm" else _speak)(catalogue, settings)


async def _hear(catalogue: Catalogue, settings: AgentSettings) -> str:
    ear = catalogue.for_call(settings).ears[0]
    fmt = PCMU_8K if PCMU_8K in ear.provider.audio_formats else ear.provider.audio_formats[0]
    opened = await open_stream(ear, transcriber_config(settings, fmt, CALLER))
    try:
        opened.stream.begin_nowait(1, 0)
        opened.stream.feed_nowait(LOUD_PCMU)
        opened.stream.commit_nowait(1)
        async for one in opened.stream:
            if isinstance(one, Final):
                return ""
    finally:
        await opened.stream.aclose()
    raise AssertionError("no final")


async def listen(catalogue: Catalogue, settings: AgentSettings) -> list[tuple[int, str]]:
    """Three sentences as a call hears them, by whichever of the agent's ears work; the finals."""
    ears = catalogue.for_call(settings).ears
    call = Call(chain=ears, config=transcriber_config(settings, common_format(ears, PCMU_8K), CALLER))
    await call.run()
    return sorted(call.finals)


async def _think(catalogue: Catalogue, settings: AgentSettings) -> str:
    async with aclosing(catalogue.for_call(settings).model.stream(Conversation(settings).request(CALLER))) as events:
        async for _ in events:
            pass
    return ""


async def _speak(catalogue: Catalogue, settings: AgentSettings) -> str:
    digest = hashlib.sha256()
    request = speech_request(settings, TEXT, CALLER, PCMU_8K)
    async with aclosing(catalogue.for_call(settings).synthesizer.stream(request)) as events:
        async for one in events:
            if isinstance(one, AudioChunk):
                digest.update(one.audio)
    return digest.hexdigest()


# ── what was asked ────────────────────────────────────────────────────────────────────────────────────────────


def of_request(seen: Seen) -> Asked:
    """Of an HTTP service: address, key, each field of the body or form, and the file."""
    found: Asked = {"path": seen.path} | flat(seen.query, "query") | _keys(seen.headers)
    found |= {f"body.{name}": value for name, value in seen.body.items()}
    return found | ({"audio": hashlib.sha256(seen.audio).hexdigest()} if seen.audio else {})


def of_recognition(turn: SttTurn) -> Asked:
    one = turn.connection
    found: Asked = {"path": one.path} | flat(one.query, "query") | _keys(one.headers)
    return found | flat(one.config, "config") | flat(turn.context, "context") | {"audio": turn.format}


def of_synthesis(turn: TtsTurn) -> Asked:
    one = turn.connection
    found: Asked = {"path": one.path} | flat(one.query, "query") | _keys(one.headers)
    found |= flat(one.config, "config") | flat(turn.context, "context") | {"pieces": "".join(turn.pieces)}
    if turn.ssml:
        for element in ElementTree.fromstring(turn.ssml).iter():
            tag = element.tag.rpartition("}")[2]
            if tag != "silence":
                found |= {f"ssml.{tag}@{key.rpartition('}')[2]}": value for key, value in element.attrib.items()}
    return found


def flat(value: Any, at: str) -> Asked:
    """A tree of JSON as its leaves; lists stay whole."""
    return {place: leaf for place, leaf in _leaves(value, at) if not _FRESH.search(place)}


def _leaves(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield at, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{at}.{key}")


def _keys(headers: Mapping[str, str]) -> Asked:
    return {f"header.{name}": headers[name] for name in _OWN_HEADERS if name in headers}


def differences(one: Asked, other: Asked) -> set[str]:
    """The places that differ. What is heard counts only where the same was asked for."""
    asked = {place for place in one.keys() | other.keys() if one.get(place) != other.get(place)}
    return asked - {"sound"} or asked
