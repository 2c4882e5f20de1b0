"""Chat models of OpenAI's protocol: OpenAI, Azure OpenAI, and anything compatible. Groq's is built on the same core.

    ChatRequest → BodyMaker → Link (SDK) → SseDecoder → Answer → TextDelta, ToolCall, ChatDone

Guarantees of every stream: closing it drops its connection and returns at once, while another connection is ready for
the next turn; nothing but ProviderError is raised; one request is one attempt, except where nothing can have been
answered twice (a parameter that the model does not know, Groq's invalid tool call, an idle connection that had died).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from providers.base import ChatEvent, ChatRequest, Message
from providers.check import Check
from providers.errors import Phase, ProviderError, ProviderProtocolError, ProviderRejected
from providers.openai.answer import Answer
from providers.openai.body import BodyMaker, Dialect
from providers.openai.limits import OnLimit
from providers.openai.link import Link, Refusal, azure_link, compatible_link, failed_check, openai_link
from providers.openai.options import AzureOpenAiOptions, CompatibleOptions, OpenAiOptions
from providers.openai.sse import SseDecoder

log = logging.getLogger(__name__)

MAX_STREAM_BYTES = 8 << 20  # 64,000 characters in chunks of one token with Azure's filter results
MAX_LEARNED = 4  # parameters that one request may lose before it is given up
TAIL_S = 0.25  # after the answer's end: for usage and for the end of the body, without which there is no next request
PROBE = ChatRequest(messages=(Message("user", "Say ok."),), max_tokens=16)


class ChatCore:
    """ChatModel over one link. Belongs to one event loop.

    Args:
        model: used where the request names none.
        listed: whether the service's list of models holds what calls ask for.
    """

    def __init__(self, link: Link, dialect: Dialect, model: str, *, listed: bool = True) -> None:
        self.name = link.name
        self._link = link
        self._bodies = BodyMaker(dialect)
        self._model = model
        self._is_listed = listed

    def tell_limits(self, on_limit: OnLimit) -> None:
        self._link.limits.tell(on_limit)

    def attach_nowait(self) -> None:
        self._link.lanes.attach_nowait()

    def detach_nowait(self) -> None:
        self._link.lanes.detach_nowait()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """One answer.

        Raises:
            ProviderFiltered: the prompt was refused by the service's content filter.
            ProviderRejected: the model, the key or the request is wrong, or the account's limit is reached.
            ProviderTimeout, ProviderUnavailable: connection or service. ProviderProtocolError: not an answer.
        """
        response = await self._open(request)
        answer = Answer(self.name)
        decoder = SseDecoder()
        try:
            raw = aiter(response.aiter_raw())
            is_done, tail_until_s = False, 0.0
            part: bytes | None = b""
            while part is not None:
                if is_done or answer.is_finished:
                    tail_until_s = tail_until_s or asyncio.get_running_loop().time() + TAIL_S
                part = await self._next(raw, answer, tail_until_s)
                for data in decoder.feed(part) if part is not None else decoder.end():
                    if data == b"[DONE]":
                        is_done = True
                    elif not is_done:
                        for event in answer.feed(data):
                            yield event
            for event in answer.finish():
                yield event
        finally:
            await response.aclose()
        request_id = answer.groq_id or response.headers.get("x-request-id", "")
        log.info("%s answered", self.name, extra={"event": "chat_answered", "request_id": request_id})

    async def check(self, model: str = "") -> Check:
        """Reach the service and look for the model. Costs a few tokens where the service has no useful list."""
        model = model or self._model
        check = await self._link.check_listed(model)
        if not self._is_listed or check.is_found is None:
            began_s = asyncio.get_running_loop().time()
            try:
                async with aclosing(self.stream(replace(PROBE, model=model))) as events:
                    await anext(events)
            except ProviderError as error:
                return failed_check(self.name, model, error)
            latency_ms = (asyncio.get_running_loop().time() - began_s) * 1000
            check = replace(check, is_reached=True, is_found=True, problem="", failure=None, latency_ms=latency_ms)
        return check

    async def aclose(self) -> None:
        await self._link.aclose()

    async def _open(self, request: ChatRequest) -> Any:
        """The open answer. Repeats what can be repeated, see above."""
        model = request.model or self._model
        for _ in range(MAX_LEARNED + 1):
            body = self._bodies.make(request, model)
            try:
                response = await self._link.post("/chat/completions", body=body)
            except Refusal as refusal:
                error, fields = refusal.error, refusal.fields
            else:
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind in ("application/json", "text/html"):
                    await response.aclose()
                    raise ProviderProtocolError(f"expected a stream of events, got {kind}", provider=self.name)
                return response
            if not self._bodies.learn(error, str(fields.get("param") or ""), str(fields.get("message") or ""), body):
                break
            log.info("%s: asked again: %s", self.name, error)
        raise self._explained(error, model)

    def _explained(self, error: ProviderRejected, model: str) -> ProviderRejected:
        if error.status != 404:
            return error
        said = str(error).removeprefix(f"{self.name}: ")
        return ProviderRejected(
            f"no model {model!r} for this account: {said}", status=404, code=error.code, provider=self.name
        )

    async def _next(self, raw: AsyncIterator[bytes], answer: Answer, until_s: float) -> bytes | None:
        """The next piece of the body, None at its end or, where `until_s` is not 0, at that time."""
        try:
            if not until_s:
                return await anext(raw, None)
            async with asyncio.timeout_at(until_s):
                return await anext(raw, None)
        except self._link.errors as error:
            if answer.is_finished:
                return None  # everything was said; only the connection is lost
            phase: Phase = "idle" if answer.is_useful else "first"
            raise self._link.translate(error, phase) from None


class OpenAIModel(ChatCore):
    """ChatModel "openai"."""

    def __init__(self, options: OpenAiOptions, *, name: str = "openai") -> None:
        link = openai_link(name, options, max_bytes=MAX_STREAM_BYTES)
        super().__init__(link, Dialect(include_obfuscation=True), options.model)


class AzureOpenAIModel(ChatCore):
    """ChatModel "azure-openai". A request's model is the name of a deployment."""

    def __init__(self, options: AzureOpenAiOptions, *, name: str = "azure-openai") -> None:
        link = azure_link(name, options, max_bytes=MAX_STREAM_BYTES)
        # Its list has the models that a resource could deploy, not the deployments.
        super().__init__(link, Dialect(), options.deployment, listed=False)


class CompatibleModel(ChatCore):
    """ChatModel "compatible": any service with OpenAI's chat completions."""

    def __init__(self, options: CompatibleOptions, *, name: str = "compatible") -> None:
        link = compatible_link(name, options, max_bytes=MAX_STREAM_BYTES)
        dialect = Dialect(limit=options.limit, include_usage=options.include_usage)
        super().__init__(link, dialect, options.model)
