"""How large the store may be by now, without looking at it: a count, and what came since.

    1790000000.0 123456789      when somebody counted, and the bytes that only the store held then
    4096                        each object that came since, whoever put it there

A line is appended for each new object; one that is lost in the instant of a count, or cut off by a crash, makes the
estimate a little wrong, and the next count makes it right.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError
from cache.layout import growth_path, tmp_folder
from cache.temporary import replace_file
from cache.trace import Point, reach


@dataclass(frozen=True)
class Growth:
    """`counted_at` is in seconds since the epoch."""

    counted_at: float
    counted_bytes: int
    since_bytes: int

    @property
    def estimate_bytes(self) -> int:
        return self.counted_bytes + self.since_bytes


def note_growth(root: Path, size_bytes: int) -> None:
    """Never fails: nothing depends on it but when somebody counts."""
    with suppress(OSError):
        fd = os.open(growth_path(root), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, b"%d\n" % size_bytes)
        finally:
            os.close(fd)
    reach(Point.GROWTH_NOTED)


def find_growth(root: Path) -> Growth | None:
    """None when nobody ever counted, or what was noted cannot be read."""
    try:
        with growth_path(root).open("rb") as file:
            at, counted = next(file).split()
            return Growth(float(at), int(counted), sum(int(line) for line in file if line.endswith(b"\n")))
    except (OSError, ValueError, StopIteration):
        return None


def put_count(root: Path, size_bytes: int) -> None:
    """Never fails: on a full disk the old count stays."""
    with suppress(OSError, BangerError):
        replace_file(tmp_folder(root), growth_path(root), b"%f %d\n" % (time.time(), size_bytes))
