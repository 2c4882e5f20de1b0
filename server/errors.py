"""Errors of a call and of the configuration. Providers have their own in providers/errors.py."""

from __future__ import annotations


class ConfigError(Exception):
    """A setting is missing or wrong; raised at start only. Names the variable and the accepted form."""

    def __init__(self, variable: str, expected: str, got: str | None = None) -> None:
        shown = "" if got is None else f", got {got!r}"
        super().__init__(f"{variable}: expected {expected}{shown}")
        self.variable = variable
        self.expected = expected
        self.got = got


class CallError(Exception):
    """Ends one call and no other."""


class LocalWireError(CallError):
    """We tried what the protocol forbids: our bug."""


class RemoteWireError(CallError):
    """The carrier sent what it must not. `close_code` is the WebSocket code to use (RFC 6455, 7.4.1)."""

    def __init__(self, message: str, close_code: int = 1008) -> None:
        super().__init__(message)
        self.close_code = close_code
