"""Faults of a language service, switchable while it runs, counted exactly.

A fault waits in the box until a request of its route comes; the first one whose turn it is and whose dice agree is
`picked`, and `injected` once it was really carried out (a client that leaves earlier was picked, not injected).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bench.sim.openai.flavour import REFUSALS

# What the connection suffers instead of an answer.
CONNECTION = frozenset({"close", "reset"})
# What an answer suffers. For speech `after_tokens` counts chunks of audio, for an answer in one piece (transcription)
# bytes of its body.
STREAM = frozenset({
    "slow_first_token",  # delay_ms before anything, the head included
    "silence",  # nothing more after n tokens, the connection stays open
    "stall",  # delay_ms of nothing after n tokens, then the rest
    "comments",  # nothing but keep-alive comments after n tokens
    "error_event",  # an error object in the running stream
    "stream_reset",  # RST in the running stream
    "stream_cut",  # connection closed inside the body, no last chunk
    "early_end",  # a proper end of the body after n tokens, no finish, no [DONE]
    "no_done",  # the whole answer, only [DONE] is missing
    "garbage", "bad_utf8",  # an event that is no JSON, one that is no UTF-8; speech: noise instead of samples
    "endless",  # tokens until the client leaves, at most endless_bytes
    "finish_length", "finish_content_filter",  # ended early with that reason
    "json_200",  # status 200 with an error object as JSON
    "empty_200",  # status 200 with nothing in it
    "wave_header", "half_sample",  # speech: a RIFF header before raw samples, an odd number of bytes
    "wrong_rate",  # speech: every sample twice
})  # fmt: skip
KINDS = REFUSALS | CONNECTION | STREAM
ROUTES = frozenset({"chat", "models", "transcription", "speech", "any"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Args:
        kind: one of KINDS.
        route: which requests it waits for.
        times: how many requests suffer, None: no end. probability: of each request. for_s: time until it is over.
        after_tokens: text tokens (or audio chunks) sent before a fault in a stream.
        delay_ms: of slow_first_token and stall. every_ms: between comments.
        retry_after: value of that header, seconds or an HTTP date. retry_after_ms, should_retry: the headers.
        early_head: a slow first token comes after the head of the answer, not with it.
    """

    kind: str
    route: str = "chat"
    times: int | None = 1
    probability: float = 1.0
    for_s: float | None = None
    after_tokens: int = 0
    delay_ms: float = 3000.0
    every_ms: float = 100.0
    endless_bytes: int = 64 << 20
    retry_after: str = ""
    retry_after_ms: float | None = None
    should_retry: bool | None = None
    early_head: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.route not in ROUTES:
            raise ValueError(f"fault: expected a kind of {sorted(KINDS)} and a route of {sorted(ROUTES)}; got {self}")
        if not 0 <= self.probability <= 1 or (self.times is not None and self.times < 1):
            raise ValueError(f"fault: expected a probability of 0 to 1 and at least one time; got {self}")

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Fault:
        unknown = set(raw) - {one.name for one in fields(cls)}
        if unknown or "kind" not in raw:
            raise ValueError(f"fault: expected the fields of a fault, one of them kind; got {sorted(raw)}")
        return cls(**raw)

    @property
    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after:
            headers["retry-after"] = self.retry_after
        if self.retry_after_ms is not None:
            headers["retry-after-ms"] = f"{self.retry_after_ms:g}"
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        return headers


class FaultBox:
    """The faults that wait, in the order of their arrival, and the counts of those that came to pass."""

    __slots__ = ("_dice", "_waiting", "injected", "picked")

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._waiting: list[tuple[Fault, float, int | None]] = []
        self.picked: Counter[str] = Counter()
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

    def pick(self, route: str) -> Fault | None:
        self.waiting()
        for at, (fault, until_s, times) in enumerate(self._waiting):
            if fault.route not in (route, "any"):
                continue
            if fault.probability < 1 and self._dice.random() >= fault.probability:
                continue
            if times == 1:
                del self._waiting[at]
            elif times is not None:
                self._waiting[at] = (fault, until_s, times - 1)
            self.picked[fault.kind] += 1
            return fault
        return None

    def own(self, fault: Fault) -> Fault:
        """Count a fault that did not wait here but is somebody's own idea, a profile's."""
        self.picked[fault.kind] += 1
        return fault

    def carried_out(self, fault: Fault) -> None:
        self.injected[fault.kind] += 1
