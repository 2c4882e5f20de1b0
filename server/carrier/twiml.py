"""The TwiML documents that we answer Twilio with. Nothing else writes TwiML.

Guarantees: well-formed UTF-8 whatever the arguments hold; the same arguments give the same bytes, so a repeated webhook
gets a repeated answer. Element and attribute names are case sensitive (Twilio, TwiML).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

CONTENT_TYPE = "text/xml; charset=utf-8"
MAX_PARAMETER_CHARS = 499
"""Twilio: name and value of a <Parameter> together are below 500 characters."""
MAX_PARAMETERS = 99

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
# XML 1.0, production 2: what may stand in a document at all, even as a reference.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

RejectReason = Literal["busy", "rejected"]


def connect_stream(
    stream_url: str,
    parameters: Mapping[str, str],
    action_url: str,
    status_callback_url: str,
    *,
    name: str = "",
) -> bytes:
    """Give the call to a bidirectional media stream.

    Args:
        stream_url: wss without a query (Twilio refuses one, error 31920); ws works with a simulator only.
        parameters: arrive as `customParameters` of `start`; readable by whoever can read this answer.
        action_url: asked what to do next when our side has closed the stream.
        status_callback_url: told when the stream starts, stops or fails.
        name: of the stream, unique within the call; empty for none.
    Raises:
        ValueError: the URL is not usable, or a parameter is longer than Twilio takes or not XML text.
    """
    parts = urlsplit(stream_url)
    if parts.scheme not in ("wss", "ws") or not parts.hostname or "?" in stream_url or "#" in stream_url:
        raise ValueError(f"stream URL: expected wss://host/path without a query, got {stream_url!r}")
    if len(parameters) > MAX_PARAMETERS:
        raise ValueError(f"parameters: expected at most {MAX_PARAMETERS}, got {len(parameters)}")
    for key, value in parameters.items():
        if len(key) + len(value) > MAX_PARAMETER_CHARS or _NOT_XML.search(key + value):
            # The value may be a secret: only its name is told.
            raise ValueError(f"parameter {key!r}: expected at most {MAX_PARAMETER_CHARS} characters of XML text")
    inner = "".join(_tag("Parameter", name=key, value=value) for key, value in parameters.items())
    stream = _tag(
        "Stream",
        inner,
        url=stream_url,
        name=name or None,
        statusCallback=status_callback_url,
        statusCallbackMethod="POST",
    )
    return _document(_tag("Connect", stream, action=action_url, method="POST"))


def reject(reason: RejectReason) -> bytes:
    """Refuse a call that has not been answered: the caller hears a busy tone or "not in service", nobody pays."""
    return _document(_tag("Reject", reason=reason))


def hang_up() -> bytes:
    """End the call."""
    return _document(_tag("Hangup"))


def say_and_hang_up(text: str, language: str) -> bytes:
    """Speak `text` by the carrier's own voice in `language` (BCP 47), then end the call.

    Characters that XML does not have are left out: an apology must not fail on them.
    """
    return _document(_tag("Say", escape(_NOT_XML.sub("", text)), language=language), _tag("Hangup"))


def dial(number: str, action_url: str, *, timeout_s: int) -> bytes:
    """Put the call through to `number` (E.164), which rings for `timeout_s`; `action_url` is asked what follows."""
    attributes = {"answerOnBridge": "true", "timeout": str(timeout_s), "action": action_url, "method": "POST"}
    return _document(_tag("Dial", _tag("Number", escape(_NOT_XML.sub("", number))), **attributes))


def _document(*verbs: str) -> bytes:
    return f"{_HEAD}<Response>{''.join(verbs)}</Response>".encode()


def _tag(element: str, inner: str = "", /, **attributes: str | None) -> str:
    """One element; `inner` is markup, attribute values are text."""
    written = "".join(
        f" {key}={quoteattr(_NOT_XML.sub('', value))}" for key, value in attributes.items() if value is not None
    )
    return f"<{element}{written}>{inner}</{element}>" if inner else f"<{element}{written}/>"
