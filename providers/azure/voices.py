"""The voices that the account may use, as the service lists them now.

    voices(language="es", gender="Female") ─► cached list ─ or ─► GET …/voices/list (about 500 voices, 300 KB)

One fetch serves all who wait, the list is kept for some time, and an outage falls back to the list that was kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from providers.azure.options import AzureSpeechOptions
from providers.azure.token import TokenSource
from providers.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)

FETCH_MS = 5000
MAX_LIST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One voice. `name` is what an agent's settings hold.

    `gender` is Female, Male or Neutral; `status` GA, Preview or Deprecated; `languages` are those that it speaks
    besides its own; `rate_hz` is its native rate.
    """

    name: str
    display_name: str
    locale: str
    gender: str
    styles: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    status: str = ""
    rate_hz: int = 0
    words_per_minute: int = 0

    def speaks(self, language: str) -> bool:
        """Whether it speaks a BCP 47 tag; a bare language ("es") means any region of it."""
        wanted = language.lower()
        return any(one.lower() == wanted or one.lower().split("-")[0] == wanted
                   for one in (self.locale, *self.languages))  # fmt: skip


class AzureVoices:
    """The catalogue of one account. Belongs to one event loop."""

    __slots__ = ("_client", "_fetched_s", "_lock", "_options", "_tokens", "_voices", "name")

    def __init__(self, options: AzureSpeechOptions) -> None:
        self.name = "azure"
        self._options = options
        self._tokens = TokenSource(options, self.name)
        self._client = httpx.AsyncClient(timeout=None)
        self._lock = asyncio.Lock()
        self._voices: tuple[Voice, ...] = ()
        self._fetched_s = 0.0

    async def voices(
        self, *, language: str = "", gender: str = "", style: str = "", status: str = ""
    ) -> Sequence[Voice]:
        """Voices that match everything that is given, in the service's order; case does not matter.

        Raises:
            ProviderError: the list cannot be had and none was kept.
        """
        every = await self._all()
        return [
            one
            for one in every
            if (not language or one.speaks(language))
            and (not gender or one.gender.lower() == gender.lower())
            and (not style or style.lower() in (known.lower() for known in one.styles))
            and (not status or one.status.lower() == status.lower())
        ]

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _all(self) -> Sequence[Voice]:
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if self._voices and now_s - self._fetched_s < self._options.voices_ttl_s:
                return self._voices
            try:
                self._voices = await self._fetch()
                self._fetched_s = now_s
            except ProviderError as error:
                if not self._voices or not error.retryable:
                    raise
            return self._voices

    async def _fetch(self) -> tuple[Voice, ...]:
        url = f"{self._options.synthesis_url}/cognitiveservices/voices/list"
        body = b""
        try:
            async with asyncio.timeout(FETCH_MS / 1000):
                token = await self._tokens.get()
                own = {"Authorization": f"Bearer {token}"} if token else {
                    "Ocp-Apim-Subscription-Key": self._options.key
                }  # fmt: skip
                async with self._client.stream("GET", url, headers=own) as answer:
                    self._check(answer.status_code)
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if len(body) > MAX_LIST_BYTES:
                            raise ProviderProtocolError(f"voices: more than {MAX_LIST_BYTES} bytes", provider=self.name)
        except TimeoutError:
            raise ProviderTimeout("total", FETCH_MS, provider=self.name) from None
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"voices: {error!r}", provider=self.name) from error
        return self._parse(body)

    def _check(self, status: int) -> None:
        if status >= 500:
            raise ProviderUnavailable(f"voices: HTTP {status}", provider=self.name)
        if status != 200:
            raise ProviderRejected(f"voices: HTTP {status}", status=status, provider=self.name)

    def _parse(self, body: bytes) -> tuple[Voice, ...]:
        try:
            rows = orjson.loads(body)
            if not isinstance(rows, list):
                raise TypeError(f"expected a list, got {type(rows).__name__}")
            return tuple(_voice(row) for row in rows)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderProtocolError(f"voices: not the list expected: {error!r}", provider=self.name) from error


def _voice(row: dict[str, Any]) -> Voice:
    name, locale = row["ShortName"], row["Locale"]
    if not (isinstance(name, str) and isinstance(locale, str)):
        raise TypeError(f"expected names, got {name!r}, {locale!r}")
    return Voice(
        name=name,
        display_name=row.get("DisplayName", name),
        locale=locale,
        gender=row.get("Gender", ""),
        styles=tuple(row.get("StyleList") or ()),
        roles=tuple(row.get("RolePlayList") or ()),
        languages=tuple(row.get("SecondaryLocaleList") or ()),
        status=row.get("Status", ""),
        rate_hz=int(row.get("SampleRateHertz") or 0),
        words_per_minute=int(row.get("WordsPerMinute") or 0),
    )
