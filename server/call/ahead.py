"""A recognition that is opened while the phone rings: the call finds its ears open.

    webhook ─► reserve ─► open() … stream ─► take() ─► the call's first recognition
                            └─ no stream comes: close()

What fails here is not told: the call opens its own and learns of it then.
"""

from __future__ import annotations

import asyncio
import logging

from providers.base import TranscriberConfig, TranscriptStream
from providers.errors import ProviderError
from server.agent.settings import AgentSettings
from server.call.downlink import wire_format
from server.call.providers import CallProviders
from server.call.recogniser import CLOSE_S, OPEN_MS, Ear, common_format, transcriber_config
from server.wire.event import MediaFormat

log = logging.getLogger(__name__)


def open_ahead(providers: CallProviders, settings: AgentSettings, fmt: MediaFormat, caller: str) -> OpenedAhead:
    """For a call that will have audio in `fmt`, as its session will ask for it."""
    audio_format = common_format(providers.ears, wire_format(fmt))
    return OpenedAhead(providers.ears[0], transcriber_config(settings, audio_format, caller, providers.phrases))


class OpenedAhead:
    """One promised call's recognition. `open` is awaited by a task of the owner, once."""

    __slots__ = ("_config", "_ear", "_is_over", "_stream")

    def __init__(self, ear: Ear, config: TranscriberConfig) -> None:
        self._ear = ear
        self._config = config
        self._stream: TranscriptStream | None = None
        self._is_over = False

    async def open(self) -> None:
        """Connect. A stream that nobody waits for any more is closed again."""
        if not self._ear.health.allows():
            return
        try:
            async with asyncio.timeout(OPEN_MS / 1000):
                stream = await self._ear.provider.open(self._config)
        except (TimeoutError, ProviderError) as error:
            log.info("not opened ahead: %s", error, extra={"event": "not_opened_ahead"})
            return
        if self._is_over:
            await stream.aclose()
        else:
            self._stream = stream

    def take(self, config: TranscriberConfig) -> TranscriptStream | None:
        """The open stream, if it is there and listens as the call needs it; it belongs to the caller then."""
        if config != self._config:
            return None
        self._is_over = True
        stream, self._stream = self._stream, None
        return stream

    async def close(self) -> None:
        """Nobody will take it."""
        self._is_over = True
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await stream.aclose()
            except (TimeoutError, ProviderError) as error:
                log.info("not closed: %s", error, extra={"event": "provider_failed"})
