"""What a call leaves behind: segments and turns to the spool, the metrics, the log, and the page of a browser."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from server.call.downlink import MediaSink
from server.dialogue import event as ev
from server.logs import Spoken
from server.metrics import Metrics
from server.store.fact import SegmentFact, TurnFact
from server.store.spool import Spool
from server.wire.browser import BrowserWire

log = logging.getLogger(__name__)


class Recorder:
    """`providers`: service (stt, llm, tts) -> who serves it. `page` is None for carriers."""

    __slots__ = ("_call_id", "_channel", "_metrics", "_page", "_providers", "_spool")

    def __init__(
        self,
        call_id: str,
        channel: str,
        spool: Spool,
        metrics: Metrics,
        providers: Mapping[str, str],
        page: BrowserPage | None,
    ) -> None:
        self._call_id = call_id
        self._channel = channel
        self._spool = spool
        self._metrics = metrics
        self._providers = dict(providers)
        self._page = page

    def segment(self, one: ev.RecordSegment, *, is_over: bool) -> None:
        """`is_over`: the stream has ended and shows nothing any more."""
        self._spool.append_nowait(
            SegmentFact(
                call_id=self._call_id,
                seq=one.segment_no,
                speaker=one.speaker,
                text=one.text,
                heard_text=one.heard_text,
                start_ms=one.start_ms,
                end_ms=one.end_ms,
                confidence=one.confidence,
                interrupted=one.interrupted,
            )
        )
        if self._page is not None and not is_over:
            self._page.show_segment(one)
        log.info(
            "%s: %s",
            one.speaker,
            Spoken(one.heard_text),
            extra={
                "event": "segment",
                "speaker": one.speaker,
                "text": Spoken(one.text),
                "heard_text": Spoken(one.heard_text),
                "start_ms": one.start_ms,
                "end_ms": one.end_ms,
                "interrupted": one.interrupted,
            },
        )

    def turn(self, one: ev.RecordTurn, *, is_over: bool) -> None:
        stages = dict(one.stages)
        names = {**self._providers, **({"llm": one.model_provider} if one.model_provider else {})}
        if one.latency_ms is not None:
            self._metrics.observe_turn(stages, one.latency_ms, self._channel, names)
        self._spool.append_nowait(
            TurnFact(
                call_id=self._call_id,
                turn_no=one.turn_no,
                stages=stages,
                turn_latency_ms=one.latency_ms,
                interrupted=one.interrupted,
                caller_text=one.caller_text,
                agent_text=one.agent_text,
                prompt_tokens=one.prompt_tokens,
                completion_tokens=one.completion_tokens,
                providers=names,
            )
        )
        if self._page is not None and not is_over:
            self._page.show_turn(one)
        log.info(
            "turn %d: %s ms",
            one.turn_no,
            "-" if one.latency_ms is None else round(one.latency_ms),
            extra={
                "event": "turn",
                "turn_no": one.turn_no,
                "latency_ms": one.latency_ms,
                "interrupted": one.interrupted,
                "stages": stages,
                "providers": names,
            },
        )


class BrowserPage:
    """What a browser is shown beside the sound: the transcript and the latency of each turn."""

    __slots__ = ("_sink", "_wire")

    def __init__(self, wire: BrowserWire, sink: MediaSink) -> None:
        self._wire = wire
        self._sink = sink

    def show_segment(self, one: ev.RecordSegment) -> None:
        speaker: Literal["caller", "agent"] = "caller" if one.speaker == "caller" else "agent"
        self._sink.send_control(self._wire.transcript(speaker, one.heard_text, final=True))

    def show_turn(self, one: ev.RecordTurn) -> None:
        if one.latency_ms is not None:
            self._sink.send_control(self._wire.turn(one.latency_ms, dict(one.stages)))
