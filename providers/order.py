"""In which order the candidates of one request are asked.

    by preference ─► those whose breaker welcomes a request ─► nobody left: the first that was passed over, once

A breaker only ever diverts to somebody else. When nobody else is left the provider is asked all the same: a request in
vain costs a moment, a caller who is told that the service is down costs the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from providers.health import ProviderHealth


class Candidate(Protocol):
    @property
    def health(self) -> ProviderHealth: ...


_C = TypeVar("_C", bound=Candidate)


class Order(Generic[_C]):
    """Belongs to one request. A candidate's breaker is asked right before the candidate is, never earlier."""

    __slots__ = ("_left", "_passed_over")

    def __init__(self, candidates: Iterable[_C]) -> None:
        self._left = list(candidates)
        self._passed_over: list[_C] | None = []  # None: the last resort was used

    @property
    def has_more(self) -> bool:
        """Whether `next` may give another one."""
        return bool(self._left or self._passed_over)

    def next(self) -> _C | None:
        """The one to ask now; the caller must ask it and report to its health. None: nobody is left."""
        while self._left:
            one = self._left.pop(0)
            if one.health.claim():
                return one
            if self._passed_over is not None:
                self._passed_over.append(one)
        if not self._passed_over:
            return None
        last_resort = self._passed_over[0]
        self._passed_over = None
        return last_resort

    def backup(self) -> _C | None:
        """Who would be asked next, to ask beside a slow one; still to be claimed by `take`."""
        return next((one for one in self._left if one.health.may()), None)

    def take(self, one: _C) -> bool:
        """Claim a backup. False when its breaker has changed its mind."""
        if not one.health.claim():
            return False
        self._left.remove(one)
        return True

    def put_back(self, one: _C) -> None:
        """It may be asked again, after all the others."""
        self._left.append(one)
