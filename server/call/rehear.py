"""A captured stream heard again: its messages through the real uplink, under a clock that stands where they came.

    tape ─► Uplink (order, level, detector) ─► SpeechStarted, SpeechConfirmed, SpeechStopped, DigitReceived
             ▲ scores: as recorded, or by the network again

Needs a capture with audio. What it gives depends on the capture alone while scores are the recorded ones: the detector
counts in whole numbers, and the level in doubles that are added alike everywhere. The network's own scores may differ
in the last place from one instruction set to the next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from audio_native.silero import SileroNet, SileroStream
from audio_native.tape import TAPE_MEDIA, TAPE_SCORE
from providers.base import AudioFormat
from server.agent.settings import AgentSettings
from server.call.capture_file import CaptureError, Head, Text
from server.call.scoring import SCORED_RATES_HZ
from server.call.uplink import UplinkPath
from server.dialogue import event as ev
from server.errors import RemoteWireError
from server.wire.browser import BrowserWire
from server.wire.event import MediaFormat, Wire
from server.wire.telnyx import TelnyxWire
from server.wire.twilio import TwilioWire

HEARD: tuple[type[Any], ...] = (ev.SpeechStarted, ev.SpeechConfirmed, ev.SpeechStopped, ev.DigitReceived)
"""Events that come from the caller's messages alone."""
# What the uplink would hand to a recogniser does not matter here.
_ANY_FORMAT = AudioFormat("s16", 16000)


class _StandingClock:
    """Stands where the message came."""

    __slots__ = ("at_ns",)

    def __init__(self) -> None:
        self.at_ns = 0

    def now_ns(self) -> int:
        return self.at_ns

    def wall_s(self) -> float:
        return self.at_ns / 1e9


@dataclass(slots=True)
class Scores:
    """Windows that were scored again, and how many of them otherwise than then.

    first: windows of streams that were heard by the detector alone: there is nothing to compare them with.
    """

    windows: int = 0
    changed: int = 0
    largest_change: int = 0
    first: int = 0


class HeardAgain:
    """One captured stream. `heard` holds (instant, event) that nobody has taken yet.

    Args:
        net: scores windows again, each at the instant at which its recorded score became known; where the stream had
            none and `settings` want some, at that of the message that made it whole. None: recorded scores count.
        scores: where that is counted.
    Raises:
        CaptureError: the stream did not begin as one of its carrier does.
    """

    __slots__ = ("_clock", "_is_first", "_net", "_path", "_scorer", "_scores", "heard")

    def __init__(self, head: Head, settings: AgentSettings, net: SileroNet | None, scores: Scores) -> None:
        self.heard: deque[tuple[int, ev.Event]] = deque()
        self._clock = _StandingClock()
        self._net = net
        self._scores = scores
        self._is_first = not head.scored and net is not None and head.rate_hz in SCORED_RATES_HZ
        is_scored = settings.turn.vad == "silero" and (head.scored or self._is_first)
        self._scorer = SileroStream() if is_scored else None
        try:
            self._path = UplinkPath(
                wire=_started(head),
                stream_id=head.stream_id,
                fmt=MediaFormat(head.codec, head.rate_hz),  # type: ignore[arg-type]
                settings=settings,
                stt_format=_ANY_FORMAT,
                scorer=self._scorer,
                clock=self._clock,
                dispatch=self._on_event,
                on_mark=lambda name: None,
                on_stop=lambda: None,
                may_reorder=head.may_reorder,
            )
        except (LookupError, ValueError) as error:
            raise CaptureError(f"no stream has such a format: {error}") from error

    def _on_event(self, event: ev.Event) -> None:
        self.heard.append((self._clock.at_ns, event))

    def entry(self, entry: tuple[Any, ...]) -> None:
        """One entry of the tape."""
        kind, self._clock.at_ns = entry[0], entry[1]
        if kind == TAPE_SCORE:
            self._score(entry[2])
            return
        _, _, chunk, timestamp_ms, _, payload = entry if kind == TAPE_MEDIA else (0, 0, 1, 0, 0, b"")
        try:
            self._path.on_media(payload, chunk, timestamp_ms)
        except RemoteWireError:
            pass  # the session closed the stream then; the end of it is recorded
        if self._is_first and self._scorer is not None and self._net is not None:
            while self._net.score([self._scorer]):
                self._scores.first += 1

    def text(self, message: Text) -> None:
        self._clock.at_ns = message.at_ns
        data = b"?" if message.text is None else message.text.encode()
        try:
            self._path.on_message(data, message.is_text)
        except RemoteWireError:
            pass

    def _score(self, recorded: int) -> None:
        scorer = self._scorer
        if scorer is None:
            return
        if self._net is None or not self._net.score([scorer]):
            scorer.put_score(recorded)
            return
        change = abs(scorer.score - recorded)
        self._scores.windows += 1
        self._scores.changed += change > 0
        self._scores.largest_change = max(self._scores.largest_change, change)


def is_same(recorded: ev.Event, heard: ev.Event) -> bool:
    """Equal in media time. The instant of the last speech sample was read a few microseconds after its message came."""
    if isinstance(recorded, ev.SpeechStopped) and isinstance(heard, ev.SpeechStopped):
        return (recorded.start_ms, recorded.end_ms) == (heard.start_ms, heard.end_ms)
    return recorded == heard


def plain(event: ev.Event) -> list[Any]:
    """What of a heard event is the caller's: its name and its media times or digit."""
    values = {name: getattr(event, name) for name in type(event).__slots__ if name != "end_ns"}
    return [type(event).__name__, values]


def _started(head: Head) -> Wire:
    """The carrier's parser, as it stood when the stream had started."""
    made: Wire
    match head.carrier:
        case "twilio":
            made = TwilioWire()
        case "telnyx":
            made = TelnyxWire()
        case _:
            made = BrowserWire(head.stream_id)
    try:
        for message in head.opening:
            made.receive(message.encode())
    except RemoteWireError as error:
        raise CaptureError(f"the stream's opening: {error}") from error
    return made
