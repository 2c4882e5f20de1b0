"""What a process holds: threads, descriptors, tasks, and objects of ours and of the vendors', each by its name.

    grown(before, after)    what there is more of, {} when nothing is left over

Counted from inside, because a psutil outside sees neither tasks nor objects. What is kept on purpose is put away first
(`put_away_spares`) or made whole (`fill_pools`), so that two censuses at rest are equal and not only alike.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import asyncpg.connection
import psutil
import redis.asyncio.connection

from providers.azure import sdk_native
from providers.azure.pool import LinePool
from providers.openai.lane import LaneTransport

T = TypeVar("T")
COUNTED = ("audio_native", "providers", "server", "azure.cognitiveservices")
"""Packages whose objects are counted: every handle that Azure's SDK gives to Python among them."""
REMEMBERED = frozenset(
    {
        # Of calls that are over, up to a bound of its own that other tests hold: see each class.
        "server.call.place.Known", "server.call.services.CallFacts", "server.store.answer._Own",
        "server.store.token._Local",
        # Of the last requests to a LinePool; of the last answer of each service.
        "providers.azure.sdk_synthesizer.LineKey", "providers.base.AudioFormat", "providers.openai.limits.RateLimits",
    }
)  # fmt: skip
POOLED = ("asyncpg.", "redis.")
QUIET_S = 1.5  # a synthesizer is put away within a second
FILL_S = 5.0


@dataclass(frozen=True)
class Census:
    """`descriptors` are without connections to the databases: their pools open them up to a bound and keep them."""

    threads: dict[str, int]
    descriptors: int
    tasks: dict[str, int]
    objects: dict[str, int]
    remembered: dict[str, int]
    rss_kib: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def grown(before: Census, after: Census) -> dict[str, tuple[int, int]]:
    """What there is more of than there was, with both numbers. Memory and what is remembered are apart."""
    pairs = {"descriptors": (before.descriptors, after.descriptors)}
    for kind in ("threads", "tasks", "objects"):
        old, new = getattr(before, kind), getattr(after, kind)
        pairs |= {f"{kind}: {name}": (old.get(name, 0), count) for name, count in new.items()}
    return {name: pair for name, pair in pairs.items() if pair[1] > pair[0]}


async def take() -> Census:
    """After what is kept warm was put away; the running task is not counted."""
    is_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()  # what is frozen is on no list
    fill_pools()
    await put_away_spares(_all_of(LinePool), _all_of(LaneTransport))
    gc.collect()
    objects = Counter(_objects())
    # All that the allocator holds back for later is given up, or it would look like growth.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    databases = objects.pop("redis", 0) + objects.pop("asyncpg", 0)
    if is_frozen:
        gc.freeze()
    mine = asyncio.current_task()
    return Census(
        threads=dict(Counter(threads())),
        descriptors=len(os.listdir("/proc/self/fd")) - databases,
        tasks=dict(Counter(str(one.get_coro().__qualname__) for one in asyncio.all_tasks() if one is not mine)),  # type: ignore[union-attr]
        objects={name: count for name, count in objects.items() if name not in REMEMBERED},
        remembered={name: objects[name] for name in REMEMBERED if name in objects},
        rss_kib=psutil.Process().memory_info().rss // 1024,
    )


def fill_pools() -> None:
    """Start every worker that a pool may have: else it depends on the load which of them exist."""
    for pool in _all_of(ThreadPoolExecutor):
        if not pool._shutdown:
            meeting = threading.Barrier(pool._max_workers + 1)
            for _ in range(pool._max_workers):
                pool.submit(meeting.wait, FILL_S)
            meeting.wait(FILL_S)


async def put_away_spares(pools: Iterable[LinePool], transports: Iterable[LaneTransport]) -> None:
    """Close what waits for the next call: connected synthesizers, open connections of the HTTP clients."""
    for lines in pools:
        while lines._idle:
            lines._idle.pop().release_nowait()
    for lanes in transports:
        while lanes._idle:
            await lanes._idle.pop().transport.aclose()
    end_s = asyncio.get_running_loop().time() + QUIET_S
    while sdk_native.alive() and asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # transports close their sockets one turn of the loop later, tasks end


def threads() -> list[str]:
    """Names without their numbers; threads that are not Python's are "native"."""
    ours = {one.native_id: re.sub(r"[-_]?\d+$", "", one.name) for one in threading.enumerate()}
    names = []
    for thread in Path("/proc/self/task").iterdir():
        try:
            # libuv's resolvers belong to the loop and come when they like.
            if (thread / "comm").read_text().strip() != "libuv-worker":
                names.append(ours.get(int(thread.name), "native"))
        except FileNotFoundError:
            pass  # it ended just now
    return names


def _objects() -> list[str]:
    names = []
    everything = gc.get_objects()
    seen = set()
    # Extension types that refer to no Python object are known to nobody but their owners.
    for one in chain(everything, gc.get_referents(*everything)):
        kind = type(one)  # not isinstance: a weak proxy would be asked for its object
        module = str(kind.__module__)
        if not module.startswith(COUNTED + POOLED) or id(one) in seen:
            continue
        seen.add(id(one))
        if module.startswith(COUNTED):
            names.append(f"{module}.{kind.__qualname__}")
        elif issubclass(kind, redis.asyncio.connection.AbstractConnection):
            names += ["redis"] if one.is_connected else []
        elif issubclass(kind, asyncpg.connection.Connection):
            names += [] if one.is_closed() else ["asyncpg"]
    return names


def _all_of(kind: type[T]) -> list[T]:
    return [one for one in gc.get_objects() if issubclass(type(one), kind)]
