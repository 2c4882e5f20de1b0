"""The vendors' own clients at a simulator, and what they made of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import groq
import openai
import uvloop

from bench.sim.openai import Flavour, OpenAiSim

CHAT_MODEL = {Flavour.OPENAI: "gpt-4o-mini", Flavour.GROQ: "openai/gpt-oss-20b", Flavour.AZURE: "gpt-4o-mini"}
TRANSCRIPTION_MODEL = {Flavour.OPENAI: "whisper-1", Flavour.GROQ: "whisper-large-v3-turbo", Flavour.AZURE: "whisper"}
SPEECH_MODEL = {Flavour.OPENAI: "tts-1", Flavour.GROQ: "canopylabs/orpheus-v1-english", Flavour.AZURE: "tts"}
USER = [{"role": "user", "content": "hello"}]
API_VERSION = "2024-10-21"


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"day": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


@asynccontextmanager
async def client(sim: OpenAiSim, *, key: str = "sim-key", read_s: float = 5.0) -> AsyncIterator[Any]:
    """The flavour's SDK, without its retries."""
    common: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": read_s}
    if sim.flavour is Flavour.GROQ:
        one: Any = groq.AsyncGroq(base_url=sim.base_url, **common)
    elif sim.flavour is Flavour.AZURE:
        one = openai.AsyncAzureOpenAI(azure_endpoint=sim.base_url, api_version=API_VERSION, **common)
    else:
        one = openai.AsyncOpenAI(base_url=sim.base_url, **common)
    async with one:
        yield one


@dataclass
class Heard:
    """One stream as a client sees it. `calls`: name and arguments by index."""

    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    reasoning: str = ""
    roles: list[str] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    usage: Any = None
    chunks: list[Any] = field(default_factory=list)


async def talk(one: Any, sim: OpenAiSim, heard: Heard | None = None, **request: Any) -> Heard:
    """Stream one answer to its end. Given `heard`, an interrupted stream leaves there what came."""
    heard = heard or Heard()
    request = {"model": CHAT_MODEL[sim.flavour], "messages": USER, "stream": True} | request
    async for chunk in await one.chat.completions.create(**request):
        heard.chunks.append(chunk)
        heard.usage = chunk.usage or heard.usage
        for choice in chunk.choices:
            if choice.finish_reason:
                heard.finish.append(choice.finish_reason)
            delta = choice.delta
            if delta is None:
                continue
            heard.text += delta.content or ""
            heard.reasoning += getattr(delta, "reasoning", None) or ""
            heard.roles += [delta.role] if delta.role else []
            for call in delta.tool_calls or ():
                into = heard.calls.setdefault(call.index, ["", ""])
                into[0] += call.function.name or ""
                into[1] += call.function.arguments or ""
                heard.ids += [call.id] if call.id else []
    return heard


def run(main: Callable[[], Awaitable[None]]) -> None:
    """One test on uvloop with a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    uvloop.run(bounded())
