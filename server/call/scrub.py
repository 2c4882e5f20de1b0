"""What a carrier's message must lose before it is kept: whatever lets its reader do something, and audio if not wanted.

Names and shape stay, so that the message is parsed as it was.
"""

from __future__ import annotations

from typing import Any

import orjson

from server.wire.json import DTMF_DIGITS, MAX_DEPTH

REMOVED = "removed"
DIGITS = frozenset("0123456789")
MASKED_KEY = "1"
"""Stands for each digit that was keyed."""
# Custom parameters carry the stream's secret and whatever else the webhook put there.
_SECRET_KEYS = frozenset(
    ("customParameters", "custom_parameters", "secret", "stream_auth_token", "token", "client_state")
)
_SECRET_OR_SOUND = _SECRET_KEYS | {"payload"}


def scrubbed(message: bytes, *, keeps_audio: bool, keeps_keys: bool) -> str | None:
    """A carrier's text message without what must not be kept; None for one that cannot be read: it may hold anything.

    keeps_audio: whether payloads stay. keeps_keys: whether it stays which key was pressed.
    """
    secret = _SECRET_KEYS if keeps_audio else _SECRET_OR_SOUND
    try:
        return orjson.dumps(_scrub(orjson.loads(message), secret, keeps_keys, MAX_DEPTH)).decode()
    except (orjson.JSONDecodeError, RecursionError):
        return None


def key_masked(value: Any) -> Any:
    """One pressed digit as another one; * # A B C D are no part of a number and stay. What is no key is removed."""
    if value is None or (isinstance(value, str) and value in DTMF_DIGITS):
        return MASKED_KEY if value in DIGITS else value
    return REMOVED


def _scrub(value: Any, secret: frozenset[str], keeps_keys: bool, depth: int) -> Any:
    if depth < 0:
        raise RecursionError("deeper than carriers nest")
    if isinstance(value, dict):
        made = {
            key: _blank(one, depth - 1) if key in secret else _scrub(one, secret, keeps_keys, depth - 1)
            for key, one in value.items()
        }
        if not keeps_keys and "digit" in made:
            made["digit"] = key_masked(made["digit"])
        return made
    return [_scrub(one, secret, keeps_keys, depth - 1) for one in value] if isinstance(value, list) else value


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
