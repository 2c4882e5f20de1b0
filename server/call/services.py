"""What a call is about, and what all calls of the process share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from server.agent.settings import AgentSettings, Channel
from server.call.capture import CaptureStore
from server.call.clips import Clips
from server.call.pacer import Pacer
from server.call.scoring import SpeechScoring
from server.clock import Clock
from server.metrics import Metrics
from server.store.spool import Spool
from server.tool.runner import ToolRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """Who talks to whom. `call_id` is ours (UUID), `carrier_call_id` the carrier's."""

    call_id: str
    carrier: str
    carrier_call_id: str
    from_number: str
    to_number: str
    agent_version_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallServices:
    """What every call of the process shares."""

    clock: Clock
    pacer: Pacer
    scoring: SpeechScoring
    clips: Clips
    metrics: Metrics
    spool: Spool
    hang_up: Callable[[CallFacts], Awaitable[None]]
    # Puts the call through to a number; False: it was already over. Raises CarrierError.
    hand_over: Callable[[CallFacts, str], Awaitable[bool]]
    captures: CaptureStore
    tools: ToolRunner
    lead_ms: int
    chunk_ms: int
    # What a call of that channel is served with.
    settings_for: Callable[[AgentSettings, Channel], AgentSettings] = AgentSettings.for_channel
