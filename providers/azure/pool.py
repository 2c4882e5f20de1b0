"""Synthesizers kept connected for the calls that may need them.

    attach ─► wanted + 1 ─► idle lines are made and connected in the background
    take   ─► an idle line of the right kind, else a new one          give_back ─► idle again
    discard ─► stopped and put away in the background, and replaced

For each call in progress there is a line: idle, or in use and idle again when its clause is over; some more wait for
those that a barge-in stops. Which kinds (format, voice) are kept follows the last requests. Idle lines are replaced
before the service drops them, and at once when it did.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from functools import partial

from providers.azure.options import AzureSpeechOptions
from providers.azure.sdk_native import build
from providers.azure.sdk_synthesizer import LineKey, SdkLine
from providers.azure.token import TokenSource
from providers.base import PCMU_8K
from providers.errors import ProviderError, ProviderRejected, ProviderUnavailable
from providers.sdk_thread import SdkBridge

# After a line was lost or could not be made: a service that is down is not asked in a loop.
REPAIR_PAUSE_S = 2.0
# A connection that is refused says so only to who speaks on it: a line that does not connect in this time is given up.
CONNECT_S = 5.0
# Requests that decide which kinds are kept.
RECENT_REQUESTS = 32
# Beyond one for each call, for the lines that are being stopped: one, and one more for every eight calls.
SPARE_SHARE = 8


class LinePool:
    """Belongs to one event loop."""

    __slots__ = ("_attached", "_bridge", "_building", "_idle", "_in_use", "_is_closed", "_loop", "_options",
                 "_provider", "_recent", "_repair", "_retiring", "_tasks", "_tokens", "built",
                 "cold", "warm")  # fmt: skip

    def __init__(self, options: AzureSpeechOptions, provider: str) -> None:
        self.built = 0
        self.cold = 0  # requests that had to wait for a new line
        self.warm = 0
        self._options = options
        self._provider = provider
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bridge: SdkBridge | None = None
        self._tokens = TokenSource(options, provider)
        self._recent: deque[LineKey] = deque([LineKey(PCMU_8K)], maxlen=RECENT_REQUESTS)
        self._idle: deque[SdkLine] = deque()
        self._in_use = 0
        self._building: Counter[LineKey] = Counter()
        self._attached = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._retiring: asyncio.TimerHandle | None = None
        self._repair: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def ready(self) -> int:
        """Idle lines whose socket is open."""
        return sum(1 for one in self._idle if one.is_connected)

    def attach_nowait(self) -> None:
        self._attached += 1
        self._fill()

    def detach_nowait(self) -> None:
        self._attached = max(0, self._attached - 1)
        while self._idle and len(self._idle) > max(1, self._target()):
            self._idle.popleft().release_nowait()

    async def take(self, key: LineKey) -> SdkLine:
        """A line to speak on, warm if there is one. Raises ProviderError."""
        if self._is_closed:
            raise ProviderUnavailable("closed", provider=self._provider)
        self._recent.append(key)
        # One that still connects would open a second socket when it is spoken on.
        line = next((one for one in reversed(self._idle) if one.key == key and one.is_connected), None)
        if line is not None:
            self._idle.remove(line)
            self.warm += 1
            self._in_use += 1
            return line
        self.cold += 1
        self._in_use += 1
        try:
            line = await self._build(key, connect=False)
        finally:
            self._in_use -= line is None
        return line

    def give_back(self, line: SdkLine) -> None:
        """`line` finished its clause and is well."""
        self._in_use -= 1
        if line.is_lost or self._is_closed or len(self._idle) >= max(1, min(self._target() + 1, self._limit())):
            line.release_nowait()
        else:
            self._keep(line)
        self._fill()

    def discard(self, line: SdkLine) -> None:
        """`line` was stopped in the middle, or failed."""
        self._in_use -= 1
        line.release_nowait()
        self._fill()

    def close_nowait(self) -> None:
        self._is_closed = True
        for timer in (self._retiring, self._repair):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        while self._idle:
            self._idle.pop().release_nowait()

    # ── keeping them warm ─────────────────────────────────────────────────────────────────────────────────────

    def _limit(self) -> int:
        return self._options.warm_limit

    def _target(self) -> int:
        """Idle lines wanted now."""
        spare = min(self._attached, 1 + self._attached // SPARE_SHARE)
        return min(max(self._attached - self._in_use, spare), self._limit())

    def _fill(self) -> None:
        if self._is_closed or self._repair is not None:
            return
        idle = Counter(one.key for one in self._idle)
        loop = asyncio.get_running_loop()
        for key, wanted in self._shares().items():
            for _ in range(wanted - idle[key] - self._building[key]):
                self._building[key] += 1
                task = loop.create_task(self._add(key), name="azure warm line")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        while len(self._idle) > max(1, self._limit()):
            self._idle.popleft().release_nowait()

    def _shares(self) -> dict[LineKey, int]:
        """How many idle lines of each kind: as it was asked for lately, and one at least of each."""
        target = self._target()
        if not target:
            return {}
        return {key: max(1, target * count // len(self._recent)) for key, count in Counter(self._recent).items()}

    async def _add(self, key: LineKey) -> None:
        try:
            line = await self._build(key, connect=True)
        except ProviderError:
            self._repair_later()
            return
        finally:
            self._building[key] -= 1
        if self._idle and not self._target():
            line.release_nowait()  # the calls that it was made for are over; one line stays, as in detach_nowait
        else:
            self._keep(line)

    async def _build(self, key: LineKey, *, connect: bool) -> SdkLine:
        loop = asyncio.get_running_loop()
        if self._bridge is None or self._loop is not loop:
            self._loop, self._bridge = loop, SdkBridge(loop)
        token = await self._tokens.get()
        make = partial(SdkLine, self._options, token, key, self._bridge, self._provider,
                       since_s=loop.time(), connect=connect)  # fmt: skip
        try:
            line = await build(make)
        except (RuntimeError, ValueError) as error:
            raise ProviderRejected(f"the SDK refused: {error!r:.200}", status=400, provider=self._provider) from error
        self.built += 1
        line.watch(self._on_lost)
        return line

    def _keep(self, line: SdkLine) -> None:
        if self._is_closed:
            line.release_nowait()
            return
        self._idle.append(line)
        if self._retiring is None:
            self._retire_later()

    def _on_lost(self, line: SdkLine) -> None:
        if line in self._idle:
            self._idle.remove(line)
            line.release_nowait()
            self._repair_later()

    def _repair_later(self) -> None:
        if self._repair is None and not self._is_closed:
            self._repair = asyncio.get_running_loop().call_later(REPAIR_PAUSE_S, self._repair_now)

    def _repair_now(self) -> None:
        self._repair = None
        self._fill()

    def _retire_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._retiring = loop.call_at(min(self._good_until_s(one) for one in self._idle), self._retire)

    def _good_until_s(self, line: SdkLine) -> float:
        warm_s = self._options.warm_s
        return line.since_s + (warm_s if line.is_connected else min(warm_s, CONNECT_S))

    def _retire(self) -> None:
        """Replace what has idled too long, or did not connect; the order of `_idle` is not that of age."""
        self._retiring = None
        now_s = asyncio.get_running_loop().time()
        for line in [one for one in self._idle if now_s >= self._good_until_s(one)]:
            self._idle.remove(line)
            line.release_nowait()
            if not line.is_connected:
                self._repair_later()
        self._fill()
        if self._idle:
            self._retire_later()
