"""A chat model that survives its providers: an ordered list of them behind the same protocol.

    before the first useful token   any candidate may take over unnoticed; a slow one is hedged by the next
    after text was given            the next one goes on from the words that were given, without saying them twice
    nobody is left                  the last error

Deadlines are per attempt and ours (`ModelLimits`); breakers, retry and hedge budgets are shared by all calls
(`ProviderHealth`). Text is given word by word, because a word that a stream broke in two could not be continued.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from providers.base import ChatDone, ChatEvent, ChatModel, ChatRequest, Message, TextDelta, ToolCall
from providers.deadline import is_useful, with_deadlines
from providers.errors import ProviderError, ProviderFiltered, ProviderRejected, ProviderUnavailable
from providers.health import Attempt, ProviderHealth
from providers.order import Order
from providers.race import first_of

CONTINUE = (
    "Your last message was cut off while it was being spoken. Go on from exactly where it stops, with the next word; do"
    " not repeat or rephrase anything of it."
)
REPHRASE = "Answer in plain, neutral words."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """Per attempt. `last_first_ms` is the patience with the last candidate that is left.

    An attempt that is given up without a word after `first_ms` has failed too: the asker may leave before the last
    one's patience ends (`limits.apology_after_ms`), and would never see it hang.
    """

    first_ms: int = 1500
    last_first_ms: int = 4000
    idle_ms: int = 1500
    total_ms: int = 30_000
    hedge_ms: int = 700  # until the provider's own p95 is known


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """`model` is the provider's own name of a model, empty its default; sent in place of the request's."""

    provider: ChatModel
    health: ProviderHealth
    model: str = ""


class FallbackModel:
    """ChatModel over candidates, the preferred one first. Does not own them: `aclose` does nothing."""

    __slots__ = ("_candidates", "_limits", "name")

    def __init__(self, candidates: Sequence[ModelCandidate], limits: ModelLimits | None = None) -> None:
        self.name = candidates[0].provider.name
        self._candidates = tuple(candidates)
        self._limits = limits or ModelLimits()

    def attach_nowait(self) -> None:
        for one in self._candidates:
            one.provider.attach_nowait()

    def detach_nowait(self) -> None:
        for one in self._candidates:
            one.provider.detach_nowait()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """As ChatModel.stream. Raises the last candidate's ProviderError when nobody could finish."""
        reply = _Reply(request)
        error: ProviderError | None = None
        order = Order(self._candidates)
        while (one := order.next()) is not None:
            if error is not None:
                one.health.observer.on_fallback("llm", error.provider or self.name, one.provider.name)
            try:
                async with aclosing(self._attempt(one, order, reply)) as events:
                    async for event in events:
                        yield event
                return
            except ProviderError as failed:
                error = failed
                if reply.has_tools:
                    # Tools are asked for at the end of an answer; nobody may ask for them twice.
                    yield ChatDone("tool_calls", provider=failed.provider)
                    return
                reply.cut()
                if isinstance(failed, ProviderFiltered) and not reply.is_rephrasing:
                    reply.is_rephrasing = True
                    order.put_back(one)
        assert error is not None
        raise error

    async def aclose(self) -> None:
        return

    # ── one candidate ─────────────────────────────────────────────────────────────────────────────────────────

    async def _attempt(
        self, one: ModelCandidate, order: _Order, reply: _Reply
    ) -> AsyncGenerator[ChatEvent, None]:
        """One candidate, asked a second time where that is polite; the hedge takes its place when it is quicker."""
        asked = self._ask(one, reply, is_last=not order.has_more)
        try:
            for is_second in (False, True):
                try:
                    first, asked = await self._first(asked, order, reply)
                    break
                except ProviderError as error:
                    asked.attempt.failed(error)
                    wait_ms = None if is_second else _wait_ms(error, one, alone=not order.has_more)
                    if wait_ms is None:
                        raise
                    await asyncio.sleep(wait_ms / 1000)
                    asked = self._ask(one, reply, is_last=not order.has_more)
            asked.attempt.saw_first()
            asked.attempt.has_output = first is not None
            async with aclosing(asked.stream) as stream:
                if first is not None:
                    for event in reply.take(first, asked.of):
                        yield event
                async for item in stream:
                    for event in reply.take(item, asked.of):
                        yield event
            last = reply.finish(asked.of)
            asked.attempt.succeeded()
        except ProviderError as error:
            asked.attempt.failed(error)
            raise
        finally:
            asked.attempt.dropped()
        for event in last:
            yield event

    async def _first(self, asked: _Asked, order: _Order, reply: _Reply) -> tuple[ChatEvent | None, _Asked]:
        """Wait for the first useful event; ask the next candidate too when it takes longer than usual."""
        health, backup = asked.of.health, order.backup()
        if backup is None or reply.given:
            return await _useful(asked.stream, reply), asked
        second: _Asked | None = None

        def open_backup() -> _Events | None:
            nonlocal second
            # The breaker first: a hedge that is not made must not use the budget up.
            if not (backup.health.may() and health.hedges.take() and order.take(backup)):
                return None
            second = self._ask(backup, reply, is_last=not order.has_more)
            return second.stream

        async def first(events: _Events) -> ChatEvent | None:
            try:
                return await _useful(events, reply)
            except ProviderError as error:
                (second if second is not None and events is second.stream else asked).attempt.failed(error)
                raise

        after_s = health.slow_first_ms(self._limits.hedge_ms) / 1000
        result = None
        try:
            result = await first_of(asked.stream, first, open_backup, after_s, is_failure=ProviderError)
        finally:
            if result is None and second is not None:
                second.attempt.dropped()
                backup.health.observer.on_hedge(backup.provider.name, "lost")  # in vain: nobody won
        if second is None:
            return result.value, asked
        winner, loser = (second, asked) if result.used_backup else (asked, second)
        if not loser.attempt.is_settled:
            # Slow, not known to be broken. Its time counts: without it only quick answers would make the p95.
            order.put_back(loser.of)
            loser.attempt.saw_first()
        loser.attempt.dropped()
        backup.health.observer.on_hedge(backup.provider.name, "won" if result.used_backup else "lost")
        return result.value, winner

    def _ask(self, one: ModelCandidate, reply: _Reply, *, is_last: bool) -> _Asked:
        limits = self._limits
        attempt = one.health.begin(limits.first_ms)
        stream = with_deadlines(
            one.provider.stream(reply.request_for(one)),
            first_ms=limits.last_first_ms if is_last else limits.first_ms,
            idle_ms=limits.idle_ms,
            total_ms=limits.total_ms,
            provider=one.provider.name,
        )
        return _Asked(one, stream, attempt)


