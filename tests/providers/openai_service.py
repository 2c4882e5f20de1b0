"""The adapters of OpenAI's protocol beside the simulator that each talks to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop

from bench.sim.openai import Flavour, OpenAiSim
from providers.base import ChatRequest, Message
from providers.groq.chat import GroqModel
from providers.openai.chat import AzureOpenAIModel, ChatCore, CompatibleModel, OpenAIModel
from providers.openai.options import AzureOpenAiOptions, CompatibleOptions, GroqOptions, LinkOptions, OpenAiOptions

KEY = "sim-key"
ADAPTERS = ("openai", "groq", "azure-openai", "azure-v1", "compatible")
FLAVOURS = {
    "openai": Flavour.OPENAI,
    "groq": Flavour.GROQ,
    "azure-openai": Flavour.AZURE,
    "azure-v1": Flavour.AZURE,
    "compatible": Flavour.OPENAI,
}
QUICK = LinkOptions(connect_ms=500, read_ms=150)


def model(name: str, sim: OpenAiSim, *, key: str = KEY, link: LinkOptions | None = None, **more: Any) -> ChatCore:
    link = link or LinkOptions()
    if name == "openai":
        options = {"model": "gpt-4o-mini"} | more
        return OpenAIModel(OpenAiOptions(key=key, base_url=sim.base_url, link=link, **options))
    if name == "groq":
        return GroqModel(GroqOptions(key=key, base_url=sim.base_url, link=link, **more))
    if name == "compatible":
        options = {"model": "gpt-4o-mini"} | more
        return CompatibleModel(CompatibleOptions(key=key, base_url=sim.base_url, link=link, **options))
    options = {"deployment": "gpt-4o-mini", "surface": "v1" if name == "azure-v1" else "classic"} | more
    return AzureOpenAIModel(AzureOpenAiOptions(key=key, endpoint=sim.base_url, link=link, **options), name=name)


def ask(text: str, **more: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("system", "Be brief."), Message("user", text)), **more)


@asynccontextmanager
async def service(
    name: str, *, link: LinkOptions | None = None, options: dict[str, Any] | None = None, **sim_options: Any
) -> AsyncIterator[tuple[OpenAiSim, ChatCore]]:
    async with OpenAiSim(FLAVOURS[name], **sim_options) as sim:
        adapter = model(name, sim, link=link, **(options or {}))
        try:
            yield sim, adapter
        finally:
            await adapter.aclose()


@asynccontextmanager
async def tls_in_front(port: int, cert: Path, key: Path) -> AsyncIterator[int]:
    """A port of localhost that speaks TLS and passes everything on to `port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        for work in (pump(reader, inner_writer), pump(inner_reader, writer)):
            task = asyncio.get_running_loop().create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        # They end when the client has closed its connections; one that stays open fails the test by its deadline.
        while tasks:
            await asyncio.wait(tasks)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """One test on uvloop with a deadline."""
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()
        mine = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not mine and "providers" in repr(task.get_coro())]
        assert not left, left

    uvloop.run(bounded())
