"""Providers that do what a test tells them, request by request: answer, wait, fail, fall silent.

Real implementations of the protocols, for the wrappers above them; what real SDKs do is tested against simulators.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from providers.base import AudioChunk, ChatEvent, ChatRequest, SpeechEvent, SpeechRequest, WordMark
from providers.errors import ProviderError


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing comes for so long."""

    s: float


FOREVER = Wait(3600.0)
Step = ChatEvent | SpeechEvent | AudioChunk | WordMark | Wait | ProviderError


@dataclass
class Told:
    """`scripts[n]` is what happens at request n; the last one goes for all that follow."""

    name: str
    scripts: list[list[Step]]
    requests: list[object] = field(default_factory=list)
    closed: int = 0
    attached: int = 0

    def attach_nowait(self) -> None:
        self.attached += 1

    def detach_nowait(self) -> None:
        self.attached -= 1

    async def aclose(self) -> None:
        return

    def _next(self, request: object) -> list[Step]:
        self.requests.append(request)
        return self.scripts[min(len(self.requests), len(self.scripts)) - 1]


class ToldModel(Told):
    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        try:
            for step in self._next(request):
                if isinstance(step, Wait):
                    await asyncio.sleep(step.s)
                elif isinstance(step, ProviderError):
                    raise step
                else:
                    yield step  # type: ignore[misc]
        finally:
            self.closed += 1


class ToldVoice(Told):
    async def stream(self, request: SpeechRequest) -> AsyncGenerator[SpeechEvent, None]:
        try:
            for step in self._next(request):
                if isinstance(step, Wait):
                    await asyncio.sleep(step.s)
                elif isinstance(step, ProviderError):
                    raise step
                else:
                    yield step  # type: ignore[misc]
        finally:
            self.closed += 1


@dataclass
class Noted:
    """An observer that writes everything down, in order."""

    lines: list[str] = field(default_factory=list)

    def on_attempt(self, service: str, provider: str) -> None:
        self.lines.append(f"attempt {provider}")

    def on_failure(self, service: str, provider: str, kind: str) -> None:
        self.lines.append(f"failure {provider} {kind}")

    def on_retry(self, service: str, provider: str) -> None:
        self.lines.append(f"retry {provider}")

    def on_fallback(self, service: str, provider: str, successor: str) -> None:
        self.lines.append(f"fallback {provider} {successor}")

    def on_hedge(self, provider: str, outcome: str) -> None:
        self.lines.append(f"hedge {provider} {outcome}")

    def on_breaker(self, service: str, provider: str, state: str) -> None:
        self.lines.append(f"breaker {provider} {state}")

    def on_usage(self, service: str, provider: str, unit: str, amount: int) -> None:
        if amount:
            self.lines.append(f"usage {provider} {unit} {amount}")

    def on_limit(self, service: str, provider: str, of: str, remaining: int, limit: int | None) -> None:
        self.lines.append(f"limit {provider} {of} {remaining}/{limit}")
