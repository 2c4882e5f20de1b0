"""Reading one variable: what it must look like, and the ConfigError that names it when it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from server.errors import ConfigError

# Paths are put after these.
_PLAIN_URLS = ("PUBLIC_URL", "TWILIO_API_URL", "TELNYX_API_URL")

Network = IPv4Network | IPv6Network
Fields = dict[str, tuple[str, Callable[[str, str], Any]]]


def read(env: Mapping[str, str], fields: Fields) -> dict[str, Any]:
    """Keyword arguments for the variables that are set; the others keep the default of their field."""
    return {name: parse(variable, env[variable]) for name, (variable, parse) in fields.items() if variable in env}


def text(_variable: str, text: str) -> str:
    return text


def lower(_variable: str, text: str) -> str:
    return text.lower()


def base_url(_variable: str, text: str) -> str:
    return text.rstrip("/")


def texts(_variable: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())


def networks(variable: str, text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        expected = "networks like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7, comma-separated"
        raise ConfigError(variable, expected, text) from error


def whole(variable: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ConfigError(variable, "a whole number", text)
    return int(text)


def flag(variable: str, text: str) -> bool:
    if text.lower() in ("1", "on", "true", "yes"):
        return True
    if text.lower() in ("0", "off", "false", "no"):
        return False
    raise ConfigError(variable, "on or off", text)


def check_range(variable: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(variable, f"a whole number from {low} to {high}", str(value))


def check_one_of(variable: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ConfigError(variable, f"one of {', '.join(accepted)}", value)


def check_url(name: str, url: str, schemes: tuple[str, ...], example: str) -> None:
    """Refuse what cannot be a URL of these schemes. The value is not shown: it may hold a password."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in schemes and bool(parts.netloc or parts.path) and (parts.port or 1) > 0
    except ValueError:
        named = False
    if not named or any(c.isspace() for c in url):
        raise ConfigError(name, f"a URL like {example}")
    if name in _PLAIN_URLS and (not parts.netloc or parts.query or parts.fragment):
        raise ConfigError(name, f"a URL like {example}, without a query", url)
