"""A server process of our own that cannot outlive us and has no more rights than it needs.

A launcher (this Python, without site packages) drops to the given account, asks the kernel for a signal when its
parent dies, and becomes the program. That work is not done between fork and exec of this process, which may have
threads.

Thread: the kernel sends the death signal when the *thread* that called `spawn` ends. Call it from the main thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

POLL_S = 0.005
"""Between two looks at a process that is starting or ending."""

_LAUNCHER = """
import ctypes, os, sys  # all before the rights are gone: Python may live where only root can read
libc = ctypes.CDLL(None)
parent, uid, gid, death, folder = sys.argv[1:6]
if int(uid) >= 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
os.umask(0o077)
os.chdir(folder)
if sys.platform == "linux":
    libc.prctl(1, int(death), 0, 0, 0)  # PR_SET_PDEATHSIG; cleared by setuid, so after it
    if os.getppid() != int(parent):
        sys.exit(1)
os.execv(sys.argv[6], sys.argv[6:])
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a child runs as. `is_other` is False when that is who we are anyway."""

    uid: int
    gid: int
    is_other: bool


def spawn(
    argv: Sequence[str], *, account: Account, folder: Path, death_signal: signal.Signals, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (the terminal's Ctrl-C is for us, not for it), in `folder`.

    Its environment is empty but for the C locale and UTC; files that it makes are private (umask 077). Both
    outputs go to `log`. It gets `death_signal` when the calling thread ends.
    """
    rights = (account.uid, account.gid) if account.is_other else (-1, -1)
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *map(str, rights)]
    return subprocess.Popen(
        [*launcher, str(int(death_signal)), str(folder), *argv],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def start_ticks(pid: int) -> int | None:
    """When process `pid` began, in clock ticks since boot; None when there is no such process (or no /proc).

    A pid and its start name a process for good; a pid alone may have been given to another.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything; after it: state is field 3, start is field 22 (proc(5)).
    state, *rest = stat[stat.rindex(b")") + 2 :].split()
    return None if state == b"Z" else int(rest[18])


def end_orphan(pid: int, began: int, steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """End a process that an earlier server left behind: each signal in turn, then up to its seconds of patience.

    Returns:
        True when it is gone, also when it was gone before; False when even the last signal did not help.
    """
    for number, patience_s in steps:
        if start_ticks(pid) != began:
            return True
        os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while start_ticks(pid) == began and time.monotonic() < deadline:
            time.sleep(POLL_S)
    return start_ticks(pid) != began


def end_child(child: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """End a child of ours the same way. Returns when it has been waited for."""
    for number, patience_s in steps:
        if child.poll() is not None:
            return
        child.send_signal(number)
        try:
            child.wait(patience_s)
            return
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    child.wait()
