"""TALKSPURT_TEST_BREAK: a server that is broken on purpose, for tests of what must notice it.

It is refused wherever a call of somebody else could come: carriers do not reach a loopback address, nobody resolves a
name of the domain `.test` (RFC 6761), and a carrier whose API is on this machine is a simulator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from server.errors import ConfigError

VARIABLE = "TALKSPURT_TEST_BREAK"
Breakage = Literal["", "pacer", "vad", "barge_in", "turn_in_fifty"]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_nobody_calls(host: str, public_url: str, api_urls: Iterable[str]) -> None:
    """Raises ConfigError unless only this machine can call: `api_urls` are those of the carriers that are served."""
    public = urlsplit(public_url).hostname or "localhost"
    hosts = (host, *(urlsplit(url).hostname for url in api_urls))
    if not (public in LOOPBACK or public.endswith(".test")) or any(one not in LOOPBACK for one in hosts):
        raise ConfigError(
            VARIABLE,
            "nothing where calls can come: HOST and the carriers' API on loopback, PUBLIC_URL there or in .test",
        )
