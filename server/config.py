"""The configuration of one process, read once from the environment and passed down.

Guarantees: every value is in its range when `Config.from_env` returns; every refusal is a ConfigError that names
the variable and the accepted form; no secret appears in a `repr`. deploy/talkspurt.env.example lists every
variable, and a test keeps the two lists equal. Agents have settings of their own (server/agent/settings.py).
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from server.errors import ConfigError

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
FRAME_MS = 20
SECRET_MIN_CHARS = 32
API_KEY_MIN_CHARS = 16

VARIABLES: tuple[str, ...] = (
    "HOST", "PORT", "PUBLIC_URL", "MAX_CALLS", "API_KEY", "ALLOWED_ORIGINS",
    "CONNECTIONS_PER_IP", "HANDSHAKES_PER_S", "STREAM_TOKEN_TTL_S",
    "DATABASE_URL", "REDIS_URL", "ALLOW_EMBEDDED", "DATA_DIR", "AGENTS_DIR", "TALKSPURT_SECRET",
    "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_NEXT", "TWILIO_API_URL",
    "STT_PROVIDER", "LLM_PROVIDER", "TTS_PROVIDER", "TALKSPURT_SPANISH_STT",
    "PACER_LEAD_MS", "PACER_CHUNK_MS", "JOURNAL",
    "LOG_LEVEL", "LOG_FORMAT",
)  # fmt: skip
"""Every variable that is read; nothing else in the environment changes the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = ""  # empty: decided by Config, 0.0.0.0 in production, else 127.0.0.1
    port: int = 8080
    public_url: str = ""  # as the carrier sees us, without a slash at the end; its signatures cover this text
    max_calls: int = 200  # per process; lower it to what `bench capacity` measures on the machine
    api_key: str = field(default="", repr=False)  # lets a browser ask for a media stream
    allowed_origins: tuple[str, ...] = ()  # of pages that are not served by us

    def __post_init__(self) -> None:
        _in_range("PORT", self.port, 0, 65535)
        _in_range("MAX_CALLS", self.max_calls, 1, 5000)
        if self.public_url:
            _check_url("PUBLIC_URL", self.public_url, ("https", "http"), "https://voice.example.com")
        if self.api_key and len(self.api_key) < API_KEY_MIN_CHARS:
            raise ConfigError("API_KEY", f"at least {API_KEY_MIN_CHARS} characters")
        for origin in self.allowed_origins:
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin):
                raise ConfigError("ALLOWED_ORIGINS", "origins like https://app.example.com, comma-separated", origin)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServerConfig:
        fields: _Fields = {
            "host": ("HOST", _text),
            "port": ("PORT", _int),
            "public_url": ("PUBLIC_URL", _base_url),
            "max_calls": ("MAX_CALLS", _int),
            "api_key": ("API_KEY", _text),
            "allowed_origins": ("ALLOWED_ORIGINS", _list),
        }
        return cls(**_read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConfig:
    connections_per_ip: int = 200  # open and not upgraded (RELIABILITY 1, row 19)
    handshakes_per_s: int = 20  # new connections of one address; load generators share one
    stream_token_ttl_s: int = 60  # between the carrier's webhook and its media stream (RELIABILITY 4, row 4)

    def __post_init__(self) -> None:
        _in_range("CONNECTIONS_PER_IP", self.connections_per_ip, 1, 100_000)
        _in_range("HANDSHAKES_PER_S", self.handshakes_per_s, 1, 100_000)
        _in_range("STREAM_TOKEN_TTL_S", self.stream_token_ttl_s, 5, 600)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LimitConfig:
        fields: _Fields = {
            "connections_per_ip": ("CONNECTIONS_PER_IP", _int),
            "handshakes_per_s": ("HANDSHAKES_PER_S", _int),
            "stream_token_ttl_s": ("STREAM_TOKEN_TTL_S", _int),
        }
        return cls(**_read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    database_url: str = field(default="", repr=False)  # may hold a password; empty: embedded PostgreSQL
    redis_url: str = field(default="", repr=False)  # empty: embedded Valkey
    allow_embedded: bool = False
    data_dir: Path = Path("var")
    agents_dir: Path = Path("agents")
    secret: str = field(default="", repr=False)  # signs stream tokens; all processes of a deployment share it

    def __post_init__(self) -> None:
        if self.database_url:
            _check_url("DATABASE_URL", self.database_url, ("postgresql", "postgres"), "postgresql://user@host/name")
        if self.redis_url:
            _check_url("REDIS_URL", self.redis_url, ("redis", "rediss", "unix"), "redis://host:6379/0")
        if self.secret and len(self.secret) < SECRET_MIN_CHARS:
            raise ConfigError("TALKSPURT_SECRET", f"at least {SECRET_MIN_CHARS} characters, e.g. openssl rand -hex 32")

    @property
    def is_embedded(self) -> bool:
        """True when we start a server of our own for at least one of the two."""
        return not (self.database_url and self.redis_url)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> StoreConfig:
        fields: _Fields = {
            "database_url": ("DATABASE_URL", _text),
            "redis_url": ("REDIS_URL", _text),
            "allow_embedded": ("ALLOW_EMBEDDED", _flag),
            "secret": ("TALKSPURT_SECRET", _text),
        }
        data_dir = Path(env.get("DATA_DIR", "var")).absolute()
        return cls(data_dir=data_dir, agents_dir=_agents_dir(env.get("AGENTS_DIR", "")), **_read(env, fields))

    def signing_key(self) -> bytes:
        """TALKSPURT_SECRET, or a key kept in `data_dir`/secret (0600), which is made at the first call.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        if self.secret:
            return self.secret.encode()
        path = self.data_dir / "secret"
        try:
            return _read_or_make_key(path)
        except OSError as error:
            raise ConfigError("DATA_DIR", f"a folder where {path} can be kept ({error.strerror})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioConfig:
    account_sid: str = ""
    auth_token: str = field(default="", repr=False)
    auth_token_next: str = field(default="", repr=False)  # the secondary token while the primary is rotated
    api_url: str = "https://api.twilio.com"

    def __post_init__(self) -> None:
        _check_url("TWILIO_API_URL", self.api_url, ("https", "http"), "https://api.twilio.com")
        if self.account_sid and not re.fullmatch(r"AC[0-9a-fA-F]{32}", self.account_sid):
            raise ConfigError("TWILIO_ACCOUNT_SID", "AC and 32 hexadecimal digits", self.account_sid)
        if bool(self.account_sid) != bool(self.auth_token):
            missing = "TWILIO_AUTH_TOKEN" if self.account_sid else "TWILIO_ACCOUNT_SID"
            raise ConfigError(missing, "a value, because the other half of the credentials is set")
        if self.auth_token_next and not self.auth_token:
            raise ConfigError("TWILIO_AUTH_TOKEN_NEXT", "TWILIO_AUTH_TOKEN to be set as well")

    @property
    def is_configured(self) -> bool:
        return bool(self.account_sid)

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        """Tokens whose signatures are accepted, the current one first."""
        return tuple(token for token in (self.auth_token, self.auth_token_next) if token)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> TwilioConfig:
        fields: _Fields = {
            "account_sid": ("TWILIO_ACCOUNT_SID", _text),
            "auth_token": ("TWILIO_AUTH_TOKEN", _text),
            "auth_token_next": ("TWILIO_AUTH_TOKEN_NEXT", _text),
            "api_url": ("TWILIO_API_URL", _base_url),
        }
        return cls(**_read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """`stt`, `llm`, `tts` replace the agent's own providers in every call; empty leaves the agent's choice."""

    stt: str = ""
    llm: str = ""
    tts: str = ""
    spanish_stt: str = ""  # folder of the Spanish weights, whose licence the operator must accept (docs/offline.md)

    def __post_init__(self) -> None:
        for variable, name in (("STT_PROVIDER", self.stt), ("LLM_PROVIDER", self.llm), ("TTS_PROVIDER", self.tts)):
            if name and not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
                raise ConfigError(variable, "the name of a provider, or nothing for the agent's own", name)
        if self.spanish_stt and not Path(self.spanish_stt).is_dir():
            raise ConfigError("TALKSPURT_SPANISH_STT", "a folder of Spanish weights", self.spanish_stt)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ProviderConfig:
        fields: _Fields = {
            "stt": ("STT_PROVIDER", _text),
            "llm": ("LLM_PROVIDER", _text),
            "tts": ("TTS_PROVIDER", _text),
            "spanish_stt": ("TALKSPURT_SPANISH_STT", _text),
        }
        return cls(**_read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConfig:
    pacer_lead_ms: int = 200  # what the carrier's buffer is kept filled to (DESIGN 2.5)
    pacer_chunk_ms: int = 100  # one send costs the same whatever its size, so fewer and larger
    journal: bool = True  # events and actions of each call, for replay

    def __post_init__(self) -> None:
        _in_range("PACER_LEAD_MS", self.pacer_lead_ms, 60, 1000)
        _in_range("PACER_CHUNK_MS", self.pacer_chunk_ms, FRAME_MS, 500)
        if self.pacer_chunk_ms % FRAME_MS:
            raise ConfigError("PACER_CHUNK_MS", f"whole frames of {FRAME_MS} ms", str(self.pacer_chunk_ms))
        if self.pacer_chunk_ms > self.pacer_lead_ms:
            raise ConfigError("PACER_CHUNK_MS", "at most PACER_LEAD_MS", str(self.pacer_chunk_ms))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> MediaConfig:
        fields: _Fields = {
            "pacer_lead_ms": ("PACER_LEAD_MS", _int),
            "pacer_chunk_ms": ("PACER_CHUNK_MS", _int),
            "journal": ("JOURNAL", _flag),
        }
        return cls(**_read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: LogLevel = "info"
    format: LogFormat = "json"

    def __post_init__(self) -> None:
        _one_of("LOG_LEVEL", self.level, get_args(LogLevel))
        _one_of("LOG_FORMAT", self.format, get_args(LogFormat))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LogConfig:
        return cls(**_read(env, {"level": ("LOG_LEVEL", _lower), "format": ("LOG_FORMAT", _lower)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitConfig = field(default_factory=LimitConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    twilio: TwilioConfig = field(default_factory=TwilioConfig)
    providers: ProviderConfig = field(default_factory=ProviderConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        store = self.store
        if self.is_production and store.is_embedded and not store.allow_embedded:
            missing = "REDIS_URL" if store.database_url else "DATABASE_URL"
            raise ConfigError(
                missing, "a value, because PUBLIC_URL or carrier credentials make this production (or ALLOW_EMBEDDED=1)"
            )
        if self.is_production and not store.secret and not store.is_embedded:
            raise ConfigError("TALKSPURT_SECRET", "a value, the same for all processes, e.g. openssl rand -hex 32")
        if store.is_embedded and not store.allow_embedded and self.host not in LOOPBACK:
            raise ConfigError(
                "HOST", f"one of {', '.join(LOOPBACK)} on embedded servers (or ALLOW_EMBEDDED=1)", self.host
            )
        if self.twilio.is_configured and not self.server.public_url:
            raise ConfigError("PUBLIC_URL", "a value, because the carrier's signatures cover it")

    @property
    def is_production(self) -> bool:
        """A public address or a carrier's credentials: somebody's real calls depend on this process."""
        return bool(self.server.public_url or self.twilio.is_configured)

    @property
    def host(self) -> str:
        """The address to listen on."""
        if self.server.host:
            return self.server.host
        return "127.0.0.1" if self.store.is_embedded else "0.0.0.0"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no log line may contain."""
        store, twilio = self.store, self.twilio
        urls = (urlsplit(url).password or "" for url in (store.database_url, store.redis_url))
        known = (self.server.api_key, store.secret, twilio.auth_token, twilio.auth_token_next, *urls)
        return tuple(text for text in known if text)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Config:
        """Read and check all groups. Raises ConfigError for the first variable that is wrong."""
        env = {name: environ[name].strip() for name in VARIABLES if environ.get(name, "").strip()}
        return cls(
            server=ServerConfig.from_env(env),
            limits=LimitConfig.from_env(env),
            store=StoreConfig.from_env(env),
            twilio=TwilioConfig.from_env(env),
            providers=ProviderConfig.from_env(env),
            media=MediaConfig.from_env(env),
            log=LogConfig.from_env(env),
        )


def shared_file(name: str) -> Path:
    """A file that is shipped beside the code: `schema.sql` of the checkout, or of the installed share/talkspurt.

    Raises:
        FileNotFoundError: neither place has it; the installation is incomplete.
    """
    places = (Path(__file__).parent.parent / name, Path(sys.prefix) / "share" / "talkspurt" / name)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"{name}: looked in {' and '.join(map(str, places))}")


def _agents_dir(value: str) -> Path:
    if value:
        path = Path(value).absolute()
        if not path.is_dir():
            raise ConfigError("AGENTS_DIR", "a folder of agents (*.yaml)", value)
        return path
    here = Path("agents").absolute()
    if here.is_dir():
        return here
    try:
        return shared_file("agents")
    except FileNotFoundError:
        raise ConfigError("AGENTS_DIR", "a folder of agents (*.yaml); none in ./agents either") from None


def _read_or_make_key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".secret-{os.getpid()}-{secrets.token_hex(4)}")
    if not path.exists():
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_hex(32).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            # A link, not a rename: of two processes that start together one wins and both use its key.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    key = path.read_bytes().strip()
    if len(key) < SECRET_MIN_CHARS:
        raise ConfigError("DATA_DIR", f"{path} to hold at least {SECRET_MIN_CHARS} characters; remove it to renew it")
    return key


