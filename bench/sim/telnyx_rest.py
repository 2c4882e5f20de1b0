"""Telnyx's Call Control API as far as a call in progress needs it (protocols: Telnyx, sections 2 and 7).

Bearer key, JSON bodies and answers. The call's id in the path must be percent-encoded. A command whose `command_id` was
there before is dropped with a success.
"""

from __future__ import annotations

import json
from typing import Any, Protocol
from urllib.parse import quote, unquote

from bench.sim.rest import JsonServer

PREFIX = "/v2/calls/"
_CODES = {400: "10015", 401: "10009", 404: "10005", 422: "10015", 429: "10011", 500: "10007", 503: "10016"}
CALL_ENDED = "90018"


class Refusal(Exception):
    """A command that is not carried out."""

    def __init__(self, status: int, text: str, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code or _CODES[status]


class CallCommands(Protocol):
    """What the API does to calls; the exchange implements it."""

    def command(self, call_control_id: str, action: str, asked: dict[str, str]) -> None:
        """Take a command. Raises Refusal."""


class RestServer(JsonServer):
    """Serves one account; `requests` holds JSON bodies."""

    def __init__(self, api_key: str, control: CallCommands) -> None:
        super().__init__()
        self._expected = f"Bearer {api_key}"
        self._control = control

    def _asked(self, body: bytes) -> dict[str, str]:
        try:
            value = json.loads(body)
        except ValueError:
            return {}
        return {name: str(one) for name, one in value.items()} if isinstance(value, dict) else {}

    def _is_allowed(self, authorization: str) -> bool:
        return authorization == self._expected

    def _error(self, status: int, message: str) -> dict[str, Any]:
        return _error(_CODES.get(status, "10007"), message)

    def _route(self, method: str, path: str, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        segment, _, action = path.removeprefix(PREFIX).partition("/actions/")
        is_encoded = quote(unquote(segment), safe="") == segment
        if method != "POST" or not path.startswith(PREFIX) or not action or not is_encoded:
            return 404, self._error(404, f"{method} {path} was not found")
        try:
            self._control.command(unquote(segment), action, asked)
        except Refusal as refusal:
            return refusal.status, _error(refusal.code, str(refusal))
        return 200, {"data": {"result": "ok"}}


def _error(code: str, detail: str) -> dict[str, Any]:
    title = "Call has already ended" if code == CALL_ENDED else "Invalid request"
    url = f"https://developers.telnyx.com/docs/overview/errors/{code}"
    return {"errors": [{"code": code, "title": title, "detail": detail, "meta": {"url": url}}]}
