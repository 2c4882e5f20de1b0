"""From the carrier's messages to speech events and recogniser audio.

The native Uplink does the work of a message in one call; Python wakes only when its flags say that something
happened. What the fast path does not know goes through the carrier's complete parser.
"""

from __future__ import annotations

from collections.abc import Callable

from audio_native.silero import SileroStream
from audio_native.tape import Tape
from audio_native.uplink import F_AUDIO, F_BAD, F_CONFIRMED, F_OFFSET, F_ONSET, F_SLOW, Uplink
from audio_native.vad import WebRtcDetector
from providers.base import AudioFormat, TranscriptStream
from server.agent.settings import AgentSettings
from server.clock import Clock
from server.dialogue import event as ev
from server.errors import RemoteWireError
from server.wire.browser import BrowserWire
from server.wire.event import DtmfReceived, MarkReached, MediaFormat, MediaReceived, StreamStopped, Wire
from server.wire.grammar import grammar_for

# What was said just before the VAD opened belongs to the word: consonants are quiet.
PRE_ROLL_MS = 300
# Before a word that the VAD let pass: its first consonant.
LEAD_ROLL_MS = 250
# More bad messages than this within the window and the stream is not worth hearing.
MAX_BAD, BAD_WINDOW_NS = 50, 10_000_000_000
# Keypads are slow; anything faster is a flood.
MAX_DIGITS, DIGIT_WINDOW_NS = 20, 1_000_000_000
# Utterances without a final; more than this are not said in the eight seconds that the ring holds.
MAX_PENDING = 16


class _Rate:
    """Counts events in a sliding window, coarsely: the window starts anew when it is over."""

    __slots__ = ("_count", "_limit", "_since_ns", "_window_ns")

    def __init__(self, limit: int, window_ns: int) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._since_ns = 0
        self._count = 0

    def exceeded(self, now_ns: int) -> bool:
        if now_ns - self._since_ns > self._window_ns:
            self._since_ns, self._count = now_ns, 0
        self._count += 1
        return self._count > self._limit


class _Utterance:
    """What the caller said, in samples of the stream; `end_samples` is None while it is open.

    `was_nothing`: no word was understood in it.
    """

    __slots__ = ("end_samples", "number", "start_samples", "was_fed", "was_nothing")

    def __init__(self, number: int, start_samples: int) -> None:
        self.number = number
        self.start_samples = start_samples
        self.end_samples: int | None = None
        self.was_fed = False
        self.was_nothing = False


