"""Server-sent events to their data, whatever the network makes of them.

Beside the SDKs' own decoders this one is bounded, and leaves the JSON to us: their typed chunks cost 137 us each on one
x86 core, more than everything else that happens to a token together.

Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from collections.abc import Iterator

from providers.errors import ProviderProtocolError

MAX_EVENT_BYTES = 256 << 10  # Azure's filter results are 1 KB; a whole tool call in one event may be 64 KB


class SseDecoder:
    """Feed bytes in any pieces, get the data of each complete event. Comments, names and ids are dropped."""

    __slots__ = ("_data", "_rest", "_size", "_skip_lf")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._skip_lf = False

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Raises ProviderProtocolError when an event is longer than MAX_EVENT_BYTES."""
        if self._skip_lf and part:
            self._skip_lf = False
            if part.startswith(b"\n"):
                part = part[1:]
        if b"\r" in part:
            # A CR at the end may be half of a line's end.
            self._skip_lf = part.endswith(b"\r")
            part = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = (self._rest + part if self._rest else part).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._data, self._size = [], 0
                yield data
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise ProviderProtocolError(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def end(self) -> Iterator[bytes]:
        """What the body ended with, for services that forget the last blank line."""
        yield from self.feed(b"\n\n")

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            data = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(data)
            self._size += len(data)
