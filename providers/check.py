"""What a probe of a provider found: for the start of a process and `talkspurt doctor --live`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from providers.errors import ProviderError


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One probe, which never raises.

    Args:
        provider: the adapter's name.
        is_reached: the service answered as itself and took the key.
        latency_ms: of the probe's request, on a connection that was ready where the adapter keeps them.
        wanted: the model, deployment or voice that calls will use. is_found: whether it exists; None: not known.
        problem: what is wrong and what to do, in one line; empty when nothing is.
        failure: what the probe failed with; None when the service answered, whatever is wrong with its answer.
    """

    provider: str
    is_reached: bool
    latency_ms: float | None = None
    wanted: str = ""
    is_found: bool | None = None
    problem: str = ""
    failure: ProviderError | None = None

    @property
    def is_well(self) -> bool:
        return self.is_reached and not self.problem


@runtime_checkable
class Checked(Protocol):
    """A provider that knows how to probe its service."""

    async def check(self, model: str = "") -> Check:
        """Reach the service and look for `model`, or for its default one. Never raises."""
