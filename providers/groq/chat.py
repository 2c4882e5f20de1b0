"""Chat model "groq": the core of OpenAI's protocol by Groq's SDK, with Groq's rules of reasoning and tool calls."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from providers.base import ChatEvent, ChatRequest
from providers.errors import ProviderRejected
from providers.groq.link import groq_link
from providers.openai.body import Dialect
from providers.openai.chat import MAX_STREAM_BYTES, ChatCore
from providers.openai.options import GroqOptions

log = logging.getLogger(__name__)


class GroqModel(ChatCore):
    """ChatModel "groq"."""

    def __init__(self, options: GroqOptions, *, name: str = "groq") -> None:
        link = groq_link(name, options, max_bytes=MAX_STREAM_BYTES)
        super().__init__(link, Dialect(is_groq=True, effort=options.effort), options.model)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """As ChatCore.stream. A tool call that Groq could not read is asked for once more, if nothing was said yet:
        the next one is usually right."""
        is_begun = False
        try:
            async with aclosing(super().stream(request)) as events:
                async for event in events:
                    is_begun = True
                    yield event
            return
        except ProviderRejected as error:
            if is_begun or error.code != "tool_use_failed":
                raise
            log.info("%s: asked again: %s", self.name, error)
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                yield event
