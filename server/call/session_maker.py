"""The session of a stream that was let in: its agent's version as it was when the call came in, its providers.

Leaves to others: who is let in and what becomes of the session (server/call/plane.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from server.agent.settings import AgentSettings, Channel
from server.call.entry import Sink
from server.call.place import KnownCalls, Place
from server.call.providers import CallProviders
from server.call.services import CallFacts, CallServices
from server.call.session import CallSession
from server.errors import CallError
from server.store.agents import AgentVersion
from server.wire.event import StreamStarted, Wire

MAX_PINNED_VERSIONS = 256


class SessionMaker:
    """Remembers the versions of the last calls, at most MAX_PINNED_VERSIONS."""

    def __init__(
        self,
        services: CallServices,
        providers_for: Callable[[AgentSettings], CallProviders],
        versions: Callable[[str], AgentVersion | None],
        known: KnownCalls,
    ) -> None:
        self._services = services
        self._providers_for = providers_for
        self._versions = versions
        self._known = known
        self._pinned: OrderedDict[str, AgentVersion] = OrderedDict()

    def pin(self, version: AgentVersion) -> None:
        self._pinned[version.id] = version
        self._pinned.move_to_end(version.id)
        while len(self._pinned) > MAX_PINNED_VERSIONS:
            self._pinned.popitem(last=False)

    def settings_of(self, facts: CallFacts) -> AgentSettings | None:
        """What was pinned for the call; None when it is forgotten, or another process answered the call."""
        version = self._pinned.get(facts.agent_version_id)
        return self._settings(version, facts) if version else None

    def _settings(self, version: AgentVersion, facts: CallFacts) -> AgentSettings:
        return self._services.settings_for(version.settings, cast(Channel, facts.carrier))

    def make(
        self,
        place: Place,
        facts: CallFacts,
        started: StreamStarted,
        wire: Wire,
        sink: Sink,
        close_socket: Callable[[int], None],
    ) -> CallSession:
        """Raises CallError when this process does not know the agent's version."""
        # Pinned when the call came in; a stream that was reserved by another process asks the memory of agents.
        version = self._pinned.get(facts.agent_version_id) or self._versions(facts.agent_version_id)
        if version is None:
            raise CallError(f"agent version {facts.agent_version_id} is not known to this process")
        settings = self._settings(version, facts)
        known = self._known.get(facts.carrier_call_id)
        conversation, resumed = None, known is not None and known.resumes > 0
        if known is not None:
            if resumed:
                conversation, known.conversation = known.conversation, None
            # One that came after its place had been given up has ended on record; it goes on.
            known.end_reason, known.was_opened = "", True
            known.ended.clear()
        if place.providers is None:
            place.attach(self._providers_for(settings))
        assert place.providers is not None
        return CallSession(
            services=self._services,
            providers=place.providers,
            ahead=place.ahead,
            facts=facts,
            settings=settings,
            wire=wire,
            stream_id=started.stream_id,
            fmt=started.media_format,
            sink=sink,
            close_socket=close_socket,
            conversation=conversation,
        )
