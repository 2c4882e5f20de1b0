"""What Telnyx's events make happen: a call is answered with a stream or refused, and never left without either.

    call.initiated ─── once a call ───→ a place ──→ 200 ··→ answer with a stream, or reject
    streaming.stopped, .failed ─ once a stream ──→ 200 ··→ a second stream where the first broke, else hang up
    all others ───────────────────────→ a line in the log

Telnyx delivers twice, at once and in any order, to whichever process: what an event makes happen is remembered, for all
processes, until its signature is too old to be taken again. Commands go out after the answer to the webhook; at most
MAX_COMMANDS at a time, beyond which Telnyx is told to deliver again. A call that we placed is not answered.

`answer` has no field for a secret, so the stream's stands in the path of its address; it is good for one use.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from typing import Any

from server.call.plane import CallPlane
from server.carrier.errors import CarrierError
from server.carrier.signature import TELNYX_WINDOW_S
from server.carrier.telnyx_rest import RejectCause, TelnyxRest
from server.edge.reception import accepted, read_answer, written
from server.edge.telnyx_routes import Overloaded, TelnyxEvent
from server.edge.twilio_routes import Accepted, Refused, caller_number, media_url
from server.store.agents import AgentStore
from server.store.answer import Made, SharedAnswers

MEMORY_S = TELNYX_WINDOW_S + 60
"""How long `answers` must remember: an event may be delivered again for as long as its signature holds."""
MAX_COMMANDS = 500
CLOSE_S = 3.0

_STREAM_ID = re.compile(r"/media/telnyx/([A-Za-z0-9_-]{16,64})(?:/|$)")
_CAUSES: dict[str, RejectCause] = {
    "busy": "USER_BUSY",
    "unknown_number": "NOT_FOUND",
    "failed": "TEMPORARILY_UNAVAILABLE",
}

log = logging.getLogger(__name__)


class TelnyxDesk:
    """Implements TelnyxCalls. `answers` remembers for MEMORY_S."""

    def __init__(
        self, plane: CallPlane, agents: AgentStore, rest: TelnyxRest, answers: SharedAnswers, public_url: str
    ) -> None:
        self._plane = plane
        self._agents = agents
        self._rest = rest
        self._answers = answers
        self._public_url = public_url
        self._commands: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let commands that are on their way finish for CLOSE_S, cut the rest."""
        if self._commands:
            _, late = await asyncio.wait(self._commands, timeout=CLOSE_S)
            for task in late:
                task.cancel()

    async def on_event(self, event: TelnyxEvent) -> None:
        extra = {"event": "carrier_status", "carrier_call_id": event.call_control_id, "status": event.kind}
        match event.kind:
            case "call.hangup":
                why = f"{event.text('hangup_cause')} by {event.text('hangup_source')}"
                log.info("call over: %s, SIP %s", why, event.text("sip_hangup_cause"), extra=extra)
            case "streaming.failed":
                log.warning("stream failed: %s", event.text("failure_reason"), extra=extra)
            case _:
                log.info("call event %s", event.kind, extra=extra)
        if not event.call_control_id:
            return
        if event.kind == "call.initiated" and event.text("direction") == "incoming":
            await self._on_initiated(event)
        elif event.kind in ("streaming.stopped", "streaming.failed"):
            found = _STREAM_ID.search(_stream_url(event))
            if found is not None:
                self._check_room()
                self._start(self._after_stream(event.call_control_id, found[1]))

    async def _on_initiated(self, event: TelnyxEvent) -> None:
        self._check_room()
        call, is_ours = event.call_control_id, False

        async def make() -> Made:
            nonlocal is_ours
            made, is_ours = await self._accept(event), True
            # What was refused now may be taken when Telnyx asks again.
            return written(made), isinstance(made, Accepted)

        answer = read_answer(await self._answers.once(f"telnyx:{call}", make))
        if not is_ours:
            return  # who made the answer has sent it
        if isinstance(answer, Accepted):
            self._start(self._answer(call, self._stream_url(answer)))
        else:
            log.info("call refused: %s", answer.reason, extra={"event": "refused_call", "carrier_call_id": call})
            self._start(self._reject(call, _CAUSES[answer.reason]))

    async def _accept(self, event: TelnyxEvent) -> Accepted | Refused:
        to_number = event.text("to")
        version = await self._agents.agent_for_number(to_number)
        if version is None:
            return Refused("unknown_number")
        caller = caller_number(event.text("from"))
        return accepted(await self._plane.reserve("telnyx", event.call_control_id, caller, to_number, version))

    # ── commands ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, call: str, stream_url: str) -> None:
        try:
            await self._rest.answer(call, stream_url)
        except CarrierError as error:
            # Its place is free again after 15 s; Telnyx ends a call that gets no command.
            log.error("not answered: %s", error, extra={"event": "answer_failed", "carrier_call_id": call})

    async def _reject(self, call: str, cause: RejectCause) -> None:
        try:
            await self._rest.reject(call, cause)
        except CarrierError as error:
            log.error("not rejected: %s", error, extra={"event": "reject_failed", "carrier_call_id": call})

    async def _after_stream(self, call: str, stream_id: str) -> None:
        """The stream is over and the call may not be: carry on where it broke, else make sure that the call ends."""
        is_ours = False

        async def make() -> Made:
            nonlocal is_ours
            made, is_ours = accepted(await self._plane.resume(call)), True
            return written(made), True

        answer = read_answer(await self._answers.once(f"telnyx-after:{stream_id}", make))
        if not is_ours:
            return
        try:
            if not isinstance(answer, Accepted):
                await self._rest.hang_up(call)
                return
            log.warning("a second stream", extra={"event": "stream_resumed", "carrier_call_id": call})
            await self._rest.start_stream(call, self._stream_url(answer))
        except CarrierError as error:
            log.error("after the stream: %s", error, extra={"event": "hang_up_failed", "carrier_call_id": call})

    def _stream_url(self, answer: Accepted) -> str:
        return f"{media_url(self._public_url, 'telnyx', answer.stream_id)}/{answer.secret}"

    def _check_room(self) -> None:
        """Asked before anything is decided: the next delivery would find it decided, and do nothing."""
        if len(self._commands) >= MAX_COMMANDS:
            raise Overloaded

    def _start(self, command: Coroutine[Any, Any, None]) -> None:
        # Documented place: one task a command, bounded by MAX_COMMANDS and events on their way, ended by close().
        task = asyncio.get_running_loop().create_task(command, name="telnyx command")
        self._commands.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._commands.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a command failed by %r", error, exc_info=error)


def _stream_url(event: TelnyxEvent) -> str:
    """Of which stream an event is: `streaming.failed` says so one level deeper."""
    inner = event.fields.get("stream_params")
    nested = inner.get("stream_url") if isinstance(inner, dict) else None
    return event.text("stream_url") or (nested if isinstance(nested, str) else "")
