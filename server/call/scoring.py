"""Silero for every call of the process: windows are scored together, a few milliseconds after they are whole.

    Uplink.feed ─► SileroStream (one a call) ─┐
                                              ├─► every 10 ms: SileroNet.score(all) ─► stream.score for the next frame
    Uplink.feed ─► SileroStream ──────────────┘

A batch costs a tenth of what single calls do. While no call is open there is no timer. A loop that stalls for more
than two windows loses the oldest audio of the streams, counted there.
"""

from __future__ import annotations

import asyncio

from audio_native.silero import SileroNet, SileroStream
from audio_native.silero_weights import packaged_file, read_weights
from audio_native.tape import Tape
from server.clock import Clock, SystemClock

# A third of a window: 5 ms of waiting in the mean, and batches of N / 3 for N calls.
PERIOD_S = 0.01
# At other rates (a carrier's L16 at 24 kHz) the detector decides alone.
SCORED_RATES_HZ = (8000, 16000)


class SpeechScoring:
    """One for a process; belongs to its event loop."""

    __slots__ = ("_clock", "_due_s", "_handle", "_loop", "_net", "_streams")

    def __init__(self, net: SileroNet, clock: Clock | None = None) -> None:
        self._net = net
        self._clock = clock or SystemClock()
        self._streams: list[SileroStream] = []
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due_s = 0.0

    @classmethod
    def load(cls, clock: Clock | None = None) -> SpeechScoring:
        """With the packaged weights. Raises WeightsError when they are missing or not the known ones."""
        return cls(SileroNet(read_weights(packaged_file())), clock)

    def open(self, tape: Tape | None = None) -> SileroStream:
        """A stream for one call, scored from now on until it is closed. `tape` notes when each score became known."""
        stream = SileroStream()
        stream.tape = tape
        self._streams.append(stream)
        if self._handle is None:
            self._loop = asyncio.get_running_loop()
            self._due_s = self._loop.time()
            self._arm(self._loop)
        return stream

    def close(self, stream: SileroStream) -> None:
        """The call is over. A stream that is not open is passed over."""
        if stream in self._streams:
            self._streams.remove(stream)
        if not self._streams and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        # Absolute deadlines; those that a stall has passed are left out.
        self._due_s = max(self._due_s + PERIOD_S, loop.time())
        self._handle = loop.call_at(self._due_s, self._score, loop)

    def _score(self, loop: asyncio.AbstractEventLoop) -> None:
        self._net.score(self._streams, self._clock.now_ns())
        self._arm(loop)
