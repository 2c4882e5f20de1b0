"""What a carrier's message must lose before it is kept: whatever lets its reader do something, and audio if not wanted.

Names and shape stay, so that the message is parsed as it was.
"""

from __future__ import annotations

from typing import Any

import orjson

from server.wire.json import MAX_DEPTH

REMOVED = "removed"
# Custom parameters carry the stream's secret and whatever else the webhook put there.
_SECRET_KEYS = frozenset(
    ("customParameters", "custom_parameters", "secret", "stream_auth_token", "token", "client_state")
)


def scrubbed(message: bytes, *, keeps_audio: bool) -> str | None:
    """A carrier's text message without what must not be kept; None for one that cannot be read: it may hold anything.

    keeps_audio: whether payloads stay.
    """
    try:
        return orjson.dumps(_scrub(orjson.loads(message), keeps_audio, MAX_DEPTH)).decode()
    except (orjson.JSONDecodeError, RecursionError):
        return None


def _scrub(value: Any, keeps_audio: bool, depth: int) -> Any:
    if depth < 0:
        raise RecursionError("deeper than carriers nest")
    if isinstance(value, dict):
        return {
            key: _blank(one, depth - 1)
            if key in _SECRET_KEYS or (key == "payload" and not keeps_audio)
            else _scrub(one, keeps_audio, depth - 1)
            for key, one in value.items()
        }
    return [_scrub(one, keeps_audio, depth - 1) for one in value] if isinstance(value, list) else value


def _blank(value: Any, depth: int) -> Any:
    """The same shape and names, so that it is parsed as it was. A number may be a secret as a text is: a PIN."""
    if depth < 0:
        raise RecursionError("deeper than carriers nest")
    if isinstance(value, dict):
        return {key: _blank(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_parameter(one, depth - 1) for one in value]
    return value if value is None else REMOVED


def _parameter(value: Any, depth: int) -> Any:
    """One of a list: Telnyx has the name of a parameter beside its value."""
    blank = _blank(value, depth)
    if isinstance(blank, dict) and isinstance(value.get("name"), str):
        blank["name"] = value["name"]
    return blank
