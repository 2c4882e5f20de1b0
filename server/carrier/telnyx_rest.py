"""Commands to a live Telnyx call by Call Control: answer it with a stream, give it a new stream, refuse it, end it.

Each command has a `command_id` that depends on nothing but the call and what is asked, so that Telnyx drops the repeat
of a command whose answer got lost, from whichever process it comes. How often and how long is asked:
server/carrier/rest.py. Only CarrierError comes out.
Source: Telnyx, "Call Control" and "Command retries".
"""

from __future__ import annotations

import random
import uuid
from typing import Any, Literal
from urllib.parse import quote

import httpx
import orjson

from server.carrier.rest import RestClient, RestLimits

API_URL = "https://api.telnyx.com"
ALREADY_OVER_CODE = 90018
"""Call has already ended, with status 422."""

RejectCause = Literal["CALL_REJECTED", "NOT_FOUND", "TEMPORARILY_UNAVAILABLE", "USER_BUSY"]

# G.711 both ways, 20 ms at a time. What the stream really is in is said by its `start`, and believed there.
_STREAM = {
    "stream_track": "inbound_track",
    "stream_codec": "PCMU",
    # Without it Telnyx takes mp3 files only.
    "stream_bidirectional_mode": "rtp",
    "stream_bidirectional_codec": "PCMU",
    "stream_bidirectional_target_legs": "self",
}


class TelnyxRest:
    """One account.

    Args:
        api_key: the bearer token.
        base_url: API_URL or a simulator.
        http: shared client, see RestClient.
    """

    __slots__ = ("_base", "_client", "_headers")

    def __init__(
        self,
        api_key: str,
        base_url: str,
        http: httpx.AsyncClient,
        *,
        limits: RestLimits | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._headers = {"authorization": f"Bearer {api_key}"}
        self._base = f"{base_url.rstrip('/')}/v2/calls"
        self._client = RestClient(http, _error_of, is_already_over, limits=limits, jitter=jitter)

    async def answer(self, call_control_id: str, stream_url: str) -> bool:
        """Answer, and open a stream to `stream_url` both ways; False when the caller has hung up meanwhile."""
        return await self._command(call_control_id, "answer", {"stream_url": stream_url, **_STREAM}, stream_url)

    async def start_stream(self, call_control_id: str, stream_url: str) -> bool:
        """Give an answered call another stream; False when it is already over."""
        body = {"stream_url": stream_url, **_STREAM}
        return await self._command(call_control_id, "streaming_start", body, stream_url)

    async def reject(self, call_control_id: str, cause: RejectCause) -> bool:
        """Refuse a call that has not been answered; False when it is already over."""
        return await self._command(call_control_id, "reject", {"cause": cause})

    async def hang_up(self, call_control_id: str) -> None:
        """End the call. A call that is already over is a success. Raises CarrierError."""
        await self._command(call_control_id, "hangup", {})

    async def _command(self, call_control_id: str, action: str, body: dict[str, str], stream_url: str = "") -> bool:
        # An id of Telnyx holds ":" and may hold anything else.
        url = f"{self._base}/{quote(call_control_id, safe='')}/actions/{action}"
        command_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{url} {stream_url}"))
        content = orjson.dumps({**body, "command_id": command_id})
        headers = {**self._headers, "content-type": "application/json"}
        return await self._client.command(f"call {call_control_id}, {action}", url, content=content, headers=headers)


def is_already_over(status: int, code: int) -> bool:
    """Whether an error answer means that the call has ended, which is what a hang-up wanted."""
    return code == ALREADY_OVER_CODE and 400 <= status < 500


def _error_of(body: bytes) -> tuple[int, str]:
    """The number and words of Telnyx's first error; (0, "") when the body is something else."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return 0, ""
    errors = value.get("errors") if isinstance(value, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return 0, ""
    code, title, detail = first.get("code"), first.get("title"), first.get("detail")
    words = " ".join(one for one in (title, detail) if isinstance(one, str))
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10:
        return int(code), words[:200]
    return 0, words[:200]
