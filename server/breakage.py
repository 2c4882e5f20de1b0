"""The ways in which a server is broken on purpose (TALKSPURT_TEST_BREAK): the bench must notice each.

    pacer          all audio goes to the carrier as it is made
    vad            nobody is ever heard to speak
    barge_in       the agent never gives way
    turn_in_fifty  one turn in fifty is not answered

Guarantees: it is chosen when the process is put together, so a whole server has nothing of it in the way of a frame or
a turn; it is an error in the log and stands in /readyz. Leaves to others: to refuse it where calls come
(server/config/breakage.py).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from providers.base import ChatDone, ChatEvent, ChatModel, ChatRequest
from server.agent.settings import AgentSettings, Channel
from server.call.providers import CallProviders
from server.call.services import CallServices
from server.config.breakage import VARIABLE, Breakage

log = logging.getLogger(__name__)

ENDLESS_LEAD_MS = 3_600_000
FULL_SCALE_DBFS = 0
"""No frame is louder."""
ONE_IN = 50
FIRST = 25
"""Short runs have few turns: the first that is not answered is in the middle of its fifty."""

ProvidersFor = Callable[[AgentSettings], CallProviders]
Degraded = Callable[[], Mapping[str, Mapping[str, str]]]


def broken(how: Breakage, services: CallServices, providers_for: ProvidersFor) -> tuple[CallServices, ProvidersFor]:
    """What calls are served with; the same two when nothing is to be broken."""
    if not how:
        return services, providers_for
    log.error("broken on purpose: %s (%s)", how, VARIABLE, extra={"event": "broken_on_purpose"})
    match how:
        case "pacer":
            return dataclasses.replace(services, lead_ms=ENDLESS_LEAD_MS), providers_for
        case "vad":
            return dataclasses.replace(services, settings_for=_deaf), providers_for
        case "barge_in":
            return dataclasses.replace(services, settings_for=_stubborn), providers_for
        case "turn_in_fifty":
            turns = _Turns()
            return services, lambda settings: _forgetful(providers_for(settings), turns)


def told(how: Breakage, degraded: Degraded) -> Degraded:
    """`degraded` of /readyz, with what is broken on purpose."""
    return (lambda: {**degraded(), "test": {"broken_on_purpose": how}}) if how else degraded


def _deaf(settings: AgentSettings, channel: Channel) -> AgentSettings:
    made = settings.for_channel(channel)
    return dataclasses.replace(made, turn=dataclasses.replace(made.turn, level_gate_dbfs=FULL_SCALE_DBFS))


def _stubborn(settings: AgentSettings, channel: Channel) -> AgentSettings:
    made = settings.for_channel(channel)
    return dataclasses.replace(made, interruption=dataclasses.replace(made.interruption, allowed=False))


class _Turns:
    """Counts the turns of all calls."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = 0

    def is_forgotten(self) -> bool:
        self._seen += 1
        return self._seen % ONE_IN == FIRST


class _ForgetfulModel:
    """Has nothing to say to one turn in fifty."""

    def __init__(self, model: ChatModel, turns: _Turns) -> None:
        self.name = model.name
        self.attach_nowait = model.attach_nowait
        self.detach_nowait = model.detach_nowait
        self.aclose = model.aclose
        self._model = model
        self._turns = turns

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        return _nothing() if self._turns.is_forgotten() else self._model.stream(request)


async def _nothing() -> AsyncIterator[ChatEvent]:
    yield ChatDone()


def _forgetful(providers: CallProviders, turns: _Turns) -> CallProviders:
    return dataclasses.replace(providers, model=_ForgetfulModel(providers.model, turns))
