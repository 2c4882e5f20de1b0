"""One resampler for any pair of rates: the FIR on the live path, soxr for the rest, a copy for equal rates.

The three behave alike: push s16, get s16; cut the input anywhere; flush for the tail. They differ in what they hold
back: fir.Fir nothing, soxr up to 118 ms, so soxr is for files and for rates that telephony does not use.
soxr runs in float and we round: its own int16 output is dithered, so the same input would give other bytes each time.
"""

import operator
from typing import Literal, TypeAlias

import numpy as np
import soxr

from audio_native import fir

__all__ = ["Resampler"]

Buffer: TypeAlias = bytes | bytearray | memoryview

LOWEST_HZ, HIGHEST_HZ = 1_000, 192_000
# -95 dB images at 3.8 us a frame; higher ones hold more back and int16 shows no difference.
SOXR_QUALITY = "HQ"


class Resampler:
    """Converts one stream of s16 from in_hz to out_hz.

    `engine` says which of the three does it. Not for use by two streams at once.
    """

    __slots__ = ("_fir", "_soxr", "engine", "in_hz", "out_hz")

    def __init__(self, in_hz: int, out_hz: int) -> None:
        """Raise ValueError for a rate outside 1,000 to 192,000 Hz, TypeError for one that is no integer."""
        for name, rate_hz in (("in_hz", in_hz), ("out_hz", out_hz)):
            if not LOWEST_HZ <= operator.index(rate_hz) <= HIGHEST_HZ:
                raise ValueError(f"{name}: want {LOWEST_HZ} to {HIGHEST_HZ} Hz; got {rate_hz}")
        self.in_hz = in_hz
        self.out_hz = out_hz
        self._fir: fir.Fir | None = None
        self._soxr: soxr.ResampleStream | None = None
        self.engine: Literal["copy", "fir", "soxr"] = "copy"
        if (in_hz, out_hz) in fir.RATES:
            self._fir, self.engine = fir.Fir(in_hz, out_hz), "fir"
        elif in_hz != out_hz:
            self._soxr = soxr.ResampleStream(in_hz, out_hz, 1, dtype="float32", quality=SOXR_QUALITY)
            self.engine = "soxr"

    @property
    def delay_samples(self) -> int:
        """Shift of the output against the input, in output samples; soxr aligns its output and has none."""
        return self._fir.delay_samples if self._fir is not None else 0

    def process(self, samples: Buffer) -> bytes:
        """Take s16 at in_hz, shape (n,), 2-byte aligned; return the s16 at out_hz that is ready.

        Raises:
            ValueError: half a sample or a misaligned buffer; the stream is where it was.
        """
        if self._fir is not None:
            return self._fir.process(samples)
        view = _whole_samples(samples)
        if self._soxr is None:
            return bytes(view.data)
        return _rounded(self._soxr.resample_chunk(view.astype(np.float32), last=False))

    def flush(self) -> bytes:
        """Return what the end of the stream brings out, and begin a new stream."""
        if self._fir is not None:
            return self._fir.flush()
        if self._soxr is None:
            return b""
        tail = _rounded(self._soxr.resample_chunk(np.zeros(0, np.float32), last=True))
        self._soxr.clear()
        return tail

    def reset(self) -> None:
        """Forget the stream: the next sample is the first one."""
        if self._fir is not None:
            self._fir.reset()
        elif self._soxr is not None:
            self._soxr.clear()


def _whole_samples(samples: Buffer) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    raw: np.ndarray[tuple[int], np.dtype[np.uint8]] = np.frombuffer(samples, np.uint8)
    if raw.nbytes % 2 or raw.ctypes.data % 2:
        raise ValueError(f"samples: want whole, 2-byte aligned s16 samples; got {raw.nbytes} bytes")
    whole: np.ndarray[tuple[int], np.dtype[np.int16]] = raw.view(np.int16)
    return whole


def _rounded(samples: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> bytes:
    return bytes(np.clip(np.rint(samples), -32768, 32767).astype(np.int16).data)