_Events = AsyncGenerator[ChatEvent, None]
_Order = Order[ModelCandidate]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request that was made: of whom, and its answer."""

    of: ModelCandidate
    stream: _Events
    attempt: Attempt


async def _useful(stream: _Events, reply: _Reply) -> ChatEvent | None:
    """The first useful event, or the end of the stream (None). ChatDone before any use is kept for the account."""
    async for event in stream:
        if is_useful(event):
            return event
        if isinstance(event, ChatDone):
            reply.done = event
    return None


def _wait_ms(error: ProviderError, one: ModelCandidate, *, alone: bool) -> int | None:
    """Before the same provider is asked again; with others left, only when it names a short wait itself."""
    names_wait = isinstance(error, ProviderRejected) and error.retry_after_ms is not None
    return one.health.polite_wait_ms(error) if alone or names_wait else None


class _Reply:
    """What was given of one answer, whoever gave it: whole words, no word twice."""

    __slots__ = ("_echo", "_held", "_request", "done", "given", "has_tools", "is_rephrasing")

    def __init__(self, request: ChatRequest) -> None:
        self.given = ""
        self.done: ChatDone | None = None
        self._request = request
        self._held = ""
        self._echo = ""  # what a successor may repeat at its beginning
        self.has_tools = False
        self.is_rephrasing = False

    def request_for(self, one: ModelCandidate) -> ChatRequest:
        asked = self._request
        more: tuple[Message, ...] = ()
        if self.given:
            more = (Message("assistant", self.given.strip()), Message("system", CONTINUE))
        elif self.is_rephrasing:
            more = (Message("system", REPHRASE),)
        return dataclasses.replace(asked, model=one.model, messages=(*asked.messages, *more))

    def take(self, event: ChatEvent, one: ModelCandidate) -> list[ChatEvent]:
        match event:
            case TextDelta(text):
                return self._take_text(text)
            case ChatDone():
                self.done = event
                return []
            case ToolCall():
                self.has_tools = True
                return [*self._flush(), event]

    def _take_text(self, text: str) -> list[ChatEvent]:
        self._held += text
        if self._echo and not self._pass_echo():
            return []
        cut = max(self._held.rfind(" "), self._held.rfind("\n")) + 1
        return self._give(cut)

    def _pass_echo(self) -> bool:
        """Drop what repeats the words that were given; False while it may still become such a repetition."""
        said, heard = self._echo, self._held.lstrip()
        if said.startswith(heard):
            return False
        self._echo = ""
        # What was given ends with a space: words are given when the next one begins.
        is_echo = heard.startswith(said) and not heard[len(said)].isalnum()
        self._held = heard[len(said) :].lstrip() if is_echo else heard
        return True

    def _give(self, count: int) -> list[ChatEvent]:
        text, self._held = self._held[:count], self._held[count:]
        self.given += text
        return [TextDelta(text)] if text else []

    def _flush(self) -> list[ChatEvent]:
        if self._echo and self._echo.startswith(self._held.strip()):
            self._held = ""  # it said again what had been given, and no more
        self._echo = ""
        return self._give(len(self._held))

    def cut(self) -> None:
        """The stream broke: half a word is dropped, and a successor may begin by repeating what was given."""
        self._held = ""
        self.done = None
        self._echo = self.given.strip()

    def finish(self, one: ModelCandidate) -> list[ChatEvent]:
        """The stream ended well. Raises ProviderFiltered or ProviderUnavailable when it held nothing at all."""
        events = self._flush()
        done = self.done or ChatDone()
        if not self.given and not self.has_tools:
            if done.reason == "content_filter":
                raise ProviderFiltered("the answer was filtered", status=400, provider=one.provider.name)
            raise ProviderUnavailable("empty answer", provider=one.provider.name)
        observer, name = one.health.observer, one.provider.name
        observer.on_usage("llm", name, "prompt_tokens", done.prompt_tokens)
        observer.on_usage("llm", name, "cached_tokens", done.cached_tokens)
        observer.on_usage("llm", name, "completion_tokens", done.completion_tokens)
        return [*events, dataclasses.replace(done, provider=name)]
