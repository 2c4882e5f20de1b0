"""`talkspurt doctor`: what is configured, is it there, and if not, what to do: one line for each check.

    ok     postgres       embedded, PostgreSQL 18.6, schema applied
    note   hearing        nobody hears for restaurante_es (moonshine-es: Spanish recognition is opt-in: set …)
    WRONG  open files     1024, expected 1856 for MAX_CALLS=400; raise it: ulimit -n, LimitNOFILE=

Starts nothing that listens and changes nothing but what a first start would make (data folder, embedded servers,
which it stops again). Never shows a secret.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import asyncpg
from redis.exceptions import RedisError

from server.agent.importer import AgentFileError
from server.agent.settings import AgentSettings
from server.clock import SystemClock
from server.config import CALLS, Config, shared_file
from server.edge import listener
from server.edge.tls import ReloadingTls
from server.errors import ConfigError
from server.logs import redact
from server.metrics import Metrics
from server.node.embedded import EmbeddedServers, database_url, holder, redis_url
from server.node.place import EmbeddedError, choose_place
from server.store.agents import read_folder, stored_agents
from server.store.postgres import Postgres, PostgresUnavailable
from server.store.redis import Redis, RedisUnavailable

FILES_PER_CALL = 4
"""Media socket, and a connection each to recogniser, model and synthesiser."""
FILES_OWN = 256
MIN_FREE_BYTES = 512 * 1024 * 1024
PATIENT_S = 1.0


class Problem(Exception):
    """What is wrong, what was expected, what to do."""


class Note(Exception):
    """What the operator should know and may leave as it is."""


def run(environ: Mapping[str, str]) -> int:
    """Check everything, print a line for each. Returns 0 when all is well, else 1."""
    results: list[str] = []

    def check(name: str, probe: Callable[[], str]) -> None:
        try:
            text, verdict = probe(), "ok"
        except Note as note:
            text, verdict = str(note), "note"
        except (Problem, ConfigError, EmbeddedError, AgentFileError, OSError, ImportError) as error:
            text, verdict = str(error), "WRONG"
        print(f"{verdict:<6} {name:<14} {redact(text)}", flush=True)
        results.append(verdict)

    check("extensions", _extensions)
    check("speech", _speech)
    try:
        config = Config.from_env(environ)
    except ConfigError as error:
        unreadable = error
        check("configuration", lambda: _raise(unreadable))
        return 1
    check("configuration", lambda: _configuration(config))
    check("data folder", lambda: _data_folder(config))
    check("agents", lambda: _agents(config))
    if results[-1] == "ok":  # an agent that is refused is named once
        check("hearing", lambda: _hearing(config))
    check("calls", lambda: _calls(config))
    check("open files", lambda: _open_files(config))
    check("address", lambda: _address(config))
    if config.server.tls_cert_file:
        check("certificate", lambda: _certificate(config))
    _stores(config, check)
    return 1 if "WRONG" in results else 0


def extensions() -> list[str]:
    """The native modules, by the stubs that are shipped for them whether they are built or not."""
    folders = importlib.util.find_spec("audio_native").submodule_search_locations  # type: ignore[union-attr]
    return sorted(path.stem for folder in folders or () for path in Path(folder).glob("*.pyi"))


def _extensions() -> str:
    missing = []
    names = extensions()
    for name in names:
        try:
            importlib.import_module(f"audio_native.{name}")
        except ImportError:
            missing.append(name)
    if missing:
        raise Problem(f"not built: {', '.join(missing)}; build them: make build")
    dispatch = importlib.import_module("audio_native.dispatch")
    return f"{len(names)} built; instruction set {dispatch.ISA}, available {', '.join(dispatch.AVAILABLE)}"


def _speech() -> str:
    moonshine = _package_file("moonshine_voice", "assets/tiny-en/encoder_model.ort", "moonshine-voice==0.1.0")
    _package_file("moonshine_voice", "assets/tiny-en/decoder_model_merged.ort", "moonshine-voice==0.1.0")
    if importlib.util.find_spec("ctts") is None:
        raise Problem("no speech synthesiser; install it: pip install ttspico==0.3.2")
    return f"Moonshine tiny-en ({moonshine.stat().st_size >> 20} MiB encoder), SVOX Pico"


def _package_file(package: str, path: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = [Path(one) for one in (spec.submodule_search_locations or ())] if spec else []
    found = [folder / path for folder in folders if (folder / path).is_file()]
    if not found:
        raise Problem(f"{package} has no {path}; install it: pip install {requirement}")
    return found[0]


def _configuration(config: Config) -> str:
    if config.breakage:
        raise Problem(f"broken on purpose: {config.breakage}; unset TALKSPURT_TEST_BREAK")
    kind = "production" if config.is_production else "local"
    carriers = " and ".join(config.carriers) or "no carrier"
    public = config.server.public_url or "no public URL"
    keyed = "with API_KEY" if config.server.api_key else "without a key"
    pages = f"browser calls {keyed}" if config.takes_browser_calls else "no browser calls (they need API_KEY)"
    return f"{kind}, {carriers}, {public}, {pages}"


def _data_folder(config: Config) -> str:
    folder = config.store.data_dir
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    probe = folder / f".doctor-{os.getpid()}"
    began = time.perf_counter()
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, bytes(512))
        os.fdatasync(fd)
        sync_ms = (time.perf_counter() - began) * 1e3
    finally:
        os.close(fd)
        probe.unlink()
    stats = os.statvfs(folder)
    free_bytes = stats.f_bavail * stats.f_frsize
    if free_bytes < MIN_FREE_BYTES:
        raise Problem(f"{folder} has {free_bytes >> 20} MiB left, expected {MIN_FREE_BYTES >> 20} MiB; make room")
    return f"{folder}, {free_bytes >> 30} GiB free, a durable write takes {sync_ms:.1f} ms"


def _agents(config: Config) -> str:
    folder = config.store.agents_dir
    agents = read_folder(folder)
    if not agents:
        raise Problem(f"{folder} has no *.yaml; no call can be answered")
    asyncio.run(_check_agents(config, [(one.slug, one.settings) for one in agents]))
    return f"{folder}: " + ", ".join(f"{one.slug} ({one.settings.language})" for one in agents)


def _hearing(config: Config) -> str:
    """Whether somebody can hear for each agent. In production one that is deaf is wrong: its callers are sent away."""
    deaf = asyncio.run(_deaf(config))
    if not deaf:
        return "somebody hears for every agent"
    text = f"{'; '.join(deaf)}; until then its callers hear limits.farewell"
    raise Problem(text) if config.is_production else Note(text)


async def _deaf(config: Config) -> list[str]:
    from server.catalogue import Catalogue

    catalogue = Catalogue(config.providers, Metrics().providers)
    try:
        reasons = ((one.slug, catalogue.deafness(one.settings)) for one in read_folder(config.store.agents_dir))
        return [f"nobody hears for {slug} ({reason})" for slug, reason in reasons if reason]
    finally:
        await catalogue.aclose()


async def _check_agents(config: Config, agents: Iterable[tuple[str, AgentSettings]]) -> None:
    """As the server does before it listens; connects to nobody. Raises ConfigError for the first that is refused."""
    # Vendors' SDKs are not needed by any other check.
    from server.catalogue import Catalogue

    catalogue = Catalogue(config.providers, Metrics().providers)
    try:
        for slug, settings in agents:
            catalogue.check(slug, settings)
    finally:
        await catalogue.aclose()


def _calls(config: Config) -> str:
    if config.max_calls_problem:
        raise Note(config.max_calls_problem)
    if config.server.max_calls:
        return f"at most {config.max_calls} at once"
    return f"at most {config.max_calls} at once ({'default' if config.max_calls == CALLS else 'Azure Speech is there'})"


def _open_files(config: Config) -> str:
    needed = FILES_OWN + FILES_PER_CALL * config.max_calls
    # The server raises its own limit up to the hard one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    if hard != resource.RLIM_INFINITY and hard < needed:
        expected = f"expected {needed} for MAX_CALLS={config.max_calls}"
        raise Problem(f"{shown}, {expected}; raise it: ulimit -Hn, LimitNOFILE=")
    return f"{shown}, needs {needed}"


def _address(config: Config) -> str:
    host, port = config.host, config.server.port
    try:
        listener.bind(host, port).close()
        return f"{host}:{port} is free"
    except ConfigError:
        if not _is_served_by_us(host, port, bool(config.server.tls_cert_file)):
            raise
    return f"{host}:{port} is answered by a running server"


def _certificate(config: Config) -> str:
    tls = ReloadingTls(Path(config.server.tls_cert_file), Path(config.server.tls_key_file))
    days = (tls.expires_at_s - time.time()) / 86_400
    if days <= 0:
        raise Problem(f"{config.server.tls_cert_file} has expired; renew it, it is read again by itself")
    return f"{config.server.tls_cert_file}, {days:.0f} days left"


def _is_served_by_us(host: str, port: int, has_tls: bool) -> bool:
    # Only asked whether it answers: nothing secret is said, so anybody's certificate will do.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), timeout=PATIENT_S))
            if has_tls:
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=host))
            connection.settimeout(PATIENT_S)
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except (OSError, UnicodeError):
        return False


def _stores(config: Config, check: Callable[[str, Callable[[], str]], None]) -> None:
    """Reach both; start the embedded ones for the time of the check unless a server runs them already."""
    store = config.store
    database, redis = store.database_url, store.redis_url
    servers: EmbeddedServers | None = None
    try:
        if store.is_embedded:
            pid = holder(store.data_dir)
            if pid is None:
                servers = EmbeddedServers.start(store.data_dir, postgres=not database, valkey=not redis)
                place = servers.place
            else:
                place = choose_place(store.data_dir.resolve())
            who = "embedded" if pid is None else f"embedded in process {pid}"
            database, redis = database or database_url(place), redis or redis_url(place)
    except (ConfigError, EmbeddedError) as error:
        failed = error
        check("embedded", lambda: _raise(failed))
        return
    try:
        at_database, at_redis = ("from its URL" if url else who for url in (store.database_url, store.redis_url))
        check("postgres", lambda: f"{at_database}, {asyncio.run(_postgres(config, database))}")
        check("redis", lambda: f"{at_redis}, {asyncio.run(_redis(redis))}")
    finally:
        if servers is not None:
            servers.stop()


async def _postgres(config: Config, url: str) -> str:
    wanted = shared_file("schema.sql").read_text().count("CREATE TABLE IF NOT EXISTS")
    postgres = await Postgres.open(url)
    try:
        await postgres.check()
        async with postgres.connection() as connection:
            version = await connection.fetchval("SHOW server_version")
            tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
            stored = await stored_agents(connection) if tables >= wanted else []
    except (PostgresUnavailable, asyncpg.PostgresError) as error:
        raise Problem(f"{error}; check DATABASE_URL") from error
    finally:
        await postgres.close()
    # Those of the folder take the place of stored ones at the start; the rest is served as it is stored.
    names = {path.stem for path in config.store.agents_dir.glob("*.yaml")}
    await _check_agents(config, [one for one in stored if one[0] not in names])
    schema = "schema applied" if tables >= wanted else "schema not applied yet: talkspurt migrate, or the first start"
    return f"PostgreSQL {version.split()[0]}, {schema}"


async def _redis(url: str) -> str:
    redis = Redis.open(url, SystemClock(), command_s=PATIENT_S)
    try:
        began = time.perf_counter()
        await redis.check()
        took_ms = (time.perf_counter() - began) * 1e3
        # GETDEL came with 6.2.
        await redis.execute("GETDEL", "talkspurt:doctor")
    except (RedisUnavailable, RedisError) as error:
        raise Problem(f"{error}; check REDIS_URL, 6.2 or newer is needed") from error
    finally:
        await redis.close()
    return f"answers in {took_ms:.1f} ms with connecting"


def _raise(error: Exception) -> str:
    raise error
