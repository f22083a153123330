"""A folder for what is made on the way, on the filesystem of the machine's disks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cache.temporary import remove_stale, temporary_folder

_PLACE = ".scratch"


@contextlib.contextmanager
def scratch_folder(machine: Path) -> Iterator[Path]:
    """Gone at the end of the block; what one that was killed left goes with the next."""
    place = machine / _PLACE
    place.mkdir(mode=0o700, exist_ok=True)
    remove_stale(place)
    with temporary_folder(place) as folder:
        yield folder
