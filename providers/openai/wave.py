"""WAV as these services take and give it: a header on what we send, none on what we get, whatever they prefer.

Source: Multimedia Programming Interface and Data Specifications 1.0 (RIFF, WAVE); streamed files hold 0xFFFFFFFF or 0
where a length is not known.
"""

from __future__ import annotations

import struct

from providers.errors import ProviderProtocolError

MAX_HEADER_BYTES = 64 << 10
_UNKNOWN = (0, 0xFFFFFFFF)


def wave_file(s16: bytes, rate_hz: int) -> bytes:
    """A whole file of mono samples."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(s16), b"WAVE", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16,
        b"data", len(s16),
    )  # fmt: skip
    return head + s16


class SampleReader:
    """Bytes of an answer in any pieces to whole s16 samples. A RIFF header is read and left out.

    `rate_hz` is that of the header, once there was one; without it the default.
    """

    __slots__ = ("_head", "_left", "_odd", "rate_hz")

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._head: bytearray | None = bytearray()
        self._odd = b""
        self._left: int | None = None

    def feed(self, part: bytes) -> bytes:
        """The samples that are complete now. Raises ProviderProtocolError for a WAV of another kind."""
        if self._head is not None:
            self._head += part
            part = self._begin()
        if self._left is not None:
            part = part[: self._left]  # what follows the data is no sound
            self._left -= len(part)
        whole = self._odd + part if self._odd else part
        cut = len(whole) & ~1
        self._odd = whole[cut:]
        return whole[:cut] if self._odd else whole

    def end(self) -> bytes:
        """What was taken for the begin of a header and is none."""
        head, self._head = self._head, None
        return self.feed(bytes(head)) if head and not head.startswith(b"RIFF") else b""

    def _begin(self) -> bytes:
        """Everything after the header, once that is clear."""
        assert self._head is not None
        head = bytes(self._head)
        if not head.startswith(b"RIFF"[: len(head)]):
            self._head = None
            return head
        if len(head) > MAX_HEADER_BYTES:
            raise ProviderProtocolError(f"a WAV header of more than {MAX_HEADER_BYTES} bytes")
        at = 12
        while len(head) >= at + 8:
            name, size = struct.unpack_from("<4sI", head, at)
            at += 8
            if name == b"data":
                self._head = None
                self._left = None if size in _UNKNOWN else size
                return head[at:]
            if name == b"fmt " and len(head) >= at + 16:
                self._check_format(head, at)
            at += size + (size & 1)
        return b""

    def _check_format(self, head: bytes, at: int) -> None:
        tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", head, at)
        if tag not in (1, 0xFFFE) or channels != 1 or bits != 16 or not 8000 <= rate_hz <= 48000:
            found = f"format {tag}, {channels} x {bits} bit, {rate_hz} Hz"
            raise ProviderProtocolError(f"expected 16-bit mono, got {found}")
        self.rate_hz = rate_hz
