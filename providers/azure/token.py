"""Short-lived tokens in place of the key, fetched from the account's token service.

A token lives for ten minutes and is used for nine. Calls that go on longer get the next one put into their recogniser,
because the service moves long streams to new connections.
"""

from __future__ import annotations

import asyncio

import httpx

from providers.azure.options import AzureSpeechOptions
from providers.errors import ProviderRejected, ProviderTimeout, ProviderUnavailable

USE_S = 540
FETCH_MS = 2000


class TokenSource:
    """The account's token; empty when the key itself is to be sent. Belongs to one event loop."""

    __slots__ = ("_fetched_s", "_lock", "_options", "_provider", "_token")

    def __init__(self, options: AzureSpeechOptions, provider: str) -> None:
        self._options = options
        self._provider = provider
        self._token = ""
        self._fetched_s = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> str:
        """A token that is good for a minute at least. One fetch serves all who wait. Raises ProviderError."""
        if not self._options.use_token:
            return ""
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if not self._token or now_s - self._fetched_s >= USE_S:
                self._token = await self._fetch()
                self._fetched_s = now_s
            return self._token

    async def _fetch(self) -> str:
        headers = {"Ocp-Apim-Subscription-Key": self._options.key}
        try:
            async with asyncio.timeout(FETCH_MS / 1000), httpx.AsyncClient(timeout=None) as client:
                answer = await client.post(self._options.token_url, headers=headers, content=b"")
        except TimeoutError:
            raise ProviderTimeout("connect", FETCH_MS, provider=self._provider) from None
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"token: {error}", provider=self._provider) from error
        if answer.status_code >= 500:
            raise ProviderUnavailable(f"token: HTTP {answer.status_code}", provider=self._provider)
        if answer.status_code != 200 or not answer.text.strip():
            raise ProviderRejected(
                f"token: HTTP {answer.status_code}", status=answer.status_code, provider=self._provider
            )
        return answer.text.strip()
