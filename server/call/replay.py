"""A captured call decided again: are its decisions still the same, and what would other settings have decided?

    capture ─► (instant, event) ─► Conversation.step ─► decisions ─► SHA-256, compared with what was decided then
        └─ with audio: messages and recorded scores ─► Uplink ─► what was heard, compared and hashed too

The hash is over what was heard and decided, in order, as canonical JSON: the same on every machine, since nothing here
reads a clock, draws a number or depends on the order of a set. With other settings the events stay those of the
recorded call, which the other agent would not have had in all of its parts: the first difference says most. Where the
capture does not say which keys were pressed, digits of texts after the first of them are not compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from server.agent.settings import AgentSettings, SettingsError
from server.call.capture_file import NOTHING, CaptureError, End, Head, Record, Step, Tape, Text, read
from server.call.keymask import KeyMask
from server.call.rehear import HEARD, HeardAgain, Scores, is_same, plain
from server.call.shape import check_fields
from server.dialogue import event as ev
from server.dialogue.conversation import Conversation
from server.turn.machine import UnexpectedEvent

MAX_DIFFERENCES = 50
BEHEADED = "it begins in the middle of the call: what came before is missing"


@dataclass(frozen=True, slots=True)
class Difference:
    """At step `number` (from 1) it is otherwise than then. Actions, and what was heard, are [name, fields]."""

    number: int
    now_ns: int
    event: str
    recorded: tuple[Any, ...]
    decided: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """In a capture's records: some are missing here, and the stream that went on after them is left out."""


@dataclass(slots=True)
class Replayed:
    """`recorded_hash` and `decided_hash` are equal when all is. Both are empty for a recomputation.

    `heard`: speech events that were heard again. `scores`: of a recomputation. `is_cut`: the capture ends before the
    call did: it was truncated, or the server died. `has_gap`: after that it went on, which is not decided again.
    `is_masked`: keys were pressed, and the capture does not say which.
    """

    steps: int = 0
    heard: int = 0
    recorded_hash: str = ""
    decided_hash: str = ""
    differences: list[Difference] = field(default_factory=list)
    dropped: int = 0
    scores: Scores | None = None
    is_cut: bool = True
    has_gap: bool = False
    is_masked: bool = False

    @property
    def is_same(self) -> bool:
        return self.recorded_hash == self.decided_hash and not self.differences

    def differs(self, one: Difference) -> None:
        """Note it, as far as there is room."""
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(one)
        else:
            self.dropped += 1

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "steps": self.steps,
            "heard": self.heard,
            "recorded_hash": self.recorded_hash,
            "decided_hash": self.decided_hash,
            "same": self.is_same,
            "cut": self.is_cut,
            "gap": self.has_gap,
            "masked": self.is_masked,
            "scores": None if self.scores is None else asdict(self.scores),
            "differences": [
                {
                    "step": one.number,
                    "now_ns": one.now_ns,
                    "event": one.event,
                    "recorded": list(one.recorded),
                    "decided": list(one.decided),
                }
                for one in self.differences
            ],
            "more_differences": self.dropped,
        }


def replay_capture(path: Path, against: AgentSettings | None = None) -> Replayed:
    """Decide `path` again, with the settings that it holds or with others.

    Raises:
        CaptureError: not a capture, or one that this version cannot read. OSError: it cannot be read.
        UnexpectedEvent: other settings brought the conversation where a recorded event cannot happen.
    """
    result = Replayed()
    then, now = hashlib.sha256(), hashlib.sha256()
    stream: HeardAgain | None = None
    conversation: Conversation | None = None
    mask: KeyMask | None = None
    for record in continuous(read(path)):
        match record:
            case Missing():
                result.has_gap = result.is_cut = True
            case Head():
                result.is_cut = True
                mask = mask_of(record)
                settings = against or settings_of(record)
                if conversation is None or not record.resumed:
                    conversation = Conversation(settings, record.rate_hz)
                # Other settings would hear otherwise; with them the recorded events count.
                stream = HeardAgain(record, settings, None, Scores()) if record.has_audio and not against else None
            case Tape(entries) if stream is not None:
                for entry in entries:
                    now.update(_surplus(stream, result))
                    stream.entry(entry)
            case Text() if stream is not None:
                now.update(_surplus(stream, result))
                stream.text(record)
            case Step(now_ns, name, _, recorded) if conversation is not None:
                result.steps += 1
                event = event_of(record)
                if stream is not None and isinstance(event, HEARD):
                    then.update(canonical(plain(event)))
                    now.update(_matched(stream, event, now_ns, result))
                decided = decisions(conversation, event, now_ns, mask)
                result.is_masked = result.is_masked or (mask is not None and mask.is_on)
                then.update(canonical(recorded))
                now.update(canonical(decided))
                if recorded != decided:
                    result.differs(Difference(result.steps, now_ns, name, tuple(recorded), tuple(decided)))
            case End():
                result.is_cut = record.is_truncated
    if conversation is None:
        raise CaptureError(BEHEADED if result.has_gap else NOTHING)
    result.recorded_hash, result.decided_hash = then.hexdigest(), now.hexdigest()
    return result


