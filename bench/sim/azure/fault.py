"""Faults of the Speech service, switchable while it runs, counted when they were really carried out."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

# Instead of an accepted connection.
UPGRADE = frozenset({
    "refuse",  # RST instead of an answer
    "http",  # `status` instead of 101
    "hold",  # no answer, the connection stays open
})  # fmt: skip
# In a turn, of recognition or synthesis. after_ms counts received or sent audio.
TURN = frozenset({
    "silent",  # not one message
    "mute",  # nothing more after after_ms; the connection stays open
    "slow",  # each message delay_ms later
    "cut",  # RST after after_ms
    "close",  # closed with `code` and `reason` after after_ms; 4429 is the quota's
    "garbage_text",  # a text without headers
    "garbage_binary",  # bytes whose headers are none
    "torn_binary",  # bytes shorter than their headers say; the SDK 1.53 reads on and crashes its process
    "bad_json",  # a proper message whose body is none
    "unknown_path",  # a message of a kind that nobody knows
    "oversize",  # a message of size_bytes (recognition: an interim; synthesis: audio)
    "no_turn_end",  # all but the last message
})  # fmt: skip
STT = frozenset({
    "duplicate_final",  # the first final twice
    "late_final",  # the first final delay_ms later
    "long_final",  # the first final with a text of size_bytes
    "error_phrase",  # RecognitionStatus Error instead of the first final
})  # fmt: skip
TTS = frozenset({
    "stall",  # delay_ms of nothing after after_ms of audio
    "empty",  # no audio, a proper end
    "short",  # a tenth of the audio, a proper end
    "wrong_rate",  # the audio at twice its rate
    "riff_head",  # a RIFF header before raw samples
    "noise",  # as long as it should be, and random
    "flat",  # as long as it should be, and silent
})  # fmt: skip
# Of the plain HTTP requests.
PLAIN = frozenset({"refuse", "http", "hold"})
SERVICES = frozenset({"stt", "tts", "token", "voices", "any"})
KINDS = UPGRADE | TURN | STT | TTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Args:
        kind: one of KINDS. on: the service that suffers.
        times: how many connections or turns suffer, None: no end. probability: of each. for_s: time until it is over.
        after_ms: of audio, before it strikes; with until_ms a random one between both.
        delay_ms: of slow, stall, late_final. status, retry_after: of http. code, reason: of close.
    """

    kind: str
    on: str = "any"
    times: int | None = 1
    probability: float = 1.0
    for_s: float | None = None
    after_ms: float = 0.0
    until_ms: float = 0.0
    delay_ms: float = 1000.0
    status: int = 503
    retry_after: str = ""
    code: int = 1011
    reason: str = ""
    size_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.on not in SERVICES:
            raise ValueError(f"fault: expected a kind of {sorted(KINDS)} on one of {sorted(SERVICES)}; got {self}")
        if (self.kind in STT and self.on not in ("stt", "any")) or (self.kind in TTS and self.on not in ("tts", "any")):
            raise ValueError(f"fault: {self.kind} is none of {self.on}")
        if not 0 <= self.probability <= 1 or (self.times is not None and self.times < 1):
            raise ValueError(f"fault: expected a probability of 0 to 1 and at least one time; got {self}")

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Fault:
        unknown = set(raw) - {one.name for one in fields(cls)}
        if unknown or "kind" not in raw:
            raise ValueError(f"fault: expected the fields of a fault, one of them kind; got {sorted(raw)}")
        return cls(**raw)

    @property
    def label(self) -> str:
        """What it is counted as: http_429, close_4429, cut."""
        return {"http": f"http_{self.status}", "close": f"close_{self.code}"}.get(self.kind, self.kind)


class FaultBox:
    """The faults that wait, in the order of their arrival. `injected` counts those that came to pass, by label."""

    __slots__ = ("_dice", "_waiting", "injected")

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._waiting: list[tuple[Fault, float, int | None]] = []
        self.injected: Counter[str] = Counter()

    def add(self, fault: Fault) -> None:
        until_s = time.monotonic() + fault.for_s if fault.for_s is not None else float("inf")
        self._waiting.append((fault, until_s, fault.times))

    def clear(self) -> None:
        """No more faults; the counts stay."""
        self._waiting.clear()

    def waiting(self) -> list[Fault]:
        now = time.monotonic()
        self._waiting = [one for one in self._waiting if one[1] > now]
        return [fault for fault, _, _ in self._waiting]

    def pick(self, service: str, kinds: Collection[str]) -> Fault | None:
        """The first waiting fault that this connection or turn suffers, its random place drawn."""
        self.waiting()
        for at, (fault, until_s, times) in enumerate(self._waiting):
            if fault.on not in (service, "any") or fault.kind not in kinds:
                continue
            if fault.probability < 1 and self._dice.random() >= fault.probability:
                continue
            if times == 1:
                del self._waiting[at]
            elif times is not None:
                self._waiting[at] = (fault, until_s, times - 1)
            if fault.until_ms > fault.after_ms:
                return replace(fault, after_ms=self._dice.uniform(fault.after_ms, fault.until_ms))
            return fault
        return None

    def carried_out(self, fault: Fault) -> None:
        self.injected[fault.label] += 1
