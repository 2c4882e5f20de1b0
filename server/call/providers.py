"""Who serves one call: chosen when it comes in, the same until it ends."""

from __future__ import annotations

from dataclasses import dataclass

from providers.base import ChatModel, Synthesizer
from server.call.recogniser import Ear


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProviders:
    """Who serves a call: `ears` in the order in which they are tried, and a model and a voice with their fallbacks."""

    ears: tuple[Ear, ...]
    model: ChatModel
    synthesizer: Synthesizer
    phrases: tuple[str, ...] = ()  # what the model expects callers to say, beside the agent's own phrases

    def attach_nowait(self) -> None:
        """A call is about to begin: have connections ready for it."""
        for one in (*(ear.provider for ear in self.ears), self.model, self.synthesizer):
            one.attach_nowait()

    def detach_nowait(self) -> None:
        for one in (*(ear.provider for ear in self.ears), self.model, self.synthesizer):
            one.detach_nowait()
