"""Which agents can be served now, judged by what the process has learnt of their providers.

    health of each provider ─► degraded: those that fail, for people and alerts
                            └► problem: an agent of whose candidates for one service nobody can work

Guarantees: asks nobody and waits for nothing. Leaves to others: to ask providers that nobody uses (server/upkeep.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from providers.base import Synthesizer
from providers.health import ProviderHealth
from providers.observer import Service
from server.agent.settings import CHANNELS, AgentSettings
from server.call.clips import Clips
from server.catalogue import Catalogue
from server.store.agents import AgentVersion

_DOES: Mapping[Service, str] = {"stt": "hears", "llm": "thinks", "tts": "speaks"}


@dataclass(frozen=True, slots=True)
class _Variant:
    settings: AgentSettings
    voice: Synthesizer
    healths: Mapping[Service, tuple[ProviderHealth, ...]]


class Readiness:
    """Belongs to one event loop. `agents` gives those that calls reach now."""

    def __init__(self, catalogue: Catalogue, clips: Clips, agents: Callable[[], Sequence[AgentVersion]]) -> None:
        self._catalogue = catalogue
        self._clips = clips
        self._agents = agents
        self._variants: dict[str, list[_Variant]] = {}

    def degraded(self) -> dict[str, dict[str, str]]:
        """service/provider -> state of its breaker and kind of its last failure, of those in use that are not well."""
        self._refresh()
        variants_in_use = (one for found in self._variants.values() for one in found)
        in_use = (health for one in variants_in_use for healths in one.healths.values() for health in healths)
        return {
            f"{one.service}/{one.provider}": {"state": one.breaker.state, "last_error": one.last_error}
            for one in in_use
            if one.last_error or one.breaker.state != "closed"
        }

    def problem(self) -> str | None:
        """The first agent that has nobody for a service, in words that anybody may read; None when there is none.

        An agent without a voice is no such one while all its fixed texts are in memory, in whoever's voice: it still
        greets, apologises and puts the caller through.
        """
        for agent in self._refresh():
            for variant in self._variants[agent.id]:
                for service, healths in variant.healths.items():
                    if any(one.can_work for one in healths):
                        continue
                    if service == "tts" and self._clips.covers(variant.voice, variant.settings):
                        continue
                    who = ", ".join(f"{one.provider}: {one.last_error or one.breaker.state}" for one in healths)
                    return f"nobody {_DOES[service]} for agent {agent.slug} ({who})"
        return None

    def _refresh(self) -> Sequence[AgentVersion]:
        agents = self._agents()
        self._variants = {one.id: self._variants.get(one.id) or self._read(one) for one in agents}
        return agents

    def _read(self, agent: AgentVersion) -> list[_Variant]:
        found = []
        for settings in variants(agent.settings):
            candidates = self._catalogue.candidates(settings)
            found.append(_Variant(settings, candidates.voices[0].provider, candidates.healths))
        return found


def variants(settings: AgentSettings) -> list[AgentSettings]:
    """The settings as each channel has them; equal ones once."""
    found: list[AgentSettings] = []
    for channel in CHANNELS:
        one = settings.for_channel(channel)
        if one not in found:
            found.append(one)
    return found
