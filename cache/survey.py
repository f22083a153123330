"""One look at everything: each object with who holds it, each record with what it leads to. A snapshot of a moment."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.actions import Record, parse_record
from cache.digests import Digest
from cache.failures import explained
from cache.files import BLOCK_BYTES, make_folder, read_file, try_link
from cache.layout import iterate_objects, iterate_records, tmp_folder
from cache.leases import Lease
from cache.temporary import temporary_folder


@dataclass(frozen=True, slots=True)
class Seen:
    """An object. `size_bytes` is what the disk gives, so holes do not count; `used_at` in seconds since the epoch.

    `owners` counts hard links outside the store, `leases` those of running programs. What has only the name of an
    object, and is no file, is none.
    """

    digest: Digest
    size_bytes: int
    used_at: float
    inode: int
    owners: int
    leases: int


@dataclass(frozen=True, slots=True)
class SeenRecord:
    key: Digest
    made_at: float
    kind: str
    inputs: tuple[Digest, ...]
    outputs: tuple[Digest, ...]


def iterate_seen(root: Path, leases: list[Lease]) -> Iterator[Seen]:
    linked = Counter(inode for lease in leases for inode in lease.inodes.values())
    held = Counter(inode for lease in leases if lease.is_live for inode in lease.inodes.values())
    for entry in iterate_objects(root):
        with explained("look at an object", root):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
        if not stat.S_ISREG(found.st_mode):
            continue
        digest = Digest(entry.name)
        yield Seen(
            digest,
            found.st_blocks * BLOCK_BYTES,
            found.st_mtime,
            found.st_ino,
            max(0, found.st_nlink - 1 - linked[found.st_ino]),
            held[found.st_ino],
        )


def iterate_seen_records(root: Path) -> Iterator[SeenRecord]:
    """Those that can be read."""
    for entry in iterate_records(root):
        try:
            # First: of one that is replaced in between it may be too old, but never too young.
            made_at = entry.stat(follow_symlinks=False).st_mtime
            record: Record = parse_record(read_file(entry.path))
        except (OSError, ValueError):
            continue
        outputs = tuple(made.digest for made in record.outputs.values())
        yield SeenRecord(Digest(entry.name), made_at, record.step, tuple(record.inputs.values()), outputs)


def name_owners(root: Path, owners: Mapping[str, Path]) -> dict[int, list[str]]:
    """Who holds which inode of the store's: `owners` are folders of hard links, under what people call them."""
    names: dict[int, list[str]] = {}
    with explained("look at the store", root):
        device = root.stat().st_dev
    for name, folder in owners.items():
        try:
            with os.scandir(folder) as entries:
                # Not `inode()`: what the folder says of it is not everywhere what stat(2) says.
                found = [entry.stat(follow_symlinks=False) for entry in entries]
        except OSError:
            continue
        for inode in {each.st_ino for each in found if each.st_dev == device}:
            names.setdefault(inode, []).append(name)
    return names


def has_hard_links(root: Path) -> bool:
    with explained("see whether files can be linked", root):
        make_folder(tmp_folder(root))
        with temporary_folder(tmp_folder(root)) as folder:
            (folder / "one").touch()
            return try_link(folder / "one", folder / "two")
