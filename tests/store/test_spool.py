"""The spool: acknowledged is on disk, full says no, a failing disk stops admission, a killed process loses nothing."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from server.store.backlog import Backlog, adopt_dead
from server.store.segment import HEADER_BYTES, SegmentWriter
from server.store.spool import Spool
from tests.store.facts import segment, seqs_on_disk

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", retry_s=0.01)
    spool.start()
    yield spool
    spool.close()


def test_flushed_is_on_disk_and_in_order(spool: Spool) -> None:
    async def run() -> None:
        for seq in range(200):
            assert spool.append_nowait(segment(seq))
        await spool.flush()

    asyncio.run(run())
    assert (spool.durable_seq, spool.pending, spool.refused) == (200, 0, 0)
    assert seqs_on_disk(spool.folder, spool.boot) == list(range(1, 201))


def test_without_a_flush_the_group_commit_brings_it_to_disk(spool: Spool) -> None:
    committed = threading.Event()
    spool.on_durable = committed.set
    spool.append_nowait(segment(1))
    assert committed.wait(10)
    assert seqs_on_disk(spool.folder, spool.boot) == [1]


def test_a_burst_is_committed_in_groups_of_64(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for seq in range(150):
        spool._queue.put((seq + 1, b"x"))
    sizes: list[int] = []
    while sum(sizes) < 150:
        batch, _, _ = spool._next_group()
        sizes.append(len(batch))
    assert sizes == [64, 64, 22]


def test_flush_of_nothing_returns_at_once(spool: Spool) -> None:
    asyncio.run(spool.flush())


def test_segments_are_closed_at_their_size_and_read_across(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=2000)
    spool.start()

    async def run() -> None:
        for n in range(20):
            for seq in range(5):
                spool.append_nowait(segment(n * 5 + seq))
            await spool.flush()

    asyncio.run(run())
    backlog = Backlog(tmp_path, spool.boot)
    first = backlog.read(30)
    assert len(list(tmp_path.glob("*.seg"))) > 3
    backlog.acknowledge()
    assert len(list(tmp_path.glob("*.seg"))) > 1
    rest = backlog.read(1000)
    assert [r.seq for r in first + rest] == list(range(1, 101))
    backlog.acknowledge()
    assert len(list(tmp_path.glob("*.seg"))) == 1  # the one being written stays
    assert backlog.read(10) == []
    spool.close()


def test_the_reader_stops_at_what_is_durable_and_can_go_back(spool: Spool) -> None:
    async def run() -> None:
        for seq in range(10):
            spool.append_nowait(segment(seq))
        await spool.flush()

    asyncio.run(run())
    backlog = Backlog(spool.folder, spool.boot)
    assert [r.seq for r in backlog.read(100, upto_seq=4)] == [1, 2, 3, 4]
    assert backlog.read(100, upto_seq=4) == []
    position = backlog.position
    assert [r.seq for r in backlog.read(3)] == [5, 6, 7]
    backlog.rewind(*position)
    assert [r.seq for r in backlog.read(100)] == [5, 6, 7, 8, 9, 10]


def fail_commits(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next `times` fdatasync calls of the process fail, as a dying disk does (EIO)."""
    left = [times]
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)


def test_after_a_failed_fsync_the_records_go_to_a_new_segment(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        spool.append_nowait(segment(0))
        await spool.flush()
        fail_commits(monkeypatch, 1)
        spool.append_nowait(segment(1))
        await spool.flush()
        spool.append_nowait(segment(2))
        await spool.flush()

    asyncio.run(run())
    assert (spool.write_errors, spool.durable_seq, spool.is_accepting) == (1, 3, True)
    assert len(list(spool.folder.glob("*.seg"))) == 2
    # Record 2 is in both files; it is read once.
    assert seqs_on_disk(spool.folder, spool.boot) == [1, 2, 3]


def test_a_disk_that_refuses_twice_stops_admission_until_it_takes_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = SegmentWriter.commit

    def commit(self: SegmentWriter, frames: bytes) -> None:
        seen.append(spool.is_accepting)
        real(self, frames)

    monkeypatch.setattr(SegmentWriter, "commit", commit)

    async def run() -> None:
        fail_commits(monkeypatch, 4)
        spool.append_nowait(segment(0))
        await spool.flush()

    asyncio.run(run())
    assert seen == [True, True, False, False, False]
    assert spool.is_accepting and spool.durable_seq == 1
    assert seqs_on_disk(spool.folder, spool.boot) == [1]


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A real ENOSPC-like refusal: the file size limit cuts a write in the middle of a record (EFBIG)."""
    code = """
import asyncio, resource, signal, sys
from pathlib import Path
from server.store.spool import Spool
from tests.store.facts import segment
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]), retry_s=0.01)
spool.start()
async def run():
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    for seq in range(100):
        assert spool.append_nowait(segment(seq))
        if seq % 10 == 9:
            await spool.flush()
