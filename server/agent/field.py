"""The kinds of settings, as fields of a dataclass: what is allowed and what it means is in the field's metadata.

`server/agent/settings.py` checks values by it, `server/agent/describe.py` makes the operators' table of it.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

# RFC 5646, 2.1, without the tags that are older than it: language, script, region, variants, extensions, private use.
LANGUAGE_TAG = (
    r"(?i:[a-z]{2,3}(-[a-z]{3}){0,3}(-[a-z]{4})?(-([a-z]{2}|[0-9]{3}))?"
    r"(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(-[0-9a-wy-z](-[a-z0-9]{2,8})+)*(-x(-[a-z0-9]{1,8})+)?)"
)


def ranged(default: float, low: float, high: float, doc: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "doc": doc})


def text(default: str, doc: str, max_chars: int = 2000) -> Any:
    return field(default=default, metadata={"max_chars": max_chars, "doc": doc})


def pattern(default: str, regex: str, doc: str, form: str = "", max_chars: int = 80) -> Any:
    """`form` says in words what `regex` takes; the default is taken too."""
    return field(default=default, metadata={"max_chars": max_chars, "pattern": regex, "form": form, "doc": doc})


def language(default: str, doc: str) -> Any:
    return pattern(default, LANGUAGE_TAG, doc, "a BCP 47 tag like en-US", 35)


def http_url(default: str, doc: str) -> Any:
    return pattern(default, r"(?i:https?)://[^\s/?#]+\S*", doc, "an http or https URL", 500)


def one_of(default: str, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


def flag(default: bool, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


def texts(doc: str, max_items: int = 100) -> Any:
    return field(default=(), metadata={"max_items": max_items, "max_chars": 200, "doc": doc})


def mapping(doc: str) -> Any:
    return field(default_factory=dict, metadata={"doc": doc})


def records(doc: str, max_items: int) -> Any:
    """A list of groups, each with the settings of the field's own dataclass."""
    return field(default=(), metadata={"max_items": max_items, "doc": doc})
