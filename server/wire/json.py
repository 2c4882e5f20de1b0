"""What the JSON dialects of the carriers have in common: strict fields, the order of messages, media formats.

    bytes ── parse_object ── dict ── text / counter / child / payload ── values
                                └── Stream.expect(event) ── order held: connected, start, ..., stop

Guarantees: any bytes give a value or `RemoteWireError`, in time linear in their length. Unknown keys are allowed at
every level, because carriers add them without notice. What a message means is left to `twilio`, `telnyx`, `browser`.

The close code of an error says how bad it is (RFC 6455, 7.4.1):

    1007  this message cannot be read; drop it and count it, the stream goes on
    1008  this message is not for this stream; drop it and count it
    1002  messages out of order; the stream cannot go on
    1003  a media format that we cannot decode; the stream cannot go on
    1009  longer than MAX_MESSAGE_BYTES; the stream cannot go on
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import orjson

from audio_native.media import b64decode
from server.errors import LocalWireError, RemoteWireError
from server.wire.event import Codec, MediaFormat

MAX_MESSAGE_BYTES = 65536
"""The media socket's own bound; 64 KiB holds 6 s of PCMU, carriers send 20 ms."""
MAX_DEPTH = 16
"""Carriers nest three levels deep."""
MAX_PARAMETERS = 99
"""Twilio's limit for one stream (Parameter1 ... Parameter99)."""
MAX_PARAMETER_CHARS = 500
"""Twilio: name and value together stay below 500 characters."""
MAX_ID_CHARS = 512
MAX_MARK_CHARS = 256
MAX_COUNTER_DIGITS = 18
"""Fits a signed 64-bit number, which is what the native path counts in."""
DTMF_DIGITS = frozenset("0123456789*#ABCD")

DROPPABLE_CLOSE_CODES = frozenset({1007, 1008})
"""Errors that cost one message and not the stream, until there are too many of them."""

BAD_MESSAGE = 1007
FOREIGN_MESSAGE = 1008
OUT_OF_ORDER = 1002
BAD_FORMAT = 1003
TOO_LONG = 1009


def parse_object(message: bytes | memoryview) -> dict[str, Any]:
    """The JSON object of one text message.

    Raises:
        RemoteWireError: longer than MAX_MESSAGE_BYTES, not UTF-8, not JSON, not an object, or nested beyond MAX_DEPTH.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise RemoteWireError(f"message: expected at most {MAX_MESSAGE_BYTES} bytes, got {len(message)}", TOO_LONG)
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise bad("message", "JSON text", str(error)) from error
    if not isinstance(value, dict):
        raise bad("message", "an object", type(value).__name__)
    _check_depth(value)
    return value


def bad(field: str, expected: str, got: object = None, close_code: int = BAD_MESSAGE) -> RemoteWireError:
    """The error for one field; `got` is shortened, because it ends in a log line."""
    return RemoteWireError(f"{field}: expected {expected}, got {str(got)[:80]!r}", close_code)


def text(holder: Mapping[str, Any], key: str, max_chars: int = MAX_ID_CHARS) -> str:
    """The string at `key`, 1 to `max_chars` characters long."""
    value = holder.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= max_chars:
        raise bad(key, f"a text of 1 to {max_chars} characters", value)
    return value


def counter(holder: Mapping[str, Any], key: str, low: int = 0, *, number_too: bool = False) -> int:
    """The count at `key`: a text of ASCII digits, from `low` on; with `number_too` also a JSON whole number."""
    value = holder.get(key)
    if number_too and type(value) is int and low <= value < 10**MAX_COUNTER_DIGITS:
        return value
    if (
        isinstance(value, str)
        and 0 < len(value) <= MAX_COUNTER_DIGITS
        and value.isascii()
        and value.isdigit()
        and int(value) >= low
    ):
        return int(value)
    raise bad(key, f"a text of up to {MAX_COUNTER_DIGITS} digits, at least {low}", value)


def child(holder: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object at `key`."""
    value = holder.get(key)
    if not isinstance(value, dict):
        raise bad(key, "an object", type(value).__name__)
    return value


def payload(holder: Mapping[str, Any], media_format: MediaFormat) -> bytes:
    """Coded audio at `payload`, decoded from strict base64: at least one sample, only whole ones."""
    value = text(holder, "payload", MAX_MESSAGE_BYTES)
    try:
        audio = b64decode(value.encode())
    except ValueError as error:
        raise bad("payload", "base64", error) from error
    if not audio or len(audio) % sample_bytes(media_format.codec):
        raise bad("payload", f"whole samples of {media_format.codec}", f"{len(audio)} bytes")
    return audio


