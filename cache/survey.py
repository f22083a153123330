"""One look at everything: each object with who holds it, each record with what it leads to. A snapshot of a moment."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.actions import Record, parse_record
from cache.digests import Digest
from cache.failures import explained
from cache.files import BLOCK_BYTES, make_folder
from cache.layout import iterate_objects, iterate_records, tmp_folder
from cache.leases import Lease
from cache.temporary import temporary_folder


@dataclass(frozen=True, slots=True)
class Seen:
    """An object. `size_bytes` is what the disk gives, so holes do not count; `used_at` in seconds since the epoch.

    `owners` counts hard links outside the store, `leases` those of running programs.
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
    held = Counter(digest for lease in leases for digest in lease.digests)
    for entry in iterate_objects(root):
        with explained("look at an object", root):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
        digest = Digest(entry.name)
        by_leases = held[digest]
        yield Seen(
            digest,
            found.st_blocks * BLOCK_BYTES,
            found.st_mtime,
            found.st_ino,
            max(0, found.st_nlink - 1 - by_leases),
            by_leases,
        )


def iterate_seen_records(root: Path) -> Iterator[SeenRecord]:
    """Those that can be read."""
    for entry in iterate_records(root):
        try:
            with Path(entry.path).open("rb") as file:
                record: Record = parse_record(file.read())
                made_at = os.fstat(file.fileno()).st_mtime
        except (OSError, ValueError):
            continue
        outputs = tuple(made.digest for made in record.outputs.values())
        yield SeenRecord(Digest(entry.name), made_at, record.step, tuple(record.inputs.values()), outputs)


def name_owners(owners: Mapping[str, Path]) -> dict[int, list[str]]:
    """Who holds which inode: `owners` are folders of hard links, under what people call them."""
    names: dict[int, list[str]] = {}
    for name, folder in owners.items():
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    names.setdefault(entry.inode(), []).append(name)
        except OSError:
            continue
    return names


def has_hard_links(root: Path) -> bool:
    with explained("make a temporary folder", root):
        make_folder(tmp_folder(root))
        with temporary_folder(tmp_folder(root)) as folder:
            (folder / "one").touch()
            try:
                os.link(folder / "one", folder / "two")
            except OSError:
                return False
    return True
