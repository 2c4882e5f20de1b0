"""A command to a carrier by REST, asked again while that can help.

    command ── attempt ── 2xx, or already over ──> done
                 │  429, 5xx, no answer: pause (jitter), again, at most RETRIES times
                 └─ anything else ──> CarrierRejected       deadline ──> CarrierUnavailable

Only for commands that may be sent twice without harm: an answer that got lost is simply asked for again. Guarantees:
one deadline over all attempts and pauses; answers are read up to MAX_ANSWER_BYTES; only CarrierError comes out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from server.carrier.errors import CarrierRejected, CarrierUnavailable

MAX_ANSWER_BYTES = 65536
"""A call resource is 2 KiB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestLimits:
    """`deadline_ms` bounds a whole command; an attempt is bounded by what is left of it and by its own parts."""

    connect_ms: int = 1000
    read_ms: int = 2000  # an update takes 0.5 s; two attempts that get no answer fit the deadline
    deadline_ms: int = 5000  # a caller waits in silence meanwhile
    retries: int = 3
    backoff_ms: int = 250  # longest pause before the first retry, doubled for each; drawn evenly from 0 up
    max_pause_ms: int = 2000  # however long Retry-After asks for


class RestClient:
    """Carries commands out for one account.

    Args:
        http: shared client; its own timeouts are replaced by `limits`, redirects are not followed.
        error_of: the carrier's error number and words in the body of an error answer; (0, "") when it has none.
        is_over: whether (status, code) means that there is no such call any more.
    """

    __slots__ = ("_error_of", "_http", "_is_over", "_limits", "_random")

    def __init__(
        self,
        http: httpx.AsyncClient,
        error_of: Callable[[bytes], tuple[int, str]],
        is_over: Callable[[int, int], bool],
        *,
        limits: RestLimits | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._http = http
        self._error_of = error_of
        self._is_over = is_over
        self._limits = limits or RestLimits()
        self._random = jitter or random.Random()

    async def command(self, what: str, url: str, **request: Any) -> bool:
        """POST until it is done; False when the call is already over. Raises CarrierError.

        Args:
            what: names the command in log and error.
            request: body and credentials, as httpx takes them.
        """
        last = "no attempt"
        try:
            async with asyncio.timeout(self._limits.deadline_ms / 1000):
                for attempt in range(self._limits.retries + 1):
                    pause_ms = self.backoff_ms(attempt)
                    try:
                        status, headers, body = await self._post(url, request)
                    except httpx.RequestError as error:
                        last = f"{type(error).__name__}: {error}"
                    else:
                        if 200 <= status < 300:
                            return True
                        code, message = self._error_of(body)
                        if self._is_over(status, code):
                            log.info("%s: already over (%d/%d)", what, status, code)
                            return False
                        if status != 429 and status < 500:
                            raise CarrierRejected(f"{what}: {status}/{code} {message}", status=status, code=code)
                        last = f"{status}/{code} {message}"
                        pause_ms = max(pause_ms, self._asked_pause_ms(headers))
                    if attempt < self._limits.retries:
                        log.warning("%s: %s, trying again in %d ms", what, last, pause_ms)
                        await asyncio.sleep(pause_ms / 1000)
        except TimeoutError:
            last = f"no answer within {self._limits.deadline_ms} ms; before: {last}"
        raise CarrierUnavailable(f"{what}: {last}")

    def backoff_ms(self, attempt: int) -> float:
        """Pause after `attempt` (from 0), with full jitter: processes that failed together do not return together."""
        return self._random.uniform(0, min(self._limits.backoff_ms * 2.0**attempt, self._limits.max_pause_ms))

    async def _post(self, url: str, request: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        limits = self._limits
        timeout = httpx.Timeout(limits.read_ms / 1000, connect=limits.connect_ms / 1000)
        async with self._http.stream("POST", url, timeout=timeout, follow_redirects=False, **request) as answer:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    # The status says what we need; the rest of such an answer is not worth its memory.
                    body.clear()
                    break
            return answer.status_code, answer.headers, bytes(body)

    def _asked_pause_ms(self, headers: httpx.Headers) -> float:
        value = headers.get("retry-after", "")
        seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0
        return min(seconds * 1000, self._limits.max_pause_ms)
