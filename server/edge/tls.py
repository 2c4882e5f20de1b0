"""TLS on the front door, for those without a proxy: one context whose certificate is replaced while it serves.

Guarantees: TLS 1.2 or newer, HTTP/1.1 as the only ALPN name; a broken or half-written pair of files never replaces a
good one. Leaves to others: when to look (front_door.py looks every 2 s: a new certificate is served within five).
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from cryptography import x509

from server.errors import ConfigError

_LOG = logging.getLogger("talkspurt.tls")


class ReloadingTls:
    """A server-side SSLContext and the two files it came from."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Raises ConfigError: the files are missing or do not belong together."""
        self._cert_file, self._key_file = cert_file, key_file
        self._seen = self._stamp()
        self.context = _new_context()
        try:
            self.context.load_cert_chain(cert_file, key_file)
            self.expires_at_s = self._expiry_s()
        except (OSError, ValueError) as error:
            raise ConfigError("TLS_CERT_FILE", "a PEM certificate that fits TLS_KEY_FILE", str(cert_file)) from error

    def reload_if_changed(self) -> bool:
        """Serve the new certificate from the next handshake on, if the files changed and are good. Blocks under 1 ms.

        Open connections keep theirs. A bad pair is logged once for each change.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            # First into a context of its own: a failure half-way must not touch the one that serves.
            _new_context().load_cert_chain(self._cert_file, self._key_file)
            expires_at_s = self._expiry_s()
            self.context.load_cert_chain(self._cert_file, self._key_file)
        except (OSError, ValueError) as error:
            _LOG.error("new certificate refused, the old one stays: %s", error)
            return False
        self.expires_at_s = expires_at_s
        _LOG.info("certificate replaced, expires at %d", expires_at_s)
        return True

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_file_stamp(path) for path in (self._cert_file, self._key_file))

    def _expiry_s(self) -> float:
        certificate = x509.load_pem_x509_certificate(self._cert_file.read_bytes())
        return certificate.not_valid_after_utc.timestamp()


def _file_stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
