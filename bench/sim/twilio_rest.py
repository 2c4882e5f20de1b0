"""Twilio's REST API as far as a call in progress needs it (protocols: Twilio, sections 6 and 7.1).

Basic auth, form bodies, JSON answers in Twilio's error form.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qs

from bench.sim.rest import JsonServer

_CODES = {400: 20001, 401: 20003, 404: 20404, 429: 20429, 500: 20500, 503: 20503}


class CallControl(Protocol):
    """What the API does to calls; the exchange implements it."""

    def find_call(self, sid: str) -> dict[str, Any] | None:
        """The call resource, None when there is no such call."""

    def update_call(self, sid: str, form: dict[str, str]) -> tuple[int, str]:
        """Apply an update; (200, "") or an HTTP status with a message."""


class RestServer(JsonServer):
    """Serves one account; `requests` holds forms."""

    def __init__(self, account_sid: str, auth_token: str, control: CallControl) -> None:
        super().__init__()
        self._account_sid = account_sid
        self._expected = "Basic " + base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._control = control

    def _asked(self, body: bytes) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}

    def _is_allowed(self, authorization: str) -> bool:
        return authorization == self._expected

    def _headers(self) -> Mapping[str, str]:
        return {
            "twilio-concurrent-requests": "1",
            "twilio-request-id": f"RQ{secrets.token_hex(16)}",
            "twilio-request-duration": "0.010",
        }

    def _error(self, status: int, message: str) -> dict[str, Any]:
        return _error(status, message)

    def _route(self, method: str, path: str, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        prefix = f"/2010-04-01/Accounts/{self._account_sid}/Calls/"
        sid = path.removeprefix(prefix).removesuffix(".json")
        missing = f"The requested resource {path} was not found"
        if not path.startswith(prefix) or not path.endswith(".json") or "/" in sid:
            return 404, _error(404, missing)
        if self._control.find_call(sid) is None:
            return 404, _error(404, missing)
        if method == "POST":
            status, message = self._control.update_call(sid, asked)
            if status != 200:
                return status, _error(status, message or missing)
        resource = self._control.find_call(sid)
        assert resource is not None
        return 200, resource


def _error(status: int, message: str) -> dict[str, Any]:
    code = _CODES.get(status, 20000 + status)
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more, "status": status}
