"""Commands to a live Twilio call by REST: end it, give it other TwiML.

    command ── attempt ── 2xx, or already over ──> done
                 │  429, 5xx, no answer: pause (jitter), again, at most RETRIES times
                 └─ anything else ──> CarrierRejected       deadline ──> CarrierUnavailable

Both commands may be sent twice without harm, so an answer that got lost is simply asked for again; creating a call may
not and does not belong here. Guarantees: one deadline over all attempts and pauses; answers are read up to
MAX_ANSWER_BYTES; only CarrierError comes out.
Source: Twilio, "Call resource" and the error dictionary.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from server.carrier.errors import CarrierRejected, CarrierUnavailable

API_URL = "https://api.twilio.com"
API_VERSION = "2010-04-01"
MAX_ANSWER_BYTES = 65536
"""A call resource is 2 KiB."""
MAX_TWIML_CHARS = 4000
ALREADY_OVER_CODES = frozenset({20404, 21220})
"""No such call (any more); call is not in progress, cannot redirect or end it."""

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


class TwilioRest:
    """One account.

    Args:
        account_sid, auth_token: HTTP Basic credentials, also of an API key and its secret.
        base_url: API_URL, a region's host, or a simulator.
        http: shared client; its own timeouts are replaced by `limits`, redirects are not followed.
    """

    __slots__ = ("_auth", "_base", "_http", "_limits", "_random")

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        base_url: str,
        http: httpx.AsyncClient,
        *,
        limits: RestLimits = RestLimits(),
        jitter: random.Random | None = None,
    ) -> None:
        self._auth = httpx.BasicAuth(account_sid, auth_token)
        self._base = f"{base_url.rstrip('/')}/{API_VERSION}/Accounts/{quote(account_sid, safe='')}"
        self._http = http
        self._limits = limits
        self._random = jitter or random.Random()

    async def hang_up(self, call_sid: str) -> None:
        """End the call. A call that is already over is a success. Raises CarrierError."""
        await self._update(call_sid, {"Status": "completed"})

    async def redirect(self, call_sid: str, twiml: bytes) -> bool:
        """Replace what the call runs, an open stream included, by `twiml`; False when the call is already over.

        Raises:
            ValueError: longer than the MAX_TWIML_CHARS that Twilio takes.
            CarrierError: not done.
        """
        text = twiml.decode()
        if len(text) > MAX_TWIML_CHARS:
            raise ValueError(f"TwiML: expected at most {MAX_TWIML_CHARS} characters, got {len(text)}")
        return await self._update(call_sid, {"Twiml": text})

    async def _update(self, call_sid: str, form: Mapping[str, str]) -> bool:
        url = f"{self._base}/Calls/{quote(call_sid, safe='')}.json"
        what = f"call {call_sid}, {next(iter(form))}"
        last = "no attempt"
        try:
            async with asyncio.timeout(self._limits.deadline_ms / 1000):
                for attempt in range(self._limits.retries + 1):
                    pause_ms = self._backoff_ms(attempt)
                    try:
                        status, headers, body = await self._post(url, form)
                    except httpx.RequestError as error:
                        last = f"{type(error).__name__}: {error}"
                    else:
                        if 200 <= status < 300:
                            return True
                        code, message = _error_of(body)
                        if is_already_over(status, code):
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

    async def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, httpx.Headers, bytes]:
        limits = self._limits
        timeout = httpx.Timeout(limits.read_ms / 1000, connect=limits.connect_ms / 1000)
        request = self._http.stream(
            "POST", url, data=dict(form), auth=self._auth, timeout=timeout, follow_redirects=False
        )
        async with request as answer:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    # The status says what we need; the rest of such an answer is not worth its memory.
                    body.clear()
                    break
            return answer.status_code, answer.headers, bytes(body)

    def _backoff_ms(self, attempt: int) -> float:
        """Pause after `attempt` (from 0), with full jitter: processes that failed together do not return together."""
        return self._random.uniform(0, min(self._limits.backoff_ms * 2.0**attempt, self._limits.max_pause_ms))

    def _asked_pause_ms(self, headers: httpx.Headers) -> float:
        value = headers.get("retry-after", "")
        seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0
        return min(seconds * 1000, self._limits.max_pause_ms)


def is_already_over(status: int, code: int) -> bool:
    """Whether an error answer means that there is no such call any more, which is what a hang-up wanted."""
    return code in ALREADY_OVER_CODES and 400 <= status < 500


def _error_of(body: bytes) -> tuple[int, str]:
    """Twilio's error number and words; (0, "") when the body is something else."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return 0, ""
    if not isinstance(value, dict):
        return 0, ""
    code, message = value.get("code"), value.get("message")
    return (code if type(code) is int else 0), (message[:200] if isinstance(message, str) else "")