_Fields = dict[str, tuple[str, Callable[[str, str], Any]]]


def _read(env: Mapping[str, str], fields: _Fields) -> dict[str, Any]:
    """Keyword arguments for the variables that are set; the others keep the default of their field."""
    return {name: parse(variable, env[variable]) for name, (variable, parse) in fields.items() if variable in env}


def _text(_variable: str, text: str) -> str:
    return text


def _lower(_variable: str, text: str) -> str:
    return text.lower()


def _base_url(_variable: str, text: str) -> str:
    return text.rstrip("/")


def _list(_variable: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())


def _int(variable: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ConfigError(variable, "a whole number", text)
    return int(text)


def _flag(variable: str, text: str) -> bool:
    if text.lower() in ("1", "on", "true", "yes"):
        return True
    if text.lower() in ("0", "off", "false", "no"):
        return False
    raise ConfigError(variable, "on or off", text)


def _in_range(variable: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(variable, f"a whole number from {low} to {high}", str(value))


def _one_of(variable: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ConfigError(variable, f"one of {', '.join(accepted)}", value)


def _check_url(name: str, url: str, schemes: tuple[str, ...], example: str) -> None:
    """Refuse what cannot be a URL of these schemes. The value is not shown: it may hold a password."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in schemes and bool(parts.netloc or parts.path) and (parts.port or 1) > 0
    except ValueError:
        named = False
    if not named or any(c.isspace() for c in url):
        raise ConfigError(name, f"a URL like {example}")
    if name in ("PUBLIC_URL", "TWILIO_API_URL") and (not parts.netloc or parts.query or parts.fragment):
        raise ConfigError(name, f"a URL like {example}, without a query", url)
