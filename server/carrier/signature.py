"""Who sent this webhook: Twilio's HMAC over the public URL, Telnyx's Ed25519 over time and body.

The URL is PUBLIC_URL and what the request line said, byte for byte. `Host` and `X-Forwarded-*` are never looked at:
behind a proxy they are whatever a stranger wrote. A proxy may rewrite anything but the path and the query.

Guarantees: comparisons take the same time wherever the difference is, and every candidate is compared; nothing a
request can hold raises an exception. Leaves to others: replay of Twilio's requests (its signature has no time), by
single-use secrets and by what is known of the call.
Source: Twilio, "Webhooks security"; Telnyx, "Receiving webhooks".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from server.errors import ConfigError

TWILIO_HEADER = "x-twilio-signature"
TWILIO_SETTINGS_HEADER = "x-twilio-webhooks-signature-settings"
TELNYX_HEADER = "telnyx-signature-ed25519"
TELNYX_TIME_HEADER = "telnyx-timestamp"
TELNYX_WINDOW_S = 300
"""Either way; the tolerance of Telnyx's own SDK."""
MAX_SIGNATURE_CHARS = 128
"""Base64 of SHA-256 has 44, of Ed25519 88."""

_HASHES = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
_DEFAULT_PORTS = {"https": (443,), "http": (80,), "ws": (80,), "wss": (443, 80)}
"""What an explicit port may look like when the URL has none. Twilio's own library says 80 for wss, the RFC 443."""

Params = Sequence[tuple[str, str]]


class TwilioSignature:
    """Checks what Twilio signed for one public URL.

    Args:
        public_url: scheme, host, perhaps a port and a path that the proxy takes away; no user, query or fragment.
        auth_tokens: each may sign; two while the primary token is being rotated.
        shared_keys: secret of each SharedKey by its id, for webhooks with a Setting (public beta).
    Raises:
        ConfigError: PUBLIC_URL is no such URL, or a token or secret is empty.
    """

    __slots__ = ("_shared_keys", "_socket_starts", "_starts", "_tokens")

    def __init__(
        self, public_url: str, auth_tokens: Sequence[str], shared_keys: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(public_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                "PUBLIC_URL", "a URL like https://voice.example.com, without user and password", public_url
            )
        if parts.query or parts.fragment:
            raise ConfigError("PUBLIC_URL", "a URL without query and fragment", public_url)
        if not all(auth_tokens):
            raise ConfigError("TWILIO_AUTH_TOKEN", "a token that is not empty")
        if not all((shared_keys or {}).values()):
            raise ConfigError("TWILIO_SHARED_KEYS", "secrets that are not empty")
        self._tokens = tuple(token.encode() for token in auth_tokens)
        self._shared_keys = {name: secret.encode() for name, secret in (shared_keys or {}).items()}
        path = parts.path.rstrip("/")
        self._starts = _url_starts(parts.scheme, parts.netloc, path)
        self._socket_starts = _url_starts("wss" if parts.scheme == "https" else "ws", parts.netloc, path)

    def is_valid_form(
        self, raw_path: bytes, raw_query: bytes, params: Params, signature: str, settings: str | None = None
    ) -> bool:
        """Whether a form POST, or with no `params` a GET, is from Twilio.

        Args:
            raw_path, raw_query: of the request line, percent-encoding untouched; the query without its "?".
            params: decoded pairs of the body in any order; of a name that repeats, each distinct value counts once.
            signature: the header TWILIO_HEADER.
            settings: the header TWILIO_SETTINGS_HEADER, None when there is none.
        """
        tail = b"".join(f"{name}{value}".encode("utf-8", "surrogatepass") for name, value in sorted(set(params)))
        return self._is_signed(self._urls(raw_path, raw_query), tail, signature, settings)

    def is_valid_upgrade(self, raw_path: bytes, signature: str, settings: str | None = None) -> bool:
        """Whether the WebSocket handshake on `raw_path` is from Twilio: the wss URL, with or without a last slash."""
        bare = raw_path.rstrip(b"/")
        urls = [start + path for start in self._socket_starts for path in (bare, bare + b"/")]
        return self._is_signed(urls, b"", signature, settings)

    def _urls(self, raw_path: bytes, raw_query: bytes) -> list[bytes]:
        tail = raw_path + (b"?" + raw_query if raw_query else b"")
        return [start + tail for start in self._starts]

    def _is_signed(self, urls: Iterable[bytes], tail: bytes, signature: str, settings: str | None) -> bool:
        keys, algorithm = self._keys(settings)
        given = signature.encode("utf-8", "surrogatepass")
        if len(given) > MAX_SIGNATURE_CHARS:
            return False
        is_valid = False
        for url in urls:
            for key in keys:
                digest = hmac.new(key, url + tail, algorithm).digest()
                # No way out of the loop: time must not tell which candidate came close.
                is_valid |= hmac.compare_digest(base64.b64encode(digest), given)
        return is_valid

    def _keys(self, settings: str | None) -> tuple[Sequence[bytes], str]:
        """The secrets that may have signed and the hash; no secret when the settings name what we do not have."""
        fields = dict(part.strip().partition("=")[::2] for part in (settings or "").split(","))
        algorithm = fields.get("algorithm", "").strip()
        if not algorithm:
            return self._tokens, "sha1"
        name = _HASHES.get(algorithm.upper())
        secret = self._shared_keys.get(fields.get("key", "").strip())
        return ((secret,), name) if name and secret else ((), "sha1")


class TelnyxSignature:
    """Checks what Telnyx signed; the URL has no part in it.

    Args:
        public_key: base64 of 32 bytes, from the portal.
    Raises:
        ConfigError: TELNYX_PUBLIC_KEY is no such key.
    """

    __slots__ = ("_key",)

    def __init__(self, public_key: str) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        except (binascii.Error, ValueError) as error:
            raise ConfigError("TELNYX_PUBLIC_KEY", "base64 of 32 bytes", public_key) from error

    def is_valid(self, body: bytes, signature: str, timestamp: str, now_s: float) -> bool:
        """Whether `body` is from Telnyx and was signed within TELNYX_WINDOW_S of the wall clock `now_s`.

        Args:
            body: as received; a body that was parsed and written again has another signature.
            signature, timestamp: the headers TELNYX_HEADER and TELNYX_TIME_HEADER.
        """
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            return False
        if len(signature) > MAX_SIGNATURE_CHARS:
            return False
        try:
            self._key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + b"|" + body)
        except (binascii.Error, ValueError, InvalidSignature):
            return False
        return abs(now_s - int(timestamp)) <= TELNYX_WINDOW_S


def _url_starts(scheme: str, netloc: str, path: str) -> tuple[bytes, ...]:
    """`scheme://host/path` without a port and with one: Twilio's back ends differ in which of them they sign."""
    port = urlsplit(f"{scheme}://{netloc}").port
    host = netloc.removesuffix(f":{port}") if port is not None else netloc.removesuffix(":")
    ports = (port,) if port is not None else _DEFAULT_PORTS[scheme]
    return tuple(f"{scheme}://{form}{path}".encode() for form in (host, *(f"{host}:{one}" for one in ports)))
