"""What can go wrong when we command a carrier."""

from __future__ import annotations

from server.errors import CallError


class CarrierError(CallError):
    """A command to the carrier was not carried out, after all retries.

    Args:
        message: what was asked and what came.
        status: HTTP status of the last answer, 0 when there was none.
        code: the carrier's own error number, 0 when it gave none.
    """

    def __init__(self, message: str, *, status: int = 0, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class CarrierUnavailable(CarrierError):
    """No usable answer within the deadline: whether the command was carried out is unknown."""


class CarrierRejected(CarrierError):
    """The carrier understood and refused: trying again does not help."""
