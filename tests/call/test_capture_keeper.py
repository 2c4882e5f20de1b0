"""The folder of captures keeps its bounds on a real disk: the oldest finished go, what is being written stays."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from server.call import capture_keeper
from server.call.capture import CaptureStore
from server.call.capture_file import End, read
from server.call.capture_keeper import BATCH, LOOK_S, MIN_TIDY_S, TIDY_S, CaptureBounds, CaptureKeeper, free_bytes
from server.call.replay import replay_capture
from server.clock import ManualClock
from server.metrics import Metrics
from tests.call.captured import Captured, opened, record, talk, with_store

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0
NEVER = 1 << 60


class Folder:
    """A folder with captures of 1000 bytes each, and its keeper; `age_s` by name."""

    def __init__(self, path: Path, *, free: int | None = None, **bounds: float) -> None:
        self.path = path
        self.path.mkdir(exist_ok=True)
        self.metrics = Metrics()
        self.clock = ManualClock(1, NOW_S)
        self.free = free
        made = CaptureBounds(**bounds)  # type: ignore[arg-type]
        self.keeper = CaptureKeeper(
            path, made, self.clock, self.metrics, free_bytes if free is None else lambda folder: self.free or 0
        )

    def has(self, **ages_s: float) -> None:
        for name, age_s in ages_s.items():
            file = self.path / f"{name}.capture"
            file.write_bytes(bytes(1000))
            os.utime(file, (NOW_S - age_s, NOW_S - age_s))

    @property
    def names(self) -> set[str]:
        return {one.name.removesuffix(".capture") for one in self.path.iterdir()}

    def counted(self, name: str) -> dict[str, float]:
        (family,) = getattr(self.metrics, name).collect()
        return {one.labels.get("reason", ""): one.value for one in family.samples if not one.name.endswith("_created")}


def test_the_oldest_go_until_the_total_is_kept(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_total_bytes=4000)
    folder.has(a=100, b=500, c=300, d=200)
    assert folder.keeper.tidy() and folder.names == set("abcd") and folder.keeper.total_bytes == 4000
    folder.has(e=400)
    # Down to 95 % of the bound, so that not every further call makes it look again.
    assert folder.keeper.tidy() and folder.names == set("acd")
    assert folder.keeper.total_bytes == 3000
    assert folder.counted("captures_deleted") == {"age": 0, "total": 2}
    assert folder.counted("capture_bytes") == {"": 3000}


def test_what_is_too_old_goes_and_is_counted_apart(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_age_s=7 * DAY_S)
    folder.has(old=7 * DAY_S + 1, older=9 * DAY_S, young=7 * DAY_S - 1)
    folder.keeper.tidy()
    assert folder.names == {"young"}
    assert folder.counted("captures_deleted") == {"age": 2, "total": 0}


def test_a_call_that_may_go_on_keeps_its_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_total_bytes=0)
    folder.has(ended_just_now=59, ended=61)
    folder.keeper.tidy()
    assert folder.names == {"ended_just_now"}


def test_only_captures_are_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_total_bytes=0, max_age_s=1)
    folder.has(gone=DAY_S)
    kept = tmp_path.with_name("elsewhere.capture")
    kept.write_bytes(b"x")
    (tmp_path / "link.capture").symlink_to(kept)
    (tmp_path / "folder.capture").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for one in (tmp_path / "notes.txt", tmp_path / "folder.capture", kept):
        os.utime(one, (1, 1))
    folder.keeper.tidy()
    assert folder.names == {"link", "folder", "notes.txt"} and kept.exists()


def test_what_is_being_written_stays_however_old_it_is(tmp_path: Path) -> None:
    """By the store of this process or of another: each holds a lock."""
    path = tmp_path / "call-1.capture"
    folder = Folder(tmp_path, max_total_bytes=0, max_age_s=1)

    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        talk(driver)
        driver.capture.hand_over()
        _wait_for(lambda: path.exists() and path.stat().st_size > 100)
        os.utime(path, (1, 1))
        folder.has(finished=DAY_S)
        folder.keeper.tidy()
        assert folder.names == {"call-1"}
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    assert isinstance([*read(path)][-1], End) and replay_capture(path).is_same
    os.utime(path, (1, 1))
    folder.keeper.tidy()
    assert folder.names == set()


def test_a_file_that_another_process_deletes_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "call-1.capture"
    path.write_bytes(b"of a call long ago")
    deleting = os.open(path, os.O_RDONLY)
    fcntl.flock(deleting, fcntl.LOCK_EX)

    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        talk(driver)
        driver.capture.close("caller_hung_up", {})
        # The writer has opened it and waits for the lock.
        _wait_for(lambda: sum(Path(f"/proc/self/fd/{fd}").samefile(path) for fd in _open_files()) == 2)
        path.unlink()
        os.close(deleting)

    with_store(tmp_path, body)
    assert replay_capture(path).is_same and not replay_capture(path).is_cut


def _open_files() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{fd}").exists()]


def _wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        os.sched_yield()


def test_many_files_go_in_several_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BATCH >= 1000
    monkeypatch.setattr(capture_keeper, "BATCH", 3)
    folder = Folder(tmp_path, max_age_s=DAY_S)
    folder.has(**{f"n{number}": 2 * DAY_S + number for number in range(7)})
    folder.keeper.keep()
    assert folder.names == {"n0", "n1", "n2", "n3"}
    folder.keeper.keep()
    folder.keeper.keep()
    assert folder.names == set()


def test_all_files_are_looked_at_now_and_then_and_when_there_is_too_much(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_total_bytes=2500, max_age_s=DAY_S)
    folder.has(a=100, b=200)
    folder.keeper.keep()
    folder.has(late=2 * DAY_S)
    folder.clock.advance_ms(MIN_TIDY_S * 1000 + 1)
    folder.keeper.keep()
    assert folder.names == {"a", "b", "late"}  # not yet
    folder.keeper.total_bytes += 1000  # as the writer counts what it writes
    folder.keeper.keep()
    assert folder.names == {"a", "b"} and folder.keeper.total_bytes == 2000
    folder.has(late=2 * DAY_S)
    folder.clock.advance_ms(TIDY_S * 1000)
    folder.keeper.keep()
    assert folder.names == {"a", "b"}


def test_one_that_cannot_be_deleted_is_named_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.stem == "stuck":
            raise PermissionError(1, "Operation not permitted", str(path))
        usual(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    folder = Folder(tmp_path, max_total_bytes=0)
    folder.has(stuck=900, a=800, b=700)
    assert folder.keeper.tidy()
    assert folder.names == {"stuck"} and folder.keeper.total_bytes == 1000
    assert caplog.text.count("cannot be deleted") == 1 and "stuck.capture" in caplog.text


def test_a_folder_that_is_none_or_not_there_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(tmp_path / "capture", max_total_bytes=0, max_age_s=1)
    folder.path.rmdir()
    assert folder.keeper.tidy() and folder.keeper.has_room and not caplog.records
    folder.path.write_text("in the way")
    assert folder.keeper.tidy()
    assert "captures cannot be looked at" in caplog.text


# ── free disk ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_capture_begins_on_a_disk_that_is_nearly_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    bounds = CaptureBounds(min_free_bytes=NEVER)

    def body(store: CaptureStore) -> None:
        for _ in range(3):
            with pytest.raises(AssertionError):
                opened(store)  # there is none, as for an agent without captures; the call goes on

    with_store(tmp_path / "capture", body, bounds=bounds, metrics=metrics)
    assert not (tmp_path / "capture").exists()
    assert metrics.captures_skipped.collect()[0].samples[0].value == 3
    assert caplog.text.count("no new capture begins") == 1


def test_a_capture_that_has_begun_goes_on_when_the_disk_fills(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        store._keeper._bounds = CaptureBounds(min_free_bytes=NEVER)
        store._keeper.look()
        with pytest.raises(AssertionError):
            opened(store)
        talk(driver)
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    assert replay_capture(tmp_path / "call-1.capture").is_same


def test_room_is_lost_and_found_again_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = Folder(tmp_path, free=1000, min_free_bytes=1000)
    folder.keeper.keep()
    assert folder.keeper.has_room
    for free in (999, 1000, 999, 1099):  # about the bound
        folder.free = free
        folder.clock.advance_ms(LOOK_S * 1000)
        folder.keeper.keep()
        assert not folder.keeper.has_room
    folder.free = 1100
    folder.keeper.keep()
    assert not folder.keeper.has_room  # not looked at yet
    folder.clock.advance_ms(LOOK_S * 1000)
    folder.keeper.keep()
    assert folder.keeper.has_room
    assert caplog.text.count("no new capture begins") == caplog.text.count("captures begin again") == 1


def test_the_free_disk_is_that_of_the_folder_to_be(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    there = free_bytes(tmp_path / "not" / "yet")
    assert there == pytest.approx(found.f_bavail * found.f_frsize, rel=0.05)


def test_a_store_keeps_its_folder_from_the_start(tmp_path: Path) -> None:
    old = record(tmp_path).rename(tmp_path / "old.capture")
    os.utime(old, (1, 1))
    with_store(tmp_path, lambda store: None, bounds=CaptureBounds(max_age_s=7 * DAY_S))
    assert not old.exists()
    # And counts what it writes, until it looks again.
    sizes: list[int] = []

    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        talk(driver)
        driver.capture.close("caller_hung_up", {})
        store.close()
        sizes.append(store._keeper.total_bytes)

    with_store(tmp_path / "other", body)
    assert sizes == [(tmp_path / "other" / "call-1.capture").stat().st_size]
