"""How far a verification came, so that one which was interrupted can go on there.

What a checkpoint says is true by itself, whoever wrote it and whoever writes beside it: everything up to `done` was
read, and of that only `bad` is left to be told. So two verifications may overwrite each other's.
Not promised: that it is there. It is not synced, and on a full disk none is written.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError
from cache.layout import tmp_folder, verify_path
from cache.temporary import replace_file

# What was read longer ago may have changed since.
MAX_AGE_S = 24 * 3600.0
_SHELF_LENGTH = len("ab/")


@dataclass(frozen=True)
class Checkpoint:
    """Places are `ab/<digest>`, in the order of names; `saved_at` is in seconds since the epoch."""

    done: str
    bad: frozenset[str]
    saved_at: float

    @property
    def fraction(self) -> float:
        return measure_place(self.done)


def measure_place(place: str) -> float:
    """How much of everything comes before a place: digests are spread evenly."""
    return int(place[_SHELF_LENGTH : _SHELF_LENGTH + 4] or "0", 16) / 0x10000


def find_checkpoint(root: Path) -> Checkpoint | None:
    """None also for one that is too old, comes from the future, or cannot be read."""
    try:
        found = json.loads(verify_path(root).read_bytes())
        checkpoint = Checkpoint(str(found["done"]), frozenset(map(str, found["bad"])), float(found["saved_at"]))
        is_fresh = 0 <= time.time() - checkpoint.saved_at <= MAX_AGE_S and 0 <= checkpoint.fraction < 1
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return checkpoint if is_fresh else None


def put_checkpoint(root: Path, done: str, bad: frozenset[str]) -> None:
    text = json.dumps({"done": done, "bad": sorted(bad), "saved_at": time.time()})
    with suppress(OSError, BangerError):  # a store that can only be read is verified, too
        replace_file(tmp_folder(root), verify_path(root), text.encode())


def drop_checkpoint(root: Path) -> None:
    with suppress(OSError):
        verify_path(root).unlink()