class UplinkPath:
    """One stream's way in. Raises RemoteWireError when the peer sends too much that it must not.

    Attributes:
        lost_samples: of utterances, gone from the ring before a recogniser wanted them.
    """

    __slots__ = (
        "_bad",
        "_clock",
        "_digits",
        "_dispatch",
        "_last",
        "_note",
        "_on_mark",
        "_on_stop",
        "_pending",
        "_rate_hz",
        "_stt",
        "_width",
        "_wire",
        "lost_samples",
        "native",
    )

    def __init__(
        self,
        *,
        wire: Wire,
        stream_id: str,
        fmt: MediaFormat,
        settings: AgentSettings,
        stt_format: AudioFormat,
        scorer: SileroStream | None,
        clock: Clock,
        dispatch: Callable[[ev.Event], None],
        on_mark: Callable[[str], None],
        on_stop: Callable[[], None],
        tape: Tape | None = None,
        note: Callable[[bytes, bool], None] = lambda message, is_text: None,
        may_reorder: bool | None = None,
    ) -> None:
        """`may_reorder`: media waits for what is missing from the start; None: as the carrier says.

        `tape` gets every media message, `note(message, is_text)` every other one before it has any effect.
        """
        turn = settings.turn
        wire_form = (stt_format.encoding, fmt.codec) in (("pcmu", "PCMU"), ("pcma", "PCMA"))
        self.native = Uplink(
            grammar=grammar_for(wire.carrier, stream_id),
            codec=fmt.codec,
            rate_hz=fmt.rate_hz,
            out="wire" if wire_form else "s16",
            out_rate_hz=stt_format.rate_hz,
            detector=WebRtcDetector(turn.vad_mode, fmt.rate_hz),
            scorer=scorer,
            tape=tape,
            may_reorder=wire.may_reorder if may_reorder is None else may_reorder,
            onset_ms=turn.onset_ms,
            hangover_ms=turn.hangover_ms,
            confirm_ms=max(turn.onset_ms, settings.interruption.min_speech_ms),
            level_gate_dbfs=turn.level_gate_dbfs,
        )
        self._wire = wire
        self._rate_hz = fmt.rate_hz
        self._width = 1 if fmt.codec in ("PCMU", "PCMA") else 2
        self.lost_samples = 0
        self._clock = clock
        self._dispatch = dispatch
        self._on_mark = on_mark
        self._on_stop = on_stop
        self._note = note
        self._stt: TranscriptStream | None = None
        self._pending: list[_Utterance] = []
        self._last: _Utterance | None = None
        self._bad = _Rate(MAX_BAD, BAD_WINDOW_NS)
        self._digits = _Rate(MAX_DIGITS, DIGIT_WINDOW_NS)

    def attach(self, stt: TranscriptStream) -> list[int]:
        """A recogniser begins to listen: it gets every utterance that nobody has settled, as far as the ring goes.

        Returns the utterances that are said again.
        """
        self._stt = stt
        self.native.is_wanted = False
        for one in self._pending:
            stt.begin_nowait(one.number, self._ms(one.start_samples))
            if one.end_samples is None:
                self._feed_from(one.start_samples)
            else:
                self._note_lost(one.start_samples, one.end_samples)
                stt.feed_nowait(self.native.history(one.start_samples, one.end_samples))
                stt.commit_nowait(one.number)
        return [one.number for one in self._pending if one.was_fed]

    def detach(self) -> None:
        """Nobody listens until the next `attach`."""
        self._stt = None
        self.native.is_wanted = False
        for one in self._pending:
            one.was_fed = True

    def close(self) -> None:
        """The call is over: nobody is told of the stream's end any more."""
        self._on_stop = _nothing

    def settle(self, utterance_no: int, *, has_words: bool = True) -> int | None:
        """The utterance has its final: it is not replayed any more. Returns its ms; None when it is open or unknown."""
        for one in self._pending:
            if one.number == utterance_no and one.end_samples is not None:
                self._pending.remove(one)
                one.was_nothing = not has_words
                return self._ms(one.end_samples - one.start_samples)
        return None

    # ── from the socket ───────────────────────────────────────────────────────────────────────────────────────

    def on_message(self, data: bytes | memoryview, is_text: bool) -> None:
        if not is_text:
            self._on_binary(bytes(data))
            return
        flags = self.native.feed(data)
        if flags:
            if flags & F_SLOW:
                self._on_slow(bytes(data))
            else:
                self._on_flags(flags)

    def _on_slow(self, message: bytes) -> None:
        try:
            event = self._wire.receive(message)
        except RemoteWireError:
            self._note(message, True)
            self._count_bad()
            return
        if isinstance(event, MediaReceived):
            self.on_media(event.payload, event.chunk, event.timestamp_ms)
            return
        self._note(message, True)
        match event:
            case MarkReached(name):
                self._on_mark(name)
            case DtmfReceived(digit):
                if not self._digits.exceeded(self._clock.now_ns()):
                    self._dispatch(ev.DigitReceived(digit))
            case StreamStopped():
                self._on_stop()
            case _:
                pass  # known and without meaning once the stream runs

    def _on_binary(self, payload: bytes) -> None:
        if not isinstance(self._wire, BrowserWire):
            self._note(payload, False)
            self._count_bad()
            return
        try:
            media = self._wire.receive_audio(payload)
        except RemoteWireError:
            self._note(payload, False)
            self._count_bad()
            return
        self.on_media(media.payload, media.chunk, media.timestamp_ms)

    def on_media(self, payload: bytes, chunk: int, timestamp_ms: int) -> None:
        """A media message that somebody else has parsed."""
        self._on_flags(self.native.feed_payload(payload, chunk, timestamp_ms))

    def _count_bad(self) -> None:
        if self._bad.exceeded(self._clock.now_ns()):
            raise RemoteWireError(f"more than {MAX_BAD} bad messages in 10 s", 1008)

    # ── from the native path ──────────────────────────────────────────────────────────────────────────────────

    def _on_flags(self, flags: int) -> None:
        if flags & F_BAD:
            self._count_bad()
        if flags & F_AUDIO and self._stt is not None:
            self._stt.feed_nowait(self.native.take())
        if flags & F_ONSET:
            self._dispatch(ev.SpeechStarted(self._ms(self.native.onset_samples)))
        if flags & F_CONFIRMED:
            self._dispatch(ev.SpeechConfirmed())
        if flags & F_OFFSET:
            native = self.native
            behind = native.position_samples - native.offset_samples
            end_ns = self._clock.now_ns() - behind * 1_000_000_000 // self._rate_hz
            self._dispatch(ev.SpeechStopped(self._ms(native.onset_samples), self._ms(native.offset_samples), end_ns))

    def _ms(self, samples: int) -> int:
        return samples * 1000 // self._rate_hz

    # ── utterances, as the conversation wants them ────────────────────────────────────────────────────────────

    def begin(self, utterance_no: int, start_ms: int) -> None:
        onset, lead = self.native.onset_samples, self.native.lead_samples
        start = max(0, min(onset - PRE_ROLL_MS * self._rate_hz // 1000, lead - LEAD_ROLL_MS * self._rate_hz // 1000))
        last = self._last
        if last is not None and last.end_samples is not None and not last.was_nothing:
            start = max(start, last.end_samples)  # that was heard with the one before
        self._last = _Utterance(utterance_no, start)
        self._pending.append(self._last)
        del self._pending[:-MAX_PENDING]
        if self._stt is not None:
            self._stt.begin_nowait(utterance_no, start * 1000 // self._rate_hz)
            self._feed_from(start)

    def resume(self, utterance_no: int) -> None:
        last = self._last
        if last is None or last.number != utterance_no:
            return
        fed_samples, last.end_samples = last.end_samples, None
        if last not in self._pending:
            self._pending.append(last)
        if self._stt is not None and fed_samples is not None:
            self._stt.resume_nowait(utterance_no)
            self._feed_from(fed_samples)

    def commit(self, utterance_no: int) -> None:
        last = self._last
        if last is not None and last.number == utterance_no:
            last.end_samples = self.native.position_samples
        if self._stt is not None:
            self._stt.feed_nowait(self.native.take())
            self._stt.commit_nowait(utterance_no)
            self.native.is_wanted = False

    def _feed_from(self, start_samples: int) -> None:
        assert self._stt is not None
        self._note_lost(start_samples, self.native.position_samples)
        self.native.seek(start_samples)
        self._stt.feed_nowait(self.native.take())
        self.native.is_wanted = True

    def _note_lost(self, start_samples: int, end_samples: int) -> None:
        oldest_samples = self.native.ring.oldest // self._width
        self.lost_samples += max(0, min(oldest_samples, end_samples) - start_samples)


def _nothing() -> None:
    """The call is over."""
