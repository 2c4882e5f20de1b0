"""One call of a tool by HTTP: its request, its attempts within one deadline, and what comes back as text.

    arguments ─► JSON body, or query ─► attempt ─ 2xx ──────────────────────────► the answer's text
                                           │ 429, 5xx, no answer: again, if it may be repeated
                                           └─ anything else, or the deadline ──► ToolFailed, in words for the model

Answers are read up to MAX_ANSWER_BYTES, uncompressed; redirects are not followed; proxies of the environment are not
used. Every attempt carries the same Idempotency-Key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import certifi
import httpcore

from server.agent.tool_settings import REDACTED, ToolSettings
from server.tool.address import AddressRefused, GuardedNetwork

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 65536
MAX_SHOWN_CHARS = 300
PAUSE_S = 0.2
"""Longest before the first repeat, doubled for each; drawn evenly."""
CONNECTIONS = 100
KEPT_S = 30.0


class ToolFailed(Exception):
    """It was not done, or nobody knows; the text says what the model may know of it.

    `kind`: refused (never sent), rejected (the server said no), failed (5xx), timeout, unreachable.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    status: int
    attempts: int


class HttpTools:
    """Calls tools for all calls of the process.

    Args:
        secrets: name -> what is sent; agents hold the names only.
        private_hosts: hosts that may be at private addresses and may speak plain http.
    """

    def __init__(self, secrets: Mapping[str, str], private_hosts: Collection[str]) -> None:
        self._secrets = dict(secrets)
        self._private_hosts = frozenset(one.lower() for one in private_hosts)
        self._network = GuardedNetwork(self._private_hosts)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_trust(),
            max_connections=CONNECTIONS,
            keepalive_expiry=KEPT_S,
            network_backend=self._network,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
        self._network.close()

    def problem(self, tool: ToolSettings) -> str:
        """Why this process cannot carry `tool` out, whatever its arguments; empty when it can try."""
        if tool.secret and tool.secret not in self._secrets:
            return f"TOOL_SECRETS has no entry {tool.secret}"
        parts = urlsplit(tool.url)
        if parts.scheme.lower() != "https" and parts.hostname not in self._private_hosts:
            return f"{parts.hostname} may be reached by https only (TOOL_PRIVATE_HOSTS)"
        return "user names in a URL are not sent" if parts.username is not None else ""

    async def call(self, tool: ToolSettings, arguments: Mapping[str, Any], key: str) -> Answer:
        """Carry it out. `key` is the same for all attempts of one call. Raises ToolFailed."""
        if problem := self.problem(tool):
            raise ToolFailed("refused", problem)
        attempts = 0
        try:
            async with asyncio.timeout(tool.timeout_ms / 1000):
                while True:
                    attempts += 1
                    try:
                        status, text = await self._attempt(tool, arguments, key)
                    except AddressRefused as error:
                        raise ToolFailed("refused", str(error)) from None
                    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
                        failure = ToolFailed("unreachable", f"no answer ({type(error).__name__})")
                    else:
                        if tool.secret:
                            text = text.replace(self._secrets[tool.secret], REDACTED)  # a server may repeat it
                        if 200 <= status < 300:
                            return Answer(text, status, attempts)
                        kind = "failed" if status >= 500 or status == 429 else "rejected"
                        failure = ToolFailed(kind, f"HTTP {status} {text[:MAX_SHOWN_CHARS]}".rstrip())
                    if attempts > tool.retries or failure.kind == "rejected" or not tool.may_repeat:
                        raise failure
                    await asyncio.sleep(random.uniform(0, PAUSE_S * 2 ** (attempts - 1)))
        except TimeoutError:
            raise ToolFailed("timeout", f"no answer within {tool.timeout_ms} ms: it may have been done") from None

    async def _attempt(self, tool: ToolSettings, arguments: Mapping[str, Any], key: str) -> tuple[int, str]:
        url, content = tool.url, b""
        headers: dict[bytes | str, bytes | str] = {
            "accept": "application/json, text/plain",
            "accept-encoding": "identity",
            "user-agent": "talkspurt",
            "idempotency-key": key,
        }
        if tool.method in ("GET", "DELETE"):
            query = urlencode({name: _plain(value) for name, value in arguments.items()})
            url += ("&" if "?" in url else "?") + query if query else ""
        else:
            content = json.dumps(dict(arguments), ensure_ascii=False).encode()
            headers |= {"content-type": "application/json", "content-length": str(len(content))}
        if tool.secret:
            headers[tool.secret_header] = self._secrets[tool.secret]
        async with self._pool.stream(tool.method, url, headers=headers, content=content or None) as response:
            if response.status // 100 == 2 and _header(response, b"content-encoding") not in (b"", b"identity"):
                raise ToolFailed("rejected", "the answer is compressed")
            body = b""
            async for piece in response.aiter_stream():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise ToolFailed("rejected", f"the answer is longer than {MAX_ANSWER_BYTES >> 10} KiB")
            return response.status, body.decode("utf-8", "replace").strip()


def _trust() -> ssl.SSLContext:
    """The machine's authorities, and Mozilla's for a machine that has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _header(response: httpcore.Response, name: bytes) -> bytes:
    return next((bytes(value) for key, value in response.headers if key.lower() == name), b"").lower()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
