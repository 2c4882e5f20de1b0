"""One live call: the pure conversation wired to the socket, the providers and the records.

    socket ─► UplinkPath ─► Conversation.step ─► actions ─► recogniser · model · synthesiser · Downlink ─► socket
                  events ─────▲       └─► capture, spool, metrics

The session carries out what the conversation decides and feeds back what happened; it decides nothing itself.
Every task of the call lives in one TaskGroup here. An error that nothing else can handle ends this call and no
other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial

from providers.base import ChatDone, TextDelta, ToolCall
from providers.errors import ProviderError
from server.agent.settings import AgentSettings
from server.call.ahead import OpenedAhead
from server.call.downlink import Downlink, MediaSink, wire_format
from server.call.notes import CaptureNotes
from server.call.providers import CallProviders
from server.call.recogniser import Recogniser, common_format, transcriber_config
from server.call.recorder import BrowserPage, Recorder
from server.call.scoring import SCORED_RATES_HZ
from server.call.services import CallFacts, CallServices
from server.call.speaker import Speaker
from server.call.stepper import Stepper
from server.call.uplink import UplinkPath
from server.carrier.errors import CarrierError
from server.dialogue import event as ev
from server.dialogue.conversation import Conversation
from server.errors import RemoteWireError
from server.store.fact import CallEnded
from server.wire.browser import BrowserWire
from server.wire.event import MediaFormat, Wire

log = logging.getLogger(__name__)

# The words that were on their way when the caller hung up still belong to the transcript.
LAST_WORDS_MS = 3000
# A caller whose line broke is waiting for a second stream; that comes first.
LAST_WORDS_BROKEN_MS = 300
# After the carrier took our hang-up the stream normally ends by itself.
STOP_WAIT_MS = 2000


class CallSession:
    """Runs one media stream of one call. `conversation` is handed on when a second stream carries the call on."""

    def __init__(
        self,
        *,
        services: CallServices,
        providers: CallProviders,
        facts: CallFacts,
        settings: AgentSettings,
        wire: Wire,
        stream_id: str,
        fmt: MediaFormat,
        sink: MediaSink,
        close_socket: Callable[[int], None],
        conversation: Conversation | None = None,
        ahead: OpenedAhead | None = None,
    ) -> None:
        self.facts = facts
        self.conversation = conversation or Conversation(settings, fmt.rate_hz)
        self.end_reason = ""
        self.last_message_ns = services.clock.now_ns()
        self._resumed = conversation is not None
        self._services = services
        self._providers = providers
        self._settings = settings
        self._close_socket = close_socket
        self._now_ns = services.clock.now_ns
        self._began_ns = self._now_ns()
        self._ended = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None
        self._replying: asyncio.Task[None] | None = None
        self._recognising: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()
        stt_format = common_format(providers.ears, wire_format(fmt))
        hears = settings.turn.vad == "silero" and fmt.rate_hz in SCORED_RATES_HZ
        self._capture = services.captures.open(
            settings,
            call_id=facts.call_id,
            carrier=wire.carrier,
            stream_id=stream_id,
            fmt=fmt,
            scored=hears,
            may_reorder=wire.may_reorder,
            resumed=self._resumed,
        )
        self._tape = self._capture.tape if self._capture is not None else None
        notes = CaptureNotes(self._capture)
        self._stepper = Stepper(
            facts.call_id, self.conversation, services.clock, self._capture, self._do, lambda: self.end("error")
        )
        self.dispatch = self._stepper.dispatch
        self.downlink = Downlink(
            wire=wire,
            fmt=fmt,
            sink=sink,
            pacer=services.pacer,
            clock=services.clock,
            dispatch=self.dispatch,
            on_lateness=services.metrics.frame_lateness.observe,
            lead_ms=services.lead_ms,
            chunk_ms=services.chunk_ms,
        )
        self._scorer = services.scoring.open(self._tape) if hears else None
        self.uplink = UplinkPath(
            wire=wire,
            stream_id=stream_id,
            fmt=fmt,
            settings=settings,
            stt_format=stt_format,
            scorer=self._scorer,
            clock=services.clock,
            dispatch=self.dispatch,
            on_mark=self.downlink.on_mark,
            on_stop=lambda: self.end("caller_hung_up"),
            tape=self._tape,
            note=notes.message,
        )
        stt_config = transcriber_config(settings, stt_format, facts.from_number, providers.phrases)
        opened = partial(ahead.take, stt_config) if ahead is not None else None
        self._recogniser = Recogniser(providers.ears, stt_config, self.uplink, self.dispatch, opened, notes.final)
        self._speaker = Speaker(
            providers.synthesizer,
            services.clips,
            self.downlink,
            settings,
            facts.from_number,
            self.dispatch,
            notes.audio,
        )
        names = {"stt": self._recogniser.name, "llm": providers.model.name, "tts": providers.synthesizer.name}
        page = BrowserPage(wire, sink) if isinstance(wire, BrowserWire) else None
        self._recorder = Recorder(facts.call_id, facts.carrier, services.spool, services.metrics, names, page)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, backlog: Sequence[tuple[bytes, bool]] = (), opening: Sequence[bytes] = ()) -> None:
        """From the stream's start to its end; returns when everything of the call has been put away.

        `backlog` holds the messages (data, is_text) that came while the stream was let in, `opening` those before.
        """
        if self._capture is not None:
            self._capture.begin(opening)
        try:
            async with self._group:
                listening = self._recogniser.run()
                self._recognising = self._group.create_task(listening, name=f"{self.facts.call_id} recognise")
                self.dispatch(ev.StreamResumed() if self._resumed else ev.CallBegan())
                self._services.tools.listen(self.facts.call_id, self._on_tool)
                for data, is_text in backlog:
                    self.on_message(data, is_text)
                await self._ended.wait()
                self.dispatch(ev.StreamEnded(self.end_reason))
                await self._last_words()
                self._stop_tasks()
        except* Exception as errors:
            for error in errors.exceptions:
                log.error("call failed", exc_info=error, extra={"event": "call_failed"})
            self.end_reason = "error"
        finally:
            await self._put_away()

    def on_message(self, data: bytes | memoryview, is_text: bool) -> None:
        """A message of the media socket. Never raises: what the peer did wrong ends the stream."""
        self.last_message_ns = now_ns = self._now_ns()
        if self._tape is not None:
            self._tape.now_ns = now_ns
        try:
            self.uplink.on_message(data, is_text)
        except RemoteWireError as error:
            log.warning("stream closed: %s", error, extra={"event": "bad_stream"})
            self._close_socket(error.close_code)
            self.end("media_lost")

    def end(self, reason: str) -> None:
        """The stream is over; the first reason stands."""
        if not self.end_reason:
            self.end_reason = reason
            # At once: the pacer may tick before anybody who waits for the end is woken.
            self.downlink.close()
            self._ended.set()

    async def _last_words(self) -> None:
        wait_ms = LAST_WORDS_BROKEN_MS if self.end_reason == "media_lost" else LAST_WORDS_MS
        limit_ns = self._services.clock.now_ns() + wait_ms * 1_000_000
        while self.conversation.is_awaiting_final() and not self._is_deaf():
            left_s = (limit_ns - self._services.clock.now_ns()) / 1e9
            if left_s <= 0:
                break
            self._recogniser.final_came.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._recogniser.final_came.wait()
            except TimeoutError:
                break

    def _is_deaf(self) -> bool:
        return self._recognising is None or self._recognising.done()

    def _stop_tasks(self) -> None:
        for task in (self._replying, self._speaking, self._recognising):
            if task is not None:
                task.cancel()

    async def _put_away(self) -> None:
        services = self._services
        services.tools.leave(self.facts.call_id, self._on_tool)
        self._stepper.close()
        self.uplink.close()
        services.pacer.remove(self.downlink)
        if self._scorer is not None:
            services.scoring.close(self._scorer)
        await self._recogniser.aclose()
        native, playout = self.uplink.native, self.downlink.playout
        counters = {
            "frames_in": native.frames,
            "frames_out": self.downlink.frames_out,
            "gap_samples": native.gap_samples,
            "duplicates": native.duplicates,
            "reordered": native.reordered,
            "given_up": native.given_up,
            "late": native.late,
            "bad": native.bad,
            "underruns": playout.underruns,
            "overruns_ring_bytes": native.ring.overruns,
            "overruns_reader_samples": native.overruns + self.uplink.lost_samples,
            "overruns_silero_samples": self._scorer.overruns if self._scorer is not None else 0,
        }
        self._count(counters)
        if self._capture is not None:
            self._capture.close(self.end_reason or "error", counters)
        duration_ms = (services.clock.now_ns() - self._began_ns) // 1_000_000
        services.spool.append_nowait(
            CallEnded(
                call_id=self.facts.call_id,
                reason=self.end_reason or "error",
                duration_ms=duration_ms,
                at=services.clock.wall_s(),
                counters=counters,
            )
        )
        log.info(
            "call ended: %s after %.1f s",
            self.end_reason,
            duration_ms / 1000,
            extra={"event": "call_ended", "reason": self.end_reason, "duration_ms": duration_ms, **counters},
        )

    def _count(self, counters: dict[str, int]) -> None:
        metrics = self._services.metrics
        metrics.media_frames.labels("in").inc(counters["frames_in"])
        metrics.media_frames.labels("out").inc(counters["frames_out"])
        metrics.media_gap.inc(counters["gap_samples"] / self.uplink.native.rate_hz)
        metrics.media_duplicates.inc(counters["duplicates"])
        metrics.media_late.inc(counters["late"])
        metrics.media_bad.inc(counters["bad"])
        metrics.underruns.inc(counters["underruns"])
        metrics.media_overruns.labels("ring").inc(counters["overruns_ring_bytes"])
        metrics.media_overruns.labels("reader").inc(counters["overruns_reader_samples"])
        metrics.media_overruns.labels("silero").inc(counters["overruns_silero_samples"])

    # ── the actions of a step ──────────────────────────────────────────────────────────────────────────────

    def _do(self, action: ev.Action) -> None:
        match action:
            case ev.BeginUtterance(number, start_ms):
                self.uplink.begin(number, start_ms)
            case ev.ResumeUtterance(number):
                self.uplink.resume(number)
            case ev.CommitUtterance(number):
                self.uplink.commit(number)
            case ev.RequestReply(number, _):
                self._replying = self._group.create_task(self._reply(number), name=f"{self.facts.call_id} reply")
            case ev.InvokeTool(number, name, arguments):
                tool = next(one for one in self._settings.tools if one.name == name)
                self._services.tools.start(self.facts.call_id, number, tool, arguments)
            case ev.CancelReply():
                if self._replying is not None:
                    self._replying.cancel()
            case ev.Speak():
                self._speaker.add(action)
                if self._speaking is None or self._speaking.done():
                    self._speaking = self._group.create_task(self._speaker.run(), name=f"{self.facts.call_id} speak")
            case ev.Interject(number, text):
                self._speaker.interject(number, text)
            case ev.ClearPlayout():
                self._clear()
            case ev.SetTimer(name, due_ns):
                self._stepper.set_timer(name, due_ns)
            case ev.CancelTimer(name):
                self._stepper.cancel_timer(name)
            case ev.RecordSegment():
                self._recorder.segment(action, is_over=self._ended.is_set())
            case ev.RecordTurn():
                self._recorder.turn(action, is_over=self._ended.is_set())
            case ev.HangUp(reason):
                self._group.create_task(self._hang_up(reason), name=f"{self.facts.call_id} hang up")
            case ev.HandOver(number):
                self._group.create_task(self._hand_over(number), name=f"{self.facts.call_id} hand over")

    def _clear(self) -> None:
        self._speaker.drop()
        if self._speaking is not None:
            self._speaking.cancel()
            self._speaking = None
        self._stepper.answer(self.downlink.clear())

    # ── providers ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _reply(self, reply_no: int) -> None:
        model = self._providers.model
        stream = model.stream(self.conversation.request(self.facts.from_number))
        try:
            async with aclosing(stream) as events:  # type: ignore[type-var]
                async for one in events:
                    match one:
                        case TextDelta(text):
                            self.dispatch(ev.ReplyText(reply_no, text))
                        case ToolCall(tool_id, name, arguments):
                            self.dispatch(ev.ReplyTool(reply_no, tool_id, name, arguments))
                        case ChatDone(reason, prompt_tokens, completion_tokens, _, provider):
                            self.dispatch(ev.ReplyDone(reply_no, reason, prompt_tokens, completion_tokens, provider))
        except ProviderError as error:
            log.warning("model failed: %s", error, extra={"event": "provider_failed"})
            self.dispatch(ev.ReplyFailed(reply_no, str(error)))

    def _on_tool(self, tool_no: int, result: str) -> None:
        self.dispatch(ev.ToolFinished(tool_no, result))

    # ── the end ───────────────────────────────────────────────────────────────────────────────────

    async def _hang_up(self, reason: str) -> None:
        log.info("hanging up: %s", reason, extra={"event": "hang_up", "reason": reason})
        await self._services.hang_up(self.facts)
        # The carrier's stop is the answer to our hang-up.
        await self._leave(f"agent_hung_up:{reason}")

    async def _hand_over(self, number: str) -> None:
        log.warning("handing the call over", extra={"event": "hand_over"})
        try:
            is_done = await self._services.hand_over(self.facts, number)
        except CarrierError as error:
            log.error("hand-over failed: %s", error, extra={"event": "hand_over_failed"})
            self.dispatch(ev.HandOverFailed(str(error)))
        else:
            await self._leave("handed_over" if is_done else "caller_hung_up")

    async def _leave(self, reason: str) -> None:
        """The carrier has been told what to do with the call; our stream of it ends."""
        try:
            async with asyncio.timeout(STOP_WAIT_MS / 1000):
                await self._ended.wait()
        except TimeoutError:
            pass
        if self.end_reason in ("", "caller_hung_up"):
            self.end_reason = reason
        self.downlink.close()
        self._close_socket(1000)
        self._ended.set()
