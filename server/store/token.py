"""The secret that lets one media stream in: signed, short-lived, good for one use in the whole deployment.

    stream   {carrier}/{stream id}, as in the media path: a secret is good for the carrier that it was made for only
    secret   base64url(nonce 16 · expiry u64) "." base64url(HMAC-SHA-256 over stream, nonce and expiry)
    record   talkspurt:stream:{stream} = nonce and facts, in Redis, for the token's life

The signature is checked before the store is asked, so that a guess costs nothing and cannot use up a token; GETDEL
makes it single-use. Every token is also remembered by the process that made it, at most 10,000: with Redis gone,
calls whose webhook and stream reach the same process still get in. That is weaker (another process knows nothing
of them), so it is counted and said once.

What Redis cannot say while it is gone: a token that it held, used at another process, is good once more at the process
that issued it, unless that one had heard from Redis that it was used; and a token let in without Redis is good once
more at another process, should Redis come back with it. Either takes the secret of a call within the token's life.
"""

from __future__ import annotations

import base64
import hmac
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from server.clock import Clock
from server.store.redis import KEY_PREFIX, Redis, RedisUnavailable
from server.store.short_memory import ShortMemory

log = logging.getLogger(__name__)

TTL_S = 60
"""From webhook to stream; the carrier needs about one."""
CAPACITY = 10_000
_NONCE_BYTES = 16
_CLAIM_BYTES = _NONCE_BYTES + 8


@dataclass(slots=True)
class _Local:
    """What this process remembers of a token that it issued.

    `is_shared`: Redis took it, so Redis knows if it was used; `is_used`: it was let in here without Redis, which may
    hold it still.
    """

    record: bytes
    is_shared: bool
    is_used: bool = False


class StreamTokens:
    """Issues and redeems.

    Attributes:
        ttl_s: how long a token is good.
        fallback_issued: tokens that only this process knows. fallback_redeemed: let in without Redis.
    """

    __slots__ = ("_clock", "_key", "_local", "_on_fallback", "_redis", "fallback_issued", "fallback_redeemed", "ttl_s")

    def __init__(
        self,
        redis: Redis | None,
        key: bytes,
        clock: Clock,
        *,
        on_fallback: Callable[[], None] = lambda: None,
        ttl_s: int = TTL_S,
        capacity: int = CAPACITY,
    ) -> None:
        """`key` is the deployment's secret; a key of its own is derived from it. Without `redis`: one process."""
        self._redis = redis
        self._key = hmac.digest(key, b"talkspurt stream token", "sha256")
        self._clock = clock
        self._on_fallback = on_fallback
        self.ttl_s = ttl_s
        self._local: ShortMemory[_Local] = ShortMemory(clock, ttl_s=ttl_s, capacity=capacity)
        self.fallback_issued = 0
        self.fallback_redeemed = 0

    async def issue(self, stream: str, facts: Mapping[str, Any]) -> str:
        """The secret for `stream`, which must be new. `facts` (JSON values) come back when it is redeemed."""
        expiry_s = int(self._clock.wall_s()) + self.ttl_s
        nonce = os.urandom(_NONCE_BYTES)
        claim = nonce + expiry_s.to_bytes(8, "big")
        record = nonce + orjson.dumps(dict(facts))
        is_shared = await self._share(stream, record)
        self._local.add(stream, _Local(record, is_shared))
        if not is_shared:
            self.fallback_issued += 1
            self._on_fallback()
            if self.fallback_issued == 1:
                log.warning("stream tokens are known to this process only: Redis is not available")
        return f"{_text(claim)}.{_text(self._sign(stream, claim))}"

    async def known(self, stream: str) -> bool:
        """Is there an unused token for `stream`? Asked before the upgrade, with no secret at hand."""
        is_shared: bool | None = None
        if self._redis is not None:
            with suppress(RedisUnavailable):
                is_shared = bool(await self._redis.execute("EXISTS", _key_of(stream)))
        own = self._local.get(stream)
        if own is None:
            return bool(is_shared)
        if own.is_shared and is_shared is False:
            # Used, by whichever process: it stays so when Redis goes away.
            self._local.drop(stream, own)
            return False
        return not own.is_used

    async def redeem(self, stream: str, secret: str) -> dict[str, Any] | None:
        """The facts, once. None for a secret that is forged, expired, used, or another stream's."""
        nonce = self._verify(stream, secret)
        if nonce is None:
            return None
        record = await self._take(stream)
        if record is None or not hmac.compare_digest(record[:_NONCE_BYTES], nonce):
            return None
        facts: dict[str, Any] = orjson.loads(record[_NONCE_BYTES:])
        return facts

    def _verify(self, stream: str, secret: str) -> bytes | None:
        claim_text, _, mac_text = secret.partition(".")
        try:
            claim, mac = _bytes(claim_text), _bytes(mac_text)
        except ValueError:
            return None
        if len(claim) != _CLAIM_BYTES or not hmac.compare_digest(mac, self._sign(stream, claim)):
            return None
        if self._clock.wall_s() >= int.from_bytes(claim[_NONCE_BYTES:], "big"):
            return None
        return claim[:_NONCE_BYTES]

    def _sign(self, stream: str, claim: bytes) -> bytes:
        return hmac.digest(self._key, claim + stream.encode(), "sha256")

    async def _share(self, stream: str, record: bytes) -> bool:
        if self._redis is None:
            return False
        try:
            await self._redis.execute("SET", _key_of(stream), record, "EX", self.ttl_s)
        except RedisUnavailable:
            return False
        return True

    async def _take(self, stream: str) -> bytes | None:
        """The record, and nobody gets it again: from Redis, or from memory when Redis cannot have it."""
        shared: bytes | None = None
        is_answered = False
        if self._redis is not None:
            try:
                shared = await self._redis.execute("GETDEL", _key_of(stream))
                is_answered = True
            except RedisUnavailable:
                pass
        own = self._local.get(stream)
        if own is None:
            return shared
        if own.is_used:
            return None
        if is_answered and own.is_shared:
            self._local.drop(stream, own)
            return shared
        own.is_used = True
        self.fallback_redeemed += 1
        return own.record


def _key_of(stream: str) -> str:
    return f"{KEY_PREFIX}stream:{stream}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Strict base64url without padding. Raises ValueError."""
    if len(text) > 64 or not text.isascii():
        raise ValueError("too long or not ASCII")
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(data) != text:
        raise ValueError("not the canonical form")
    return data
