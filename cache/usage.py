"""How much there is, of which kind, and how much of it owners hold. A snapshot: others may work meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache.digests import Digest
from cache.files import BLOCK_BYTES
from cache.layout import quarantine_folder, tmp_folder
from cache.leases import list_leases
from cache.survey import iterate_seen, iterate_seen_records


@dataclass(frozen=True)
class KindUsage:
    """Objects of one kind of step; "" for those that no record tells of.

    Bytes are what the disk gives, so holes do not count. `shared` is what owners hold by a hard link of their own, and
    what stays with them when the store goes; removing the rest gives `own_bytes` back.
    """

    kind: str
    object_count: int
    size_bytes: int
    shared_count: int
    shared_bytes: int

    @property
    def own_bytes(self) -> int:
        return self.size_bytes - self.shared_bytes


@dataclass(frozen=True)
class Usage:
    """`kinds` begin with the largest. `unfinished_bytes` is being written; `quarantine_bytes` `verify` took out."""

    kinds: list[KindUsage]
    record_count: int
    unfinished_bytes: int
    quarantine_bytes: int

    @property
    def all(self) -> KindUsage:
        return KindUsage(
            "",
            sum(each.object_count for each in self.kinds),
            sum(each.size_bytes for each in self.kinds),
            sum(each.shared_count for each in self.kinds),
            sum(each.shared_bytes for each in self.kinds),
        )


def measure(root: Path) -> Usage:
    kinds: dict[Digest, str] = {}
    record_count = 0
    for record in iterate_seen_records(root):
        record_count += 1
        for digest in record.outputs:
            # Steps of two kinds may give the same bytes; it counts once.
            kinds.setdefault(digest, record.kind)
    counts: dict[str, list[int]] = {}
    for seen in iterate_seen(root, list_leases(root)):
        count = counts.setdefault(kinds.get(seen.digest, ""), [0, 0, 0, 0])
        count[0] += 1
        count[1] += seen.size_bytes
        if seen.owners:
            count[2] += 1
            count[3] += seen.size_bytes
    found = [KindUsage(kind, *numbers) for kind, numbers in counts.items()]
    return Usage(
        sorted(found, key=lambda each: (-each.size_bytes, each.kind)),
        record_count,
        _measure_folder(tmp_folder(root)),
        _measure_folder(quarantine_folder(root)),
    )


def _measure_folder(folder: Path) -> int:
    size_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size_bytes += Path(parent, name).lstat().st_blocks * BLOCK_BYTES
    return size_bytes
