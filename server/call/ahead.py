"""A recognition that is opened while the phone rings: the call finds its ears open.

    webhook ─► reserve ─► open() … stream ─► take() ─► the call's first recognition
                            └─ no stream comes: close()

A failure counts for the provider's health, as any other; the call then opens its own.
"""

from __future__ import annotations

import asyncio
import logging

from providers.base import TranscriberConfig
from providers.errors import ProviderError
from server.agent.settings import AgentSettings
from server.call.downlink import wire_format
from server.call.providers import CallProviders
from server.call.recogniser import CLOSE_S, Ear, Opened, common_format, open_stream, transcriber_config
from server.wire.event import MediaFormat

log = logging.getLogger(__name__)


def open_ahead(providers: CallProviders, settings: AgentSettings, fmt: MediaFormat, caller: str) -> OpenedAhead:
    """For a call that will have audio in `fmt`, as its session will ask for it."""
    audio_format = common_format(providers.ears, wire_format(fmt))
    return OpenedAhead(providers.ears[0], transcriber_config(settings, audio_format, caller, providers.phrases))


class OpenedAhead:
    """One promised call's recognition. `open` is awaited by a task of the owner, once."""

    __slots__ = ("_config", "_ear", "_is_done", "_is_over", "_opened")

    def __init__(self, ear: Ear, config: TranscriberConfig) -> None:
        self._ear = ear
        self._config = config
        self._opened: Opened | None = None
        self._is_done = asyncio.Event()
        self._is_over = False

    async def open(self) -> None:
        """Connect. A stream that nobody waits for any more is closed again."""
        try:
            if self._is_over or not self._ear.health.claim():
                return
            try:
                self._opened = await open_stream(self._ear, self._config)
            except ProviderError as error:
                log.info("not opened ahead: %s", error, extra={"event": "not_opened_ahead"})
        finally:
            self._is_done.set()
            if self._is_over:
                await self.close()

    async def take(self, config: TranscriberConfig) -> Opened | None:
        """The stream, as soon as it is open, if it listens as the call needs it; it belongs to the caller then.

        A second connection beside the one under way would be no quicker, and would be refused where the first one is
        a breaker's probe.
        """
        if config != self._config:
            return None
        await self._is_done.wait()
        opened, self._opened = self._opened, None
        return opened

    async def close(self) -> None:
        """Nobody will take it, or it was taken."""
        self._is_over = True
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.attempt.succeeded()  # it connected, and lived until now
            try:
                async with asyncio.timeout(CLOSE_S):
                    await opened.stream.aclose()
            except (TimeoutError, ProviderError) as error:
                log.info("not closed: %s", error, extra={"event": "provider_failed"})
