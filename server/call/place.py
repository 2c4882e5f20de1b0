"""A place that is held for a stream, and what is remembered of a call between its streams."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from server.call.ahead import OpenedAhead
from server.call.providers import CallProviders
from server.call.services import CallFacts
from server.dialogue.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Reserved:
    """A place for one stream: its public id and the secret that `start` must carry."""

    stream_id: str
    secret: str
    call_id: str


@dataclass(slots=True)
class Place:
    """What is held for a stream that was promised: a place in the count, and connections to its services."""

    until_s: float = 0.0
    carrier_call_id: str = ""
    providers: CallProviders | None = None
    ahead: OpenedAhead | None = None

    def attach(self, providers: CallProviders) -> None:
        self.providers = providers
        providers.attach_nowait()

    async def release(self) -> None:
        """The stream never came, or its call is over. Twice does no harm."""
        providers, self.providers = self.providers, None
        if providers is not None:
            providers.detach_nowait()
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            await ahead.close()


@dataclass(slots=True)
class Known:
    """What is remembered of a call between its streams."""

    facts: CallFacts
    conversation: Conversation | None = None
    end_reason: str = ""
    resumes: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