def steps(path: Path) -> Iterator[tuple[int, ev.Event, list[Any], list[Any]]]:
    """Yields (now_ns, event, actions as recorded, actions as decided now), JSON-plain. Raises as `replay_capture`."""
    conversation: Conversation | None = None
    mask: KeyMask | None = None
    for record in continuous(read(path)):
        if isinstance(record, Head):
            mask = mask_of(record)
            if conversation is None or not record.resumed:
                conversation = Conversation(settings_of(record), record.rate_hz)
        elif isinstance(record, Step) and conversation is not None:
            event = event_of(record)
            yield record.now_ns, event, record.actions, decisions(conversation, event, record.now_ns, mask)


def continuous(records: Iterable[Record]) -> Iterator[Record | Missing]:
    """The records of a call as far as nothing is missing between them.

    A stream that goes on with the call (`resumed`) does so from the end of the part before. Where that is missing, the
    conversation is in a state that nobody knows: `Missing` stands for the stream.
    """
    is_whole = is_left_out = False
    for record in records:
        if isinstance(record, Head):
            is_left_out = record.resumed and not is_whole
            if is_left_out:
                yield Missing()
        if not is_left_out:
            yield record
        is_whole = not is_left_out and isinstance(record, End) and not record.is_truncated


def _surplus(stream: HeardAgain, result: Replayed) -> bytes:
    """What is heard now and was not then; hashed, so that it shows."""
    seen = b""
    while stream.heard:
        at_ns, event = stream.heard.popleft()
        result.differs(Difference(result.steps, at_ns, "heard", (), (plain(event),)))
        seen += canonical(plain(event))
    return seen


def _matched(stream: HeardAgain, event: ev.Event, now_ns: int, result: Replayed) -> bytes:
    """What is heard now where `event` was heard then."""
    if not stream.heard:
        result.differs(Difference(result.steps, now_ns, "heard", (plain(event),), ()))
        return b""
    heard = stream.heard.popleft()[1]
    result.heard += 1
    if not is_same(event, heard):
        result.differs(Difference(result.steps, now_ns, "heard", (plain(event),), (plain(heard),)))
    return canonical(plain(heard))


def settings_of(head: Head) -> AgentSettings:
    """Raises CaptureError for settings that this version does not know."""
    try:
        return AgentSettings.parse(head.settings)
    except SettingsError as error:
        raise CaptureError(f"made by another version: {error}") from error


def mask_of(head: Head) -> KeyMask | None:
    """What was written as another digit, and is to be compared so. None where keys were kept."""
    return KeyMask(resumed=head.resumed) if head.masks_keys else None


def event_of(step: Step) -> ev.Event:
    """Raises CaptureError for an event that this version does not know."""
    try:
        kind = ev.EVENTS.get(step.name)
        if kind is not None:
            check_fields(kind, step.values)
        return ev.event_from(step.name, step.values)
    except (TypeError, ValueError) as error:
        raise CaptureError(f"made by another version: {error}") from error


def decisions(conversation: Conversation, event: ev.Event, now_ns: int, mask: KeyMask | None) -> list[Any]:
    """The actions of one step, JSON-plain as a capture holds them; through `mask`, if there is one.

    Raises:
        UnexpectedEvent: it cannot happen here. CaptureError: with it the conversation fails, as no call did.
    """
    try:
        made = conversation.step(event, now_ns)
    except UnexpectedEvent:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CaptureError(f"{type(event).__name__} cannot be decided: {error!r:.100}") from error
    plain_again: list[Any] = orjson.loads(orjson.dumps([[type(one).__name__, one] for one in made]))
    if mask is None:
        return plain_again
    values = {"digit": event.digit} if isinstance(event, ev.DigitReceived) else {}
    return mask.step(type(event).__name__, values, plain_again)[1]


def canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) + b"\n"


def lines(result: Replayed) -> Iterator[str]:
    """For people: the verdict, then the differences."""
    heard = f", {result.heard} speech events heard again" if result.heard else ""
    yield f"{result.steps} steps{heard}" + (f", decisions {result.decided_hash[:16]}" if result.decided_hash else "")
    if result.has_gap:
        yield "what came between is missing: the stream that went on after it is not decided again"
    elif result.is_cut:
        yield "the capture ends before the call"
    if result.is_masked:
        yield "which keys were pressed is not in it: after the first, digits of texts are not compared"
    if result.scores is not None and result.scores.first:
        yield f"{result.scores.first} windows scored for the first time: the call was heard by the detector alone"
    elif result.scores is not None:
        yield (
            f"{result.scores.windows} windows scored again: {result.scores.changed} otherwise, "
            f"by {result.scores.largest_change} of 255 at most"
        )
    if result.is_same:
        yield "the same as recorded"
        return
    count = len(result.differences) + result.dropped
    yield f"{count} steps differ" + (f" (recorded {result.recorded_hash[:16]})" if result.recorded_hash else "")
    for one in result.differences:
        yield f"  step {one.number} {one.event}: recorded {_short(one.recorded)}"
        yield f"  {'':>{len(str(one.number)) + len(one.event) + 6}} now      {_short(one.decided)}"
    if result.dropped:
        yield f"  and {result.dropped} more"


def _short(actions: tuple[Any, ...]) -> str:
    return "; ".join(f"{name} {orjson.dumps(values).decode()}" for name, values in actions)[:160] or "nothing"
