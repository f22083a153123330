"""Named places between two effects on the disk, where a test stops, looks, or kills.

Off unless asked for: then a place costs one comparison. `on_point` is for a test in this process; for a program that is
started, BANGER_KILL_AT="object-synced" (or "object-synced:3", for the third time) ends it there as SIGKILL does.

`tests/cache/test_killed.py` goes through every member and fails for one that nothing comes by.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    TEMPORARY_MADE = "temporary-made"
    OBJECT_WRITTEN = "object-written"
    OBJECT_SYNCED = "object-synced"
    OBJECT_NAMED = "object-named"
    OBJECT_DONE = "object-done"
    FILE_SYNCED = "file-synced"
    FILE_NAMED = "file-named"
    LOCK_TAKEN = "lock-taken"
    LEASE_MADE = "lease-made"
    LEASE_HELD = "lease-held"
    OWNER_COPIED = "owner-copied"
    OWNER_LINKED = "owner-linked"
    GROWTH_NOTED = "growth-noted"
    GC_PLANNED = "gc-planned"
    GC_MOVED = "gc-moved"
    GC_PUT_BACK = "gc-put-back"
    GC_DROPPED = "gc-dropped"
    GC_RECORD_MOVED = "gc-record-moved"
    GC_RECORD_DROPPED = "gc-record-dropped"
    GC_LOCK_DROPPED = "gc-lock-dropped"
    VERIFY_CHECKED = "verify-checked"
    VERIFY_RECORD_DROPPED = "verify-record-dropped"
    VERIFY_QUARANTINED = "verify-quarantined"
    STEP_STARTED = "step-started"
    STEP_BUILT = "step-built"
    STEP_RECORDED = "step-recorded"
    NAME_FILLED = "name-filled"
    NAME_MOVED = "name-moved"


def reach(point: Point) -> None:
    if on_point is not None:
        on_point(point)


def _killer(place: str) -> Callable[[Point], None]:
    name, _, count = place.partition(":")
    wanted, left, guard = Point(name), int(count or 1), threading.Lock()

    def on(point: Point) -> None:
        nonlocal left
        with guard:
            left -= point is wanted
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return on


on_point: Callable[[Point], None] | None = None
if _place := os.environ.get("BANGER_KILL_AT"):
    on_point = _killer(_place)
