"""A place that is held for a stream, and what is remembered of a call between its streams."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from server.call.ahead import OpenedAhead
from server.call.providers import CallProviders
from server.call.services import CallFacts
from server.dialogue.conversation import Conversation

MAX_KNOWN_CALLS = 10_000
MAX_ENDED_CALLS = 1_000
"""Of them. A carrier asks within seconds what is next; at 1.5 KiB a call more would look like a leak for hours."""


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
    facts: CallFacts | None = None
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
    kept_until_s: float = 0.0  # the conversation, for a second stream
    resumes: int = 0
    was_opened: bool = False  # a stream of it has come here
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class KnownCalls:
    """Calls by the carrier's id: the open ones, up to MAX_KNOWN_CALLS, and the last MAX_ENDED_CALLS that ended."""

    __slots__ = ("_calls", "_ended", "_kept")

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Known] = OrderedDict()
        self._ended: OrderedDict[str, Known] = OrderedDict()
        self._kept: deque[tuple[float, Known]] = deque(maxlen=MAX_ENDED_CALLS)  # in the order of time

    def get(self, carrier_call_id: str) -> Known | None:
        return self._calls.get(carrier_call_id)

    def add(self, facts: CallFacts) -> Known:
        """A call that begins; the oldest is forgotten when there are too many."""
        known = self._calls[facts.carrier_call_id] = Known(facts)
        while len(self._calls) > MAX_KNOWN_CALLS:
            self._ended.pop(self._calls.popitem(last=False)[0], None)
        return known

    def end(self, known: Known, reason: str) -> None:
        """A stream of the call is over; who waits for that goes on."""
        known.end_reason = reason
        known.ended.set()
        self._ended[known.facts.carrier_call_id] = known
        self._ended.move_to_end(known.facts.carrier_call_id)
        while len(self._ended) > MAX_ENDED_CALLS:
            carrier_call_id, oldest = self._ended.popitem(last=False)
            # Not one that goes on in another stream, or whose id is a later call's.
            if oldest.ended.is_set() and self._calls.get(carrier_call_id) is oldest:
                del self._calls[carrier_call_id]

    def keep(self, known: Known, conversation: Conversation, until_s: float) -> None:
        """A second stream may go on with it until then."""
        known.conversation, known.kept_until_s = conversation, until_s
        self._kept.append((until_s, known))

    def forget(self, now_s: float) -> None:
        """What was said in calls that no second stream has come for."""
        while self._kept and self._kept[0][0] <= now_s:
            _, known = self._kept.popleft()
            if known.kept_until_s <= now_s:
                known.conversation = None

    def __len__(self) -> int:
        return len(self._calls)
