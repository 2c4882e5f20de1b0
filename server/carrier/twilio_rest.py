"""Commands to a live Twilio call by REST: end it, give it other TwiML.

Both commands may be sent twice without harm; creating a call may not and does not belong here. How often and how long
is asked: server/carrier/rest.py. Only CarrierError comes out.
Source: Twilio, "Call resource" and the error dictionary.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from server.carrier.rest import RestClient, RestLimits

API_URL = "https://api.twilio.com"
API_VERSION = "2010-04-01"
MAX_TWIML_CHARS = 4000
ALREADY_OVER_CODES = frozenset({20404, 21220})
"""No such call (any more); call is not in progress, cannot redirect or end it."""


class TwilioRest:
    """One account.

    Args:
        account_sid, auth_token: HTTP Basic credentials, also of an API key and its secret.
        base_url: API_URL, a region's host, or a simulator.
        http: shared client, see RestClient.
    """

    __slots__ = ("_auth", "_base", "_client")

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        base_url: str,
        http: httpx.AsyncClient,
        *,
        limits: RestLimits | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._auth = httpx.BasicAuth(account_sid, auth_token)
        self._base = f"{base_url.rstrip('/')}/{API_VERSION}/Accounts/{quote(account_sid, safe='')}"
        self._client = RestClient(http, _error_of, is_already_over, limits=limits, jitter=jitter)

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
        return await self._client.command(what, url, data=dict(form), auth=self._auth)


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
