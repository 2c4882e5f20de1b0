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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from server.config.breakage import LOOPBACK, Breakage, check_nobody_calls
from server.config.breakage import VARIABLE as BREAKAGE_VARIABLE
from server.config.capture import VARIABLES as CAPTURE_VARIABLES
from server.config.capture import CaptureConfig
from server.config.carrier import VARIABLES as CARRIER_VARIABLES
from server.config.carrier import TelnyxConfig, TwilioConfig
from server.config.provider import VARIABLES as PROVIDER_VARIABLES
from server.config.provider import ProviderConfig
from server.config.read import (
    Fields,
    Network,
    base_url,
    check_one_of,
    check_range,
    check_url,
    flag,
    lower,
    networks,
    read,
    text,
    texts,
    whole,
)
from server.config.tool import VARIABLES as TOOL_VARIABLES
from server.config.tool import ToolConfig
from server.errors import ConfigError

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

FRAME_MS = 20
SECRET_MIN_CHARS = 32
API_KEY_MIN_CHARS = 16
CALLS = 200
# Azure's SDK has eight threads for a call; from some 40 calls on the event loop feels them (`python -m bench sdk`).
AZURE_SPEECH_CALLS = 40

VARIABLES: tuple[str, ...] = (
    "HOST", "PORT", "PUBLIC_URL", "MAX_CALLS", "API_KEY", "ALLOWED_ORIGINS", "ALLOW_KEYLESS_CALLS",
    "TLS_CERT_FILE", "TLS_KEY_FILE", "METRICS_KEY",
    "CONNECTIONS_PER_IP", "HANDSHAKES_PER_S", "TRUSTED_PROXIES", "STREAM_TOKEN_TTL_S",
    "DATABASE_URL", "REDIS_URL", "ALLOW_EMBEDDED", "DATA_DIR", "AGENTS_DIR", "TALKSPURT_SECRET",
    "PACER_LEAD_MS", "PACER_CHUNK_MS",
    "LOG_LEVEL", "LOG_FORMAT", "LOG_TRANSCRIPTS", BREAKAGE_VARIABLE,
    *CAPTURE_VARIABLES,
    *CARRIER_VARIABLES,
    *PROVIDER_VARIABLES,
    *TOOL_VARIABLES,
)  # fmt: skip
"""Every variable that is read; nothing else in the environment changes the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = ""  # empty: decided by Config, 0.0.0.0 in production, else 127.0.0.1
    port: int = 8080
    public_url: str = ""  # as the carrier sees us, without a slash at the end; its signatures cover this text
    max_calls: int | None = None  # per process, by what `bench capacity` measures on the machine; None: by Config
    api_key: str = field(default="", repr=False)  # lets a browser ask for a media stream
    allowed_origins: tuple[str, ...] = ()  # of pages that are not served by us
    tls_cert_file: str = ""  # PEM; with its key: the port speaks TLS itself, and looks for new files while it serves
    tls_key_file: str = ""
    metrics_key: str = field(default="", repr=False)  # what /metrics asks for
    allow_keyless_calls: bool = False  # browser calls without a key, from whoever can reach us

    def __post_init__(self) -> None:
        check_range("PORT", self.port, 0, 65535)
        if self.max_calls is not None:
            check_range("MAX_CALLS", self.max_calls, 1, 5000)
        if self.public_url:
            check_url("PUBLIC_URL", self.public_url, ("https", "http"), "https://voice.example.com")
        for name, key in (("API_KEY", self.api_key), ("METRICS_KEY", self.metrics_key)):
            if key and len(key) < API_KEY_MIN_CHARS:
                raise ConfigError(name, f"at least {API_KEY_MIN_CHARS} characters")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            missing = "TLS_KEY_FILE" if self.tls_cert_file else "TLS_CERT_FILE"
            raise ConfigError(missing, "a value, because the other file of the pair is set")
        for origin in self.allowed_origins:
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin):
                raise ConfigError("ALLOWED_ORIGINS", "origins like https://app.example.com, comma-separated", origin)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServerConfig:
        fields: Fields = {
            "host": ("HOST", text),
            "port": ("PORT", whole),
            "public_url": ("PUBLIC_URL", base_url),
            "max_calls": ("MAX_CALLS", whole),
            "api_key": ("API_KEY", text),
            "allowed_origins": ("ALLOWED_ORIGINS", texts),
            "tls_cert_file": ("TLS_CERT_FILE", text),
            "tls_key_file": ("TLS_KEY_FILE", text),
            "metrics_key": ("METRICS_KEY", text),
            "allow_keyless_calls": ("ALLOW_KEYLESS_CALLS", flag),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConfig:
    connections_per_ip: int = 200  # open and not upgraded
    handshakes_per_s: int = 20  # new connections of one address; load generators share one
    trusted_proxies: tuple[Network, ...] = ()  # free of the two above: each is one address for all its clients
    stream_token_ttl_s: int = 60  # between the carrier's webhook and its media stream

    def __post_init__(self) -> None:
        check_range("CONNECTIONS_PER_IP", self.connections_per_ip, 1, 100_000)
        check_range("HANDSHAKES_PER_S", self.handshakes_per_s, 1, 100_000)
        check_range("STREAM_TOKEN_TTL_S", self.stream_token_ttl_s, 5, 600)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LimitConfig:
        fields: Fields = {
            "connections_per_ip": ("CONNECTIONS_PER_IP", whole),
            "handshakes_per_s": ("HANDSHAKES_PER_S", whole),
            "trusted_proxies": ("TRUSTED_PROXIES", networks),
            "stream_token_ttl_s": ("STREAM_TOKEN_TTL_S", whole),
        }
        return cls(**read(env, fields))


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
            check_url("DATABASE_URL", self.database_url, ("postgresql", "postgres"), "postgresql://user@host/name")
        if self.redis_url:
            check_url("REDIS_URL", self.redis_url, ("redis", "rediss", "unix"), "redis://host:6379/0")
        if self.secret and len(self.secret) < SECRET_MIN_CHARS:
            raise ConfigError("TALKSPURT_SECRET", f"at least {SECRET_MIN_CHARS} characters, e.g. openssl rand -hex 32")

    @property
    def is_embedded(self) -> bool:
        """True when we start a server of our own for at least one of the two."""
        return not (self.database_url and self.redis_url)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> StoreConfig:
        fields: Fields = {
            "database_url": ("DATABASE_URL", text),
            "redis_url": ("REDIS_URL", text),
            "allow_embedded": ("ALLOW_EMBEDDED", flag),
            "secret": ("TALKSPURT_SECRET", text),
        }
        data_dir = Path(env.get("DATA_DIR", "var")).absolute()
        return cls(data_dir=data_dir, agents_dir=_agents_dir(env.get("AGENTS_DIR", "")), **read(env, fields))

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
class MediaConfig:
    pacer_lead_ms: int = 200  # what the carrier's buffer is kept filled to
    pacer_chunk_ms: int = 100  # one send costs the same whatever its size, so fewer and larger

    def __post_init__(self) -> None:
        check_range("PACER_LEAD_MS", self.pacer_lead_ms, 60, 1000)
        check_range("PACER_CHUNK_MS", self.pacer_chunk_ms, FRAME_MS, 500)
        if self.pacer_chunk_ms % FRAME_MS:
            raise ConfigError("PACER_CHUNK_MS", f"whole frames of {FRAME_MS} ms", str(self.pacer_chunk_ms))
        if self.pacer_chunk_ms > self.pacer_lead_ms:
            raise ConfigError("PACER_CHUNK_MS", "at most PACER_LEAD_MS", str(self.pacer_chunk_ms))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> MediaConfig:
        fields: Fields = {
            "pacer_lead_ms": ("PACER_LEAD_MS", whole),
            "pacer_chunk_ms": ("PACER_CHUNK_MS", whole),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: LogLevel = "info"
    format: LogFormat = "json"
    transcripts: bool = False  # what callers and agents say stands in the log, not only how much

    def __post_init__(self) -> None:
        check_one_of("LOG_LEVEL", self.level, get_args(LogLevel))
        check_one_of("LOG_FORMAT", self.format, get_args(LogFormat))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LogConfig:
        fields: Fields = {
            "level": ("LOG_LEVEL", lower),
            "format": ("LOG_FORMAT", lower),
            "transcripts": ("LOG_TRANSCRIPTS", flag),
        }
        return cls(**read(env, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitConfig = field(default_factory=LimitConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    twilio: TwilioConfig = field(default_factory=TwilioConfig)
    telnyx: TelnyxConfig = field(default_factory=TelnyxConfig)
    providers: ProviderConfig = field(default_factory=ProviderConfig)
    tools: ToolConfig = field(default_factory=ToolConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    captures: CaptureConfig = field(default_factory=CaptureConfig)
    log: LogConfig = field(default_factory=LogConfig)
    breakage: Breakage = ""  # the server is broken on purpose, for tests

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
        if self.carriers and not self.server.public_url:
            raise ConfigError("PUBLIC_URL", "a value, because carriers sign it or open their streams to it")
        address = urlsplit(self.server.public_url)
        if self.carriers and address.scheme != "https" and address.hostname not in LOOPBACK:
            # The value is not shown: it may hold a password.
            raise ConfigError(
                "PUBLIC_URL",
                f"https, because {self.carriers[0]} is configured: voices and webhooks never travel in the clear",
            )
        if self.breakage:
            check_one_of(BREAKAGE_VARIABLE, self.breakage, get_args(Breakage))
            served = [one.api_url for one in (self.twilio, self.telnyx) if one.is_configured]
            check_nobody_calls(self.host, self.server.public_url, served)

    @property
    def carriers(self) -> tuple[str, ...]:
        """The carriers whose calls are taken, as people call them."""
        known = (("Twilio", self.twilio), ("Telnyx", self.telnyx))
        return tuple(name for name, one in known if one.is_configured)

    @property
    def is_production(self) -> bool:
        """A public address or a carrier's credentials: somebody's real calls depend on this process."""
        return bool(self.server.public_url or self.carriers)

    @property
    def host(self) -> str:
        """The address to listen on."""
        if self.server.host:
            return self.server.host
        return "127.0.0.1" if self.store.is_embedded else "0.0.0.0"

    @property
    def max_calls(self) -> int:
        """Calls at once in this process."""
        return self.server.max_calls or (AZURE_SPEECH_CALLS if self.providers.azure_speech.is_configured else CALLS)

    @property
    def max_calls_problem(self) -> str:
        """Why so many calls may be too many for one process; empty when they are not."""
        if self.max_calls <= AZURE_SPEECH_CALLS or not self.providers.azure_speech.is_configured:
            return ""
        return (
            f"MAX_CALLS={self.max_calls} with Azure Speech, whose SDK has eight threads a call: expected at most "
            f"{AZURE_SPEECH_CALLS}, and more processes; unless few calls hear or speak by it"
        )

    @property
    def takes_browser_calls(self) -> bool:
        """Whether pages may ask for a call: with a key, on this machine alone, or where the operator says so."""
        is_local = not self.is_production and self.host in LOOPBACK
        return bool(self.server.api_key) or is_local or self.server.allow_keyless_calls

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no log line may contain."""
        store, twilio = self.store, self.twilio
        urls = (urlsplit(url).password or "" for url in (store.database_url, store.redis_url))
        tokens = (twilio.auth_token, twilio.auth_token_next, *twilio.shared_keys.values(), self.telnyx.api_key)
        known = (self.server.api_key, self.server.metrics_key, store.secret, *tokens, *urls)
        return (*(one for one in known if one), *self.providers.secrets, *self.tools.hidden)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Config:
        """Read and check all groups. Raises ConfigError for the first variable that is wrong."""
        env = {name: environ[name].strip() for name in VARIABLES if environ.get(name, "").strip()}
        return cls(
            server=ServerConfig.from_env(env),
            limits=LimitConfig.from_env(env),
            store=StoreConfig.from_env(env),
            twilio=TwilioConfig.from_env(env),
            telnyx=TelnyxConfig.from_env(env),
            providers=ProviderConfig.from_env(env),
            tools=ToolConfig.from_env(env),
            media=MediaConfig.from_env(env),
            captures=CaptureConfig.from_env(env),
            log=LogConfig.from_env(env),
            **read(env, {"breakage": (BREAKAGE_VARIABLE, lower)}),
        )


def shared_file(name: str) -> Path:
    """A file that is shipped beside the code: `schema.sql` of the checkout, or of the installed share/talkspurt.

    Raises:
        FileNotFoundError: neither place has it; the installation is incomplete.
    """
    places = (Path(__file__).parents[2] / name, Path(sys.prefix) / "share" / "talkspurt" / name)
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
