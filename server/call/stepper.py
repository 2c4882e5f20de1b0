"""The conversation in time: events in order, one step each, its timers, and the capture of all of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from server.call.capture import Capture
from server.clock import Clock
from server.dialogue import event as ev
from server.dialogue.conversation import Conversation
from server.logs import bind_call

log = logging.getLogger(__name__)

# Events that one step may cause in a row; more is a loop of ours.
MAX_CASCADE = 1000


class Stepper:
    """Feeds one conversation.

    Args:
        perform: carries out one action; it may dispatch further events.
        fail: the conversation or an action raised; nothing more will be stepped of what was waiting.
    """

    def __init__(
        self,
        call_id: str,
        conversation: Conversation,
        clock: Clock,
        capture: Capture | None,
        perform: Callable[[ev.Action], None],
        fail: Callable[[], None],
    ) -> None:
        self._call_id = call_id
        self._conversation = conversation
        self._clock = clock
        self._capture = capture
        self._perform = perform
        self._fail = fail
        self._events: deque[ev.Event] = deque()
        self._is_stepping = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def dispatch(self, event: ev.Event) -> None:
        """Feed one event to the conversation and carry out what it decides. Re-entrant: events queue up."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            # Events come from socket callbacks and timers too, which run outside the call's context.
            with bind_call(self._call_id):
                self._step_all()
        except Exception:
            log.exception("the conversation failed", extra={"event": "call_failed"})
            self._events.clear()
            self._fail()
        finally:
            self._is_stepping = False

    def answer(self, event: ev.Event) -> None:
        """What an action that is being carried out has led to: the conversation learns it before anything else."""
        self._events.appendleft(event)

    def _step_all(self) -> None:
        for _ in range(MAX_CASCADE):
            if not self._events:
                return
            one = self._events.popleft()
            now_ns = self._clock.now_ns()
            try:
                actions = self._conversation.step(one, now_ns)
            except Exception:
                # The event that it failed at is what a replay needs most.
                if self._capture is not None:
                    self._capture.step(now_ns, one, [])
                raise
            if self._capture is not None:
                self._capture.step(now_ns, one, actions)
            for action in actions:
                self._perform(action)
        raise RuntimeError(f"more than {MAX_CASCADE} events in a row")

    def set_timer(self, name: str, due_ns: int) -> None:
        """Dispatch TimerFired(name) at `due_ns`; an earlier setting of the same name is replaced."""
        self.cancel_timer(name)
        delay_s = max(0, due_ns - self._clock.now_ns()) / 1e9
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, self._on_timer, name)

    def cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """No timer fires any more, and nothing is carried out."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        # Both lead back to whoever holds this one: a ring that only the garbage collector would open.
        self._perform, self._fail = _nothing, _nothing

    def _on_timer(self, name: str) -> None:
        self._timers.pop(name, None)
        self.dispatch(ev.TimerFired(name))


def _nothing(*_: object) -> None:
    """The call is over."""
