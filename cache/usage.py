"""How much there is, and how much of it owners hold. A snapshot, not a transaction: others may work meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.failures import explained
from cache.layout import iterate_objects, iterate_records

# st_blocks counts these, whatever the block size of the filesystem (stat(3type)).
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Usage:
    """Bytes are what the disk gives, so holes do not count. `held` objects are those with an owner's hard link."""

    object_count: int
    size_bytes: int
    held_count: int
    held_bytes: int
    record_count: int

    @property
    def free_bytes(self) -> int:
        """What removing every object that nobody holds would give back."""
        return self.size_bytes - self.held_bytes


def measure(root: Path) -> Usage:
    object_count = size_bytes = held_count = held_bytes = 0
    for entry in iterate_objects(root):
        with explained("measure the store", root):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
        object_count += 1
        size_bytes += found.st_blocks * _BLOCK_BYTES
        if found.st_nlink > 1:
            held_count += 1
            held_bytes += found.st_blocks * _BLOCK_BYTES
    record_count = sum(1 for _ in iterate_records(root))
    return Usage(object_count, size_bytes, held_count, held_bytes, record_count)
