"""Where the embedded servers live: whose account, which folder, which copy of their programs.

Guarantees: nothing outside the returned folders is created or changed; no folder that another user prepared in a
shared place is trusted. What may be entered is judged by mode bits alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from server.errors import ConfigError
from server.node.child import Account

log = logging.getLogger(__name__)

SOCKET_PATH_MAX_BYTES = 107
"""sun_path has 108 bytes and ends with a zero (unix(7))."""
UNPRIVILEGED = ("nobody", "daemon")
"""Accounts that root drops to, the first that exists."""


class EmbeddedError(Exception):
    """An embedded server did not start; holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tree is, where its sockets are, and who owns both."""

    base: Path
    run: Path
    account: Account


def choose_place(data_dir: Path) -> Place:
    """Decide on the account and make the folders. `data_dir` exists and is resolved.

    Raises:
        ConfigError: no account to drop to, a folder that belongs to somebody else, or one we cannot write.
    """
    base = data_dir / "embedded"
    account = _account(base / "postgres")
    if account.is_other:
        _open_way(account, data_dir)
    if account.is_other and not _reaches(account, data_dir):
        elsewhere = Path("/var/tmp") / f"talkspurt-{_digest(data_dir)}"
        account = _account(elsewhere / "postgres")
        log.warning(
            "the data of the embedded servers is kept elsewhere: their account cannot enter the data folder",
            extra={"data_dir": str(data_dir), "base": str(elsewhere), "uid": account.uid},
        )
        base = elsewhere
    try:
        _make(base, 0o711, os.geteuid())
        run = base / "run"
        if len(os.fsencode(run / ".s.PGSQL.5432")) > SOCKET_PATH_MAX_BYTES:
            run = Path("/tmp") / f"talkspurt-{os.geteuid()}-{_digest(data_dir)}"
        _make(run, 0o700, account.uid)
        place = Place(base, run, account)
        own_folder(place, "log")
    except OSError as error:
        raise ConfigError("DATA_DIR", f"a folder that we can write ({error.strerror})", str(data_dir)) from error
    return place


def _account(cluster: Path) -> Account:
    """Ourselves; for root the owner of the data that is there, else the first account of UNPRIVILEGED."""
    uid = os.geteuid()
    owner = cluster.stat() if cluster.exists() else None
    if uid != 0:
        if owner and owner.st_uid != uid:
            raise ConfigError("DATA_DIR", f"a folder of our own; {cluster} belongs to uid {owner.st_uid}")
        return Account(uid, os.getegid(), False)
    if owner and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, True)
    for name in UNPRIVILEGED:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(found.pw_uid, found.pw_gid, True)
    raise ConfigError("DATABASE_URL", f"a value, because there is no account to drop to ({', '.join(UNPRIVILEGED)})")


def _open_way(account: Account, data_dir: Path) -> None:
    """Let the account pass through a data folder that is ours and closed (a fresh temporary one is 0700).

    Only where that alone is missing, and only to pass: what is in it stays unlistable, and private by its own mode.
    """
    mode = data_dir.stat().st_mode
    if data_dir.stat().st_uid == os.geteuid() and not mode & 0o1 and _reaches(account, data_dir.parent):
        data_dir.chmod(stat.S_IMODE(mode) | 0o011)


def _reaches(account: Account, path: Path) -> bool:
    """May `account`, in no other group, enter `path` and all its parents (mode bits only)?"""
    return all(_allows(account, folder, 0o1) for folder in (path, *path.parents))


def _allows(account: Account, path: Path, wanted: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return found.st_mode >> 6 & wanted == wanted
    if found.st_gid == account.gid:
        return found.st_mode >> 3 & wanted == wanted
    return found.st_mode & wanted == wanted


def own_folder(place: Place, name: str) -> Path:
    path = place.base / name
    _make(path, 0o700, place.account.uid)
    return path


def _make(path: Path, mode: int, uid: int) -> None:
    """A folder that belongs to `uid`. One that is there must be a real folder with that owner: /tmp is shared."""
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, os.geteuid()):
            raise ConfigError("DATA_DIR", f"{path} to be a folder of uid {uid}, not of {found.st_uid}") from None
    if uid != path.lstat().st_uid:
        os.chown(path, uid, -1)
    if stat.S_IMODE(path.lstat().st_mode) != mode:
        path.chmod(mode)


def engine_binary(package: str, pattern: str, beside: Iterable[str], place: Place) -> Path:
    """The program `pattern` of an installed package; a copy of it when the account cannot run the original."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"{package} is not installed; install it, or set DATABASE_URL and REDIS_URL")
    folder = Path(spec.submodule_search_locations[0]).resolve()
    found = sorted(folder.glob(pattern))
    if not found:
        raise EmbeddedError(f"{package} has no {pattern} for this machine; set DATABASE_URL and REDIS_URL")
    binary = found[0]
    account = place.account
    if not account.is_other or (_reaches(account, binary.parent) and _allows(account, binary, 0o5)):
        return binary
    version = importlib.metadata.version(package.replace("_", "-"))
    engine = place.base / f"engine-{package}-{version}"
    if not engine.exists():
        log.warning(
            "copying the embedded server to where its account can run it",
            extra={"package": package, "to": str(engine)},
        )
        _copy_engine(folder, [name for name in beside if (folder.parent / name).is_dir()], engine)
    return engine / package / binary.relative_to(folder)


def _copy_engine(folder: Path, beside: Iterable[str], engine: Path) -> None:
    fresh = engine.with_name(f"{engine.name}.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    skip = shutil.ignore_patterns("*.py", "*.a", "__pycache__", "doc", "pgxs", "include")
    shutil.copytree(folder, fresh / folder.name, symlinks=True, ignore=skip)
    for name in beside:
        shutil.copytree(folder.parent / name, fresh / name, symlinks=True)
    # Whatever umask the packages were installed with: readable, and runnable where the owner may run it.
    for path in (fresh, *fresh.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644)
    fresh.rename(engine)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
