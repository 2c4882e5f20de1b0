"""What a process made while it started is not looked through again; what comes later is collected as ever."""

from __future__ import annotations

import gc
import weakref

from server import memory


class Ring:
    def __init__(self) -> None:
        self.me = self


def test_full_collections_look_at_what_is_new_alone() -> None:
    before = len(gc.get_objects())
    try:
        assert memory.keep_what_is_there() == gc.get_freeze_count() > before // 2
        assert len(gc.get_objects()) < 1000
        gone = weakref.ref(Ring())
        gc.collect()
        assert gone() is None
    finally:
        gc.unfreeze()
    assert len(gc.get_objects()) > before // 2
