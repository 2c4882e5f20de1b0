"""The carriers' credentials; a carrier without them is not served."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.config.read import Fields, base_url, check_url, read, text
from server.errors import ConfigError

VARIABLES = (
    "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_NEXT", "TWILIO_SHARED_KEYS", "TWILIO_API_URL",
    "TELNYX_API_KEY", "TELNYX_PUBLIC_KEY", "TELNYX_API_URL",
)  # fmt: skip
ED25519_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioConfig:
    account_sid: str = ""
    auth_token: str = field(default="", repr=False)
    auth_token_next: str = field(default="", repr=False)  # the secondary token while the primary is rotated
    shared_keys: Mapping[str, str] = field(default_factory=dict, repr=False)  # secret by id, of signed settings
    api_url: str = "https://api.twilio.com"

    def __post_init__(self) -> None:
        check_url("TWILIO_API_URL", self.api_url, ("https", "http"), "https://api.twilio.com")
        if self.account_sid and not re.fullmatch(r"AC[0-9a-fA-F]{32}", self.account_sid):
            raise ConfigError("TWILIO_ACCOUNT_SID", "AC and 32 hexadecimal digits", self.account_sid)
        if bool(self.account_sid) != bool(self.auth_token):
            missing = "TWILIO_AUTH_TOKEN" if self.account_sid else "TWILIO_ACCOUNT_SID"
            raise ConfigError(missing, "a value, because the other half of the credentials is set")
        if self.auth_token_next and not self.auth_token:
            raise ConfigError("TWILIO_AUTH_TOKEN_NEXT", "TWILIO_AUTH_TOKEN to be set as well")

        if self.shared_keys and not self.auth_token:
            raise ConfigError("TWILIO_SHARED_KEYS", "TWILIO_AUTH_TOKEN to be set as well")

    @property
    def is_configured(self) -> bool:
        return bool(self.account_sid)

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        """Tokens whose signatures are accepted, the current one first."""
        return tuple(token for token in (self.auth_token, self.auth_token_next) if token)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> TwilioConfig:
        fields: Fields = {
            "account_sid": ("TWILIO_ACCOUNT_SID", text),
            "auth_token": ("TWILIO_AUTH_TOKEN", text),
            "auth_token_next": ("TWILIO_AUTH_TOKEN_NEXT", text),
            "shared_keys": ("TWILIO_SHARED_KEYS", _shared_keys),
            "api_url": ("TWILIO_API_URL", base_url),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class TelnyxConfig:
    api_key: str = field(default="", repr=False)
    public_key: str = ""  # base64; what the account's webhooks are signed with
    api_url: str = "https://api.telnyx.com"

    def __post_init__(self) -> None:
        check_url("TELNYX_API_URL", self.api_url, ("https", "http"), "https://api.telnyx.com")
        if self.api_key and not re.fullmatch(r"[!-~]+", self.api_key):
            # The value is not shown: it is most of a key.
            raise ConfigError("TELNYX_API_KEY", "a key of visible ASCII characters, without spaces")
        if bool(self.api_key) != bool(self.public_key):
            missing = "TELNYX_PUBLIC_KEY" if self.api_key else "TELNYX_API_KEY"
            raise ConfigError(missing, "a value, because the other half of the credentials is set")
        if self.public_key and not _is_ed25519_key(self.public_key):
            raise ConfigError("TELNYX_PUBLIC_KEY", "base64 of 32 bytes, as the portal shows it", self.public_key)

    @property
    def is_configured(self) -> bool:
        return bool(self.api_key)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> TelnyxConfig:
        fields: Fields = {
            "api_key": ("TELNYX_API_KEY", text),
            "public_key": ("TELNYX_PUBLIC_KEY", text),
            "api_url": ("TELNYX_API_URL", base_url),
        }
        return cls(**read(env, fields))


def _shared_keys(variable: str, text: str) -> dict[str, str]:
    """The pairs of "id=secret,id=secret"; they are not shown when they are refused."""
    found: dict[str, str] = {}
    for pair in (part.strip() for part in text.split(",") if part.strip()):
        name, _, secret = (half.strip() for half in pair.partition("="))
        if not re.fullmatch(r"[\w.:-]+", name) or not re.fullmatch(r"[!-~]+", secret) or name in found:
            raise ConfigError(variable, "id=secret of each key, comma-separated, no id twice")
        found[name] = secret
    return found


def _is_ed25519_key(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == ED25519_KEY_BYTES
    except (binascii.Error, ValueError):
        return False
