"""One answer to a webhook, however often it is delivered and to whichever process.

    delivery ─► own memory? ─► SET key claim NX ─┬─ ours: make the answer, SET key answer
                                                 └─ somebody's: look again until the answer is there

    key      talkspurt:answer:{call} = "c" and 16 random bytes, for 5 s; then "a", nonce and the sealed answer, for 60 s

An answer holds the secret of a media stream, so it is encrypted, and bound to its call, with a key that Redis does not
have. With Redis gone each process remembers the answers that it made, at most 10,000: a repeat that reaches the same
process still gets the same answer. That is weaker (another process makes one of its own), so it is counted and said
once.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from server.clock import Clock
from server.store.redis import KEY_PREFIX, Redis, RedisUnavailable
from server.store.short_memory import ShortMemory

log = logging.getLogger(__name__)

TTL_S = 60
"""Twilio gives up after 15 s, and its retries come within seconds of that."""
CAPACITY = 10_000
CLAIM_S = 5
"""A process that takes longer, or died, loses the call to the next one that is asked."""
WAIT_S = 6.0
"""Longer than a claim, so that the call of a dead process is taken over; within the 8 s that a webhook may take."""
LOOK_S = 0.05
_CLAIM, _ANSWER = b"c", b"a"
_NONCE_BYTES = 12

Made = tuple[bytes, bool]
"""An answer, and whether it stands: one that does not is made anew at the next delivery."""


class NotAnswered(Exception):
    """The delivery that was waited for failed."""


class SharedAnswers:
    """Attributes:
    fallback: answers that only this process knows. adopted: answers that another process had given.
    """

    __slots__ = ("_cipher", "_clock", "_on_fallback", "_own", "_redis", "_ttl_s", "adopted", "fallback")

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
        self._cipher = ChaCha20Poly1305(hmac.digest(key, b"talkspurt webhook answer", "sha256"))
        self._clock = clock
        self._on_fallback = on_fallback
        self._ttl_s = ttl_s
        self._own: ShortMemory[asyncio.Future[bytes]] = ShortMemory(clock, ttl_s=ttl_s, capacity=capacity)
        self.fallback = 0
        self.adopted = 0

    async def once(self, call: str, make: Callable[[], Awaitable[Made]]) -> bytes:
        """The answer for `call`: the one that stands, or what `make` gives.

        Raises:
            NotAnswered: another delivery is making it in this process, and failed.
            Whatever `make` raises; then the next delivery makes it again.
        """
        own = self._own.get(call)
        if own is not None:
            return await asyncio.shield(own)
        own = asyncio.get_running_loop().create_future()
        self._own.add(call, own)
        try:
            answer, stands = await self._shared(call, make)
        except BaseException:
            self._own.drop(call, own)
            own.set_exception(NotAnswered(f"no answer for {call}"))
            own.exception()  # nobody may be waiting for it
            raise
        own.set_result(answer)
        if not stands:
            self._own.drop(call, own)
        return answer

    async def _shared(self, call: str, make: Callable[[], Awaitable[Made]]) -> Made:
        redis = self._redis
        claim_until_ns = 0
        if redis is not None:
            try:
                async with asyncio.timeout(WAIT_S):
                    given = await self._claim_or_answer(redis, call)
            except (RedisUnavailable, InvalidTag, TimeoutError):
                redis = None
            else:
                if given is not None:
                    self.adopted += 1
                    return given, True
                claim_until_ns = self._clock.now_ns() + CLAIM_S * 1_000_000_000
        stands = is_shared = False
        try:
            answer, stands = await make()
            if stands and redis is not None:
                is_shared = await self._publish(redis, call, answer)
        finally:
            if not stands and redis is not None and self._clock.now_ns() < claim_until_ns:
                with suppress(RedisUnavailable):
                    await redis.execute("DEL", _key_of(call))
        if stands and not is_shared:
            self._note_fallback()
        return answer, stands

    async def _claim_or_answer(self, redis: Redis, call: str) -> bytes | None:
        """None: the claim is ours. Waits while it is another's. Raises InvalidTag for an answer of other keys."""
        key, claim = _key_of(call), _CLAIM + os.urandom(16)
        while not await redis.execute("SET", key, claim, "EX", CLAIM_S, "NX"):
            found: bytes = await redis.execute("GET", key) or b""
            if found.startswith(_ANSWER):
                if len(found) <= 1 + _NONCE_BYTES:
                    raise InvalidTag
                return self._cipher.decrypt(found[1 : 1 + _NONCE_BYTES], found[1 + _NONCE_BYTES :], call.encode())
            await asyncio.sleep(LOOK_S)
        return None

    async def _publish(self, redis: Redis, call: str, answer: bytes) -> bool:
        nonce = os.urandom(_NONCE_BYTES)
        value = _ANSWER + nonce + self._cipher.encrypt(nonce, answer, call.encode())
        try:
            await redis.execute("SET", _key_of(call), value, "EX", self._ttl_s)
        except RedisUnavailable:
            return False
        return True

    def _note_fallback(self) -> None:
        self.fallback += 1
        self._on_fallback()
        if self.fallback == 1:
            log.warning("answers to webhooks are known to this process only: Redis is not available")


def _key_of(call: str) -> str:
    return f"{KEY_PREFIX}answer:{call}"
