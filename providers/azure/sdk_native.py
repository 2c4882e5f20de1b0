"""The SDK's native objects: how they are configured, and how they are put away.

Creating one costs a millisecond; destroying one stops its threads and may wait for the server, up to a second when it
has fallen silent. Neither happens in the event loop. A recogniser or synthesizer that is alive when the interpreter
ends aborts the process, so every one is known here until it is gone, and `shutdown` puts away what is left.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import azure.cognitiveservices.speech as speech

from providers.azure.options import AzureSpeechOptions

BUILDERS = "azure-build"
BUILD_THREADS = 4
# A silent server holds a thread for a second: an outage ends many calls at once.
CLOSE_THREADS = 8
SHUTDOWN_S = 5.0
# Whole seconds; the SDK's own is 10, for stopping and again for destroying.
STOP_LIMIT_S = 1
# Of the SDK: "SPEECH-…" settings have no name in the Python package.
POLLING = "SPEECH-USPPollingInterval"
STOP_LIMIT = "SPEECH-StopRecognitionTimeoutInSeconds"
RETRIES = "SPEECH-Error-MaxRetryCount"


def speech_config(options: AzureSpeechOptions, token: str, *, url: str = "") -> speech.SpeechConfig:
    """The account and the settings that both directions share.

    Args:
        token: in place of the key; empty sends the key.
        url: exact address of the service, instead of the one that follows from region or endpoint.
    """
    key = None if token else options.key
    if url:
        config = speech.SpeechConfig(subscription=key, endpoint=url)
    elif options.region and token:
        config = speech.SpeechConfig(auth_token=token, region=options.region)
    elif options.region:
        config = speech.SpeechConfig(subscription=key, region=options.region)
    elif options.is_host:
        config = speech.SpeechConfig(subscription=key, host=options.endpoint.rstrip("/"))
    else:
        config = speech.SpeechConfig(subscription=key, endpoint=options.endpoint.rstrip("/"))
    if token:
        config.authorization_token = token
    config.set_property_by_name(STOP_LIMIT, str(STOP_LIMIT_S))
    config.set_property_by_name(RETRIES, str(options.sdk_retries))
    if options.polling_ms:
        config.set_property_by_name(POLLING, str(options.polling_ms))
    return config


class Native:
    """The objects of one recogniser or synthesizer, which live and die together.

    Args:
        objects: everything that must not be collected before `release_nowait`.
        signals: of these objects; each with callbacks connected.
        stop: ends what runs. Blocks; runs in a closing thread, before the objects are dropped.
    """

    __slots__ = ("__weakref__", "_objects", "_signals", "_stop")

    def __init__(self, objects: list[Any], signals: list[Any], stop: Callable[[], None]) -> None:
        self._objects = objects
        self._signals = signals
        self._stop: Callable[[], None] | None = stop
        with _lock:
            _alive.add(self)

    def stop_with(self, stop: Callable[[], None]) -> None:
        """What must be ended first, when that is known only later."""
        if self._stop is not None:
            self._stop = stop

    def release_nowait(self) -> None:
        """Put away in the background; callbacks stop soon, not at once. Twice is once."""
        try:
            _closers().submit(self.release)
        except RuntimeError:  # the interpreter is ending, its pools are closed
            self.release()

    def release(self) -> None:
        """Thread: any but the SDK's own; waits up to some STOP_LIMIT_S."""
        with _lock:
            stop, self._stop = self._stop, None
        if stop is None:
            return
        for signal in self._signals:
            signal.disconnect_all()
        try:
            stop()
        except RuntimeError:
            pass  # the SDK's word for a server that does not answer, or for an object that had failed before
        del stop
        # Here and nowhere else the last references go: the destructors stop threads and wait for them.
        self._signals.clear()
        while self._objects:
            self._objects.pop()
        with _lock:
            _alive.discard(self)

    def quiet(self) -> None:
        """Thread: any. No callback may be running when the interpreter ends."""
        for signal in list(self._signals):
            signal.disconnect_all()


_lock = threading.Lock()
_alive: set[Native] = set()
_pools: dict[str, ThreadPoolExecutor] = {}


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    with _lock:
        if name not in _pools:
            _pools[name] = ThreadPoolExecutor(threads, thread_name_prefix=name)
        return _pools[name]


class Releasable(Protocol):
    def release_nowait(self) -> None: ...


M = TypeVar("M", bound=Releasable)


async def build(make: Callable[[], M]) -> M:
    """Create native objects in a thread; what comes too late for a cancelled caller is put away there."""
    building = _builders().submit(make)
    try:
        return await asyncio.shield(asyncio.wrap_future(building))
    except asyncio.CancelledError:
        building.add_done_callback(_release_built)
        raise


def _release_built(building: Future[M]) -> None:
    if not building.cancelled() and building.exception() is None:
        building.result().release_nowait()


def _builders() -> ThreadPoolExecutor:
    return _pool(BUILDERS, BUILD_THREADS)


def _closers() -> ThreadPoolExecutor:
    return _pool("azure-close", CLOSE_THREADS)


def alive() -> int:
    """Recognisers and synthesizers that exist, those being put away included."""
    with _lock:
        return len(_alive)


def shutdown(limit_s: float = SHUTDOWN_S) -> None:
    """Put away every native object and join our threads. Blocks up to `limit_s`; call it before the process ends.

    The next use starts the threads anew.
    """
    end_s = time.monotonic() + limit_s
    with _lock:
        pools = dict(_pools)
        _pools.clear()
    # What is being built joins those that are alive; only then is the list complete.
    _join([pool.shutdown for name, pool in pools.items() if name == BUILDERS], end_s)
    with _lock:
        left = list(_alive)
    for one in left:
        one.quiet()
    _join([one.release for one in left] + [pool.shutdown for name, pool in pools.items() if name != BUILDERS], end_s)


def _join(works: list[Callable[[], None]], end_s: float) -> None:
    """Do all of it at once, in threads that nobody waits for after `end_s`."""
    threads = [threading.Thread(target=work, name="azure-shutdown", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))


atexit.register(shutdown)