asyncio.run(run())
assert spool.write_errors > 0 and spool.durable_seq == 100, (spool.write_errors, spool.durable_seq)
print(spool.boot.hex)
spool.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert seqs_on_disk(tmp_path, UUID(hex=done.stdout.strip())) == list(range(1, 101))


def hold_writer(spool: Spool) -> threading.Event:
    """Commit one fact, then keep the writer busy until the event is set: what is appended now stays queued."""
    entered, release = threading.Event(), threading.Event()

    def on_durable() -> None:
        entered.set()
        release.wait(30)

    spool.on_durable = on_durable
    assert spool.append_nowait(segment(0))
    assert entered.wait(10)
    return release


def test_full_says_no_and_counts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, queue_records=10)
    assert not spool.append_nowait(segment(0))  # not started
    spool.start()
    release = hold_writer(spool)
    taken = [spool.append_nowait(segment(n)) for n in range(15)]
    accepting = spool.is_accepting
    release.set()
    assert taken == [True] * 10 + [False] * 5
    assert not accepting and spool.refused == 6
    asyncio.run(spool.flush())
    assert spool.is_accepting and spool.durable_seq == 11
    spool.close()
    assert not spool.is_accepting and not spool.append_nowait(segment(0))


def test_admission_stops_before_the_queue_is_full(tmp_path: Path) -> None:
    spool = Spool(tmp_path, queue_bytes=10_000)
    spool.start()
    release = hold_writer(spool)
    while spool.is_accepting:
        assert spool.append_nowait(segment(1, text="x" * 500))
    assert spool.append_nowait(segment(1, text="x" * 500))  # running calls go on
    assert not spool.append_nowait(segment(1, text="x" * 9000))
    release.set()
    spool.close()


def test_a_fact_that_is_too_large_is_refused(spool: Spool) -> None:
    assert not spool.append_nowait(segment(1, text="x" * 2_000_000))
    assert spool.refused == 1
    assert spool.append_nowait(segment(1))


def test_close_writes_what_is_queued_and_keeps_what_is_not_shipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    for seq in range(100):
        spool.append_nowait(segment(seq))
    spool.close()
    assert seqs_on_disk(tmp_path, spool.boot) == list(range(1, 101))
    (adopted,) = adopt_dead(tmp_path, ())
    assert len(adopted.read(1000)) == 100
    adopted.finish()
    assert list(tmp_path.iterdir()) == []


def test_close_leaves_no_file_when_all_is_shipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    spool.append_nowait(segment(1))
    asyncio.run(spool.flush())
    spool.shipped_seq = 1
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_the_living_are_not_adopted(spool: Spool) -> None:
    spool.append_nowait(segment(1))
    asyncio.run(spool.flush())
    assert adopt_dead(spool.folder, ()) == []


def test_an_adopted_life_is_adopted_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    spool.append_nowait(segment(1))
    spool.close()
    (first,) = adopt_dead(tmp_path, ())
    assert adopt_dead(tmp_path, ()) == []
    first.release()
    (again,) = adopt_dead(tmp_path, ())
    again.finish()


def test_a_torn_tail_is_cut_and_a_segment_without_header_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    for seq in range(5):
        spool.append_nowait(segment(seq))
    spool.close()
    (path,) = tmp_path.glob("*.seg")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    (tmp_path / f"{spool.boot.hex}-00000002.seg").write_bytes(b"TSPOO")
    (adopted,) = adopt_dead(tmp_path, ())
    assert adopted.torn_tails == 2
    assert [r.seq for r in adopted.read(100)] == [1, 2, 3, 4]
    assert HEADER_BYTES < path.stat().st_size < len(whole) - 1
    assert len(list(tmp_path.glob("*.seg"))) == 1
    adopted.finish()


def run_until_killed(folder: Path, after_lines: int, grace_s: float) -> tuple[UUID, int]:
    """Start the writer, kill -9 it after some acknowledgements and a random moment; its boot and the last one."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.store.crash_writer", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child, child.stdout:
        boot = UUID(hex=child.stdout.readline().split()[1])
        for _ in range(after_lines):
            child.stdout.readline()
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        child.kill()
        lines = [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    return boot, int(lines[-1].split()[1]) if lines else 0


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(8):
        boot, acknowledged = run_until_killed(tmp_path, chance.randrange(1, 4), chance.uniform(0.02, 0.08))
        (adopted,) = adopt_dead(tmp_path, ())
        assert adopted.boot == boot
        seqs = [record.seq for record in adopted.read(1_000_000)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= acknowledged
        adopted.finish()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > len(os.listdir("/proc/self/fd"))