def parameters(value: object, *, list_too: bool = False) -> dict[str, str]:
    """Custom parameters: an object of texts, or (with `list_too`) a list of {name, value}; none when absent.

    Raises:
        RemoteWireError: another shape, a name given twice, more than MAX_PARAMETERS, or one that is too long.
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        pairs = list(value.items())
    elif list_too and isinstance(value, list) and all(isinstance(one, dict) for one in value):
        pairs = [(one.get("name"), one.get("value")) for one in value]
    else:
        raise bad("parameters", "an object of texts", type(value).__name__)
    if len(pairs) > MAX_PARAMETERS:
        raise bad("parameters", f"at most {MAX_PARAMETERS}", len(pairs))
    result: dict[str, str] = {}
    for name, one in pairs:
        if not isinstance(name, str) or not isinstance(one, str) or len(name) + len(one) > MAX_PARAMETER_CHARS:
            raise bad("parameters", f"texts of {MAX_PARAMETER_CHARS} characters with their names", name)
        if name in result:
            raise bad("parameters", "each name once", name)
        result[name] = one
    return result


def media_format(
    holder: Mapping[str, Any], rate_key: str, codecs: Mapping[str, tuple[Codec, frozenset[int]]]
) -> MediaFormat:
    """The format of the stream's audio: `encoding`, a rate and `channels`.

    Args:
        codecs: the dialect's name of each encoding, its codec and the rates in Hz that we decode.
    Raises:
        RemoteWireError: with code 1003, an encoding, rate or channel count that we do not decode.
    """
    encoding = text(holder, "encoding")
    rate_hz = holder.get(rate_key)
    channels = holder.get("channels", 1)
    if encoding not in codecs:
        raise bad("encoding", f"one of {', '.join(codecs)}", encoding, BAD_FORMAT)
    codec, rates_hz = codecs[encoding]
    if type(rate_hz) is not int or rate_hz not in rates_hz:
        known = " or ".join(map(str, sorted(rates_hz)))
        raise bad(rate_key, f"{known} for {encoding}", rate_hz, BAD_FORMAT)
    if type(channels) is not int or channels != 1:
        raise bad("channels", "1", channels, BAD_FORMAT)
    return MediaFormat(codec, rate_hz)


def digit(holder: Mapping[str, Any]) -> str:
    value = holder.get("digit")
    if not isinstance(value, str) or value not in DTMF_DIGITS:
        raise bad("digit", "one of 0-9 * # A-D", value)
    return value


def sample_bytes(codec: Codec) -> int:
    return 2 if codec in ("L16", "S16") else 1


class StreamState(Enum):
    OPENED = "the socket is open, nothing has been said"
    CONNECTED = "the carrier has said hello"
    STREAMING = "media flows"
    STOPPED = "the carrier has ended the stream"


CARRIER_ORDER: Mapping[str, tuple[StreamState, StreamState]] = {
    # event: the state in which it may come, the state that it leads to
    "connected": (StreamState.OPENED, StreamState.CONNECTED),
    "start": (StreamState.CONNECTED, StreamState.STREAMING),
    "media": (StreamState.STREAMING, StreamState.STREAMING),
    "dtmf": (StreamState.STREAMING, StreamState.STREAMING),
    "mark": (StreamState.STREAMING, StreamState.STREAMING),
    "stop": (StreamState.STREAMING, StreamState.STOPPED),
}


class StreamOrder:
    """Where one stream stands. `check` looks, `advance` moves, so that a refused message changes nothing."""

    __slots__ = ("_order", "state")

    def __init__(self, order: Mapping[str, tuple[StreamState, StreamState]] = CARRIER_ORDER) -> None:
        self._order = order
        self.state = StreamState.OPENED

    def check(self, event: str) -> None:
        """Raises RemoteWireError (1002) when `event` must not come now."""
        wanted = self._order[event][0]
        if self.state is not wanted:
            raise RemoteWireError(f"{event}: came when {self.state.value}", OUT_OF_ORDER)

    def advance(self, event: str) -> None:
        self.state = self._order[event][1]

    def check_sending(self) -> None:
        """Raises LocalWireError when we must not send: before `start`, after `stop`."""
        if self.state is not StreamState.STREAMING:
            raise LocalWireError(f"send: {self.state.value}")


class SequenceTracker:
    """Sequence numbers of the messages that reach the full parser; the native path takes most media before.

    So a step of more than one is normal here and only the highest number and repeats are of use: `is_repeat` tells
    a message that was delivered twice from two alike (two presses of the same key).
    """

    __slots__ = ("_recent", "highest", "repeats")

    WINDOW = 64
    """A repeat follows its original closely; 60 ms of reordering are three frames."""

    def __init__(self) -> None:
        self._recent: dict[int, None] = {}
        self.highest = 0
        self.repeats = 0

    def is_repeat(self, number: int) -> bool:
        """Take `number` into account; True when it is among the last WINDOW numbers."""
        self.highest = max(self.highest, number)
        if number in self._recent:
            self.repeats += 1
            return True
        self._recent[number] = None
        if len(self._recent) > self.WINDOW:
            del self._recent[next(iter(self._recent))]
        return False


def check_mark_name(name: str) -> None:
    """Raises LocalWireError unless `name` is one that would be accepted when it comes back."""
    if not 0 < len(name) <= MAX_MARK_CHARS:
        raise LocalWireError(f"mark: expected a name of 1 to {MAX_MARK_CHARS} characters, got {len(name)}")


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise bad("message", f"at most {MAX_DEPTH} levels", "more")
