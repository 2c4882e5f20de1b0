"""A captured call with its audio judged again by the network: what is heard, and decided, otherwise than then?

    tape ─► Uplink + network ─► heard ──┐
    recorded provider events ───────────┴─► Conversation.step ─► decisions, compared

While what is heard stays the same, recorded instants and timers count, so that only true differences show. After the
first that does not, the conversation's timers run by the virtual clock, and instants are left out of the comparison.
What providers said stays that of the recorded call. A result is no part of the hash: scores are floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_native.silero import SileroNet
from audio_native.silero_weights import packaged_file, read_weights
from server.agent.settings import AgentSettings
from server.call.capture_file import NOTHING, CaptureError, End, Head, Record, Step, Tape, Text, read
from server.call.keymask import KeyMask
from server.call.rehear import HEARD, HeardAgain, Scores, is_same, plain
from server.call.replay import (
    BEHEADED,
    Difference,
    Missing,
    Replayed,
    continuous,
    decisions,
    event_of,
    mask_of,
    settings_of,
)
from server.dialogue import event as ev
from server.dialogue.conversation import Conversation
from server.turn.machine import UnexpectedEvent

# Fields that hold an instant or a duration.
_INSTANTS = ("due_ns", "end_ns", "latency_ms", "stages", "start_ms", "end_ms")


def recompute(path: Path, against: AgentSettings | None = None) -> Replayed:
    """Hear and decide `path` again, with the settings that it holds or with others.

    Raises:
        CaptureError: not a capture, one without audio, or one that this version cannot read. OSError: unreadable.
        WeightsError: the network's weights are missing.
    """
    return _again(path, SileroNet(read_weights(packaged_file())), against).result


def decided(path: Path, against: AgentSettings | None = None) -> list[Decided]:
    """All steps as they are heard and decided now, by the recorded scores. Raises as `recompute`."""
    return _again(path, None, against).log


def _again(path: Path, net: SileroNet | None, against: AgentSettings | None) -> _Again:
    again = _Again(net, against)
    for record, following in _with_next(continuous(read(path))):
        try:
            again.record(record, following)
        except UnexpectedEvent as error:
            number, now_ns = again.result.steps, again.now_ns
            again.result.differs(Difference(number, now_ns, f"ends here: {error}", (), ()))
            break
    if not again.has_begun:
        raise CaptureError(BEHEADED if again.result.has_gap else NOTHING)
    return again


@dataclass(frozen=True, slots=True)
class Decided:
    """One step of a call that is heard again: the event at its instant and the actions, JSON-plain."""

    now_ns: int
    event: ev.Event
    actions: list[Any]


class _Again:
    def __init__(self, net: SileroNet | None, against: AgentSettings | None) -> None:
        self.result = Replayed(scores=Scores())
        self.log: list[Decided] = []
        self.now_ns = 0
        self._net = net
        self._against = against
        self._stream: HeardAgain | None = None
        self._conversation: Conversation | None = None
        self._mask: KeyMask | None = None
        self._timers: dict[str, int] = {}
        self._has_left = False  # the recorded call's path

    @property
    def has_begun(self) -> bool:
        return self._conversation is not None

    def record(self, record: Record | Missing, following: Record | Missing | None) -> None:
        match record:
            case Missing():
                self.result.has_gap = self.result.is_cut = True
            case Head():
                self._begin(record)
            case Tape(entries):
                for entry in entries:
                    self._advance(entry[1])
                    self._hear().entry(entry)
            case Text():
                self._advance(record.at_ns)
                self._hear().text(record)
            case Step():
                self.result.steps += 1
                self._step(record, following)
            case End():
                self.result.is_cut = record.is_truncated

    def _begin(self, head: Head) -> None:
        if not head.has_audio:
            raise CaptureError("no audio in it: the agent's setting capture.audio was off")
        self._mask = mask_of(head)
        settings = self._against or settings_of(head)
        if self._conversation is None or not head.resumed:
            self._conversation = Conversation(settings, head.rate_hz)
        assert self.result.scores is not None
        self.result.is_cut = True
        self._stream = HeardAgain(head, settings, self._net, self.result.scores)

    def _hear(self) -> HeardAgain:
        if self._stream is None:
            raise CaptureError("a part does not begin with what the call was made from")
        return self._stream

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, step: Step, following: Record | Missing | None) -> None:
        event = event_of(step)
        if isinstance(event, HEARD):
            heard = self._hear().heard
            if not heard or not is_same(event, heard[0][1]):
                self._has_left = True
                self._differ(step.now_ns, "heard", [plain(event)], [])
                return
            heard.popleft()
            self.result.heard += 1
        elif self._has_left and isinstance(event, ev.TimerFired | ev.PlayoutCleared):
            return  # the timers are ours now, and a clear is answered where it is ordered
        decided = self._decide(event, step.now_ns, following)
        recorded = step.actions
        if self._has_left:
            recorded, decided = _without_instants(recorded), _without_instants(decided)
        if recorded != decided:
            self._has_left = True
            self._differ(step.now_ns, step.name, recorded, decided)

    def _advance(self, now_ns: int) -> None:
        """Time passes: what is heard now and was not then, and timers that are due."""
        heard = self._hear().heard
        while heard:
            at_ns, event = heard.popleft()
            self._has_left = True
            self.result.heard += 1
            self._differ(at_ns, "heard", [], [plain(event), *self._decide(event, at_ns, None)])
        while self._has_left and self._timers:
            name = min(self._timers, key=lambda one: self._timers[one])
            due_ns = self._timers[name]
            if due_ns > now_ns:
                break
            del self._timers[name]
            event = ev.TimerFired(name)
            decided = self._decide(event, due_ns, None)
            if decided:
                self._differ(due_ns, f"timer {name}", [], decided)
        self.now_ns = now_ns

    def _decide(self, event: ev.Event, now_ns: int, following: Record | Missing | None) -> list[Any]:
        assert self._conversation is not None
        if isinstance(event, ev.TimerFired):
            self._timers.pop(event.name, None)
        decided = decisions(self._conversation, event, now_ns, self._mask)
        self.result.is_masked = self.result.is_masked or (self._mask is not None and self._mask.is_on)
        self.log.append(Decided(now_ns, event, decided))
        for name, values in decided:
            if name == "SetTimer":
                self._timers[values["name"]] = values["due_ns"]
            elif name == "CancelTimer":
                self._timers.pop(values["name"], None)
            elif name == "ClearPlayout" and self._has_left:
                # What was heard of the agent is known where the recorded call cleared too.
                known = isinstance(following, Step) and following.name == "PlayoutCleared"
                cleared = event_of(following) if known and isinstance(following, Step) else ev.PlayoutCleared(())
                decided = [*decided, *self._decide(cleared, now_ns, None)]
        return decided

    def _differ(self, now_ns: int, event: str, recorded: list[Any], decided: list[Any]) -> None:
        self.result.differs(Difference(self.result.steps, now_ns, event, tuple(recorded), tuple(decided)))


def _without_instants(actions: list[Any]) -> list[Any]:
    return [[name, {key: one for key, one in values.items() if key not in _INSTANTS}] for name, values in actions]


def _with_next(records: Iterable[Record | Missing]) -> Iterator[tuple[Record | Missing, Record | Missing | None]]:
    """Each record and the one after it."""
    before: Record | Missing | None = None
    for one in records:
        if before is not None:
            yield before, one
        before = one
    if before is not None:
        yield before, None
