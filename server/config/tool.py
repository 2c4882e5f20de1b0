"""What the tools of agents may use: secrets by name, and the hosts that are not on the internet."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.config.read import Fields, read, texts
from server.errors import ConfigError

VARIABLES: tuple[str, ...] = ("TOOL_SECRETS", "TOOL_PRIVATE_HOSTS")
SECRET_MIN_CHARS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConfig:
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # name -> what the header carries
    private_hosts: tuple[str, ...] = ()  # may be at private addresses, and may be asked by plain http

    def __post_init__(self) -> None:
        for host in self.private_hosts:
            if not re.fullmatch(r"[A-Za-z0-9.\-]+|[0-9A-Fa-f:]+", host):
                raise ConfigError("TOOL_PRIVATE_HOSTS", "names or addresses without port, comma-separated", host)
        for name, secret in self.secrets.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                raise ConfigError("TOOL_SECRETS", "names of letters, digits, _ and -")
            if len(secret.strip()) < SECRET_MIN_CHARS or not secret.isascii() or not secret.isprintable():
                raise ConfigError("TOOL_SECRETS", f"at least {SECRET_MIN_CHARS} printable characters for {name}")

    @property
    def hidden(self) -> tuple[str, ...]:
        """Each secret, and its last word: what stands after `Bearer`."""
        parts = (part for secret in self.secrets.values() for part in (secret, secret.split()[-1]))
        return tuple(dict.fromkeys(part for part in parts if len(part) >= SECRET_MIN_CHARS))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ToolConfig:
        fields: Fields = {"secrets": ("TOOL_SECRETS", _named), "private_hosts": ("TOOL_PRIVATE_HOSTS", texts)}
        return cls(**read(env, fields))


def _named(variable: str, text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        # The value is not shown: it holds secrets.
        raise ConfigError(variable, 'a JSON object of texts, like {"crm": "Bearer abc123"}')
    return found
