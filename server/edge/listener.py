"""The socket to listen on, bound before anything else is started: a wrong address is a wrong configuration.

Guarantees: every refusal is a ConfigError that names HOST or PORT and the reason.
Leaves to others: accepting (front_door.py).
"""

from __future__ import annotations

import errno
import socket

from server.errors import ConfigError

BACKLOG = 512
_OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A TCP socket bound to `host:port`, not listening yet. A name is resolved, so call it before the loop runs.

    `reuse_port`: several processes share the port (SO_REUSEPORT).

    Raises:
        ConfigError: HOST is no address of this machine, or PORT is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host.encode("idna"), port))
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
        sock.close()
        raise _refusal(error, host, port) from error
    return sock


def listen(sock: socket.socket) -> None:
    """Let connections queue up. Raises ConfigError: somebody else has listened on the port since it was bound."""
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _refusal(error, host, port) from error


def _refusal(error: OSError | UnicodeError, host: str, port: int) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else "no host name"
    if isinstance(error, OSError) and error.errno in _OF_THE_PORT:
        return ConfigError("PORT", f"a port that can be listened on at {host} ({reason})", str(port))
    return ConfigError("HOST", f"an address of this machine ({reason})", host)
