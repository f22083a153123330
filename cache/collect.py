"""gc: what nobody holds goes, least recently used first, until what is left is as small or as young as was asked.

Promised, beside any number of running builds: what an owner holds stays, and so does what a running program has been
told is there (see `leases`). An object is moved aside first and looked at again: one that somebody took in that instant
is put back. Killed at any point, every name in the store still means what it meant.

A record goes when nothing that it speaks of is left and it leads to nothing that is: a record alone still tells the key
of what comes after it, so it stays as long as that does.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cache import locks
from cache.digests import Digest, Object
from cache.failures import explained
from cache.growth import put_count
from cache.layout import gc_path, leases_folder, locks_folder, object_path, record_path, tmp_folder
from cache.leases import Lease, list_leases, note_use
from cache.locks import Holder
from cache.objects import install_name
from cache.survey import Seen, SeenRecord, has_hard_links, iterate_seen, iterate_seen_records, name_owners
from cache.temporary import remove_stale, temporary_folder
from cache.trace import Point, reach

# Somebody who runs one command after the other uses again what the last one made.
YOUNG_S = 3600.0


class Why(StrEnum):
    """Why an object stays."""

    HELD = "held"
    IN_USE = "in-use"
    YOUNG = "young"
    FITS = "fits"


@dataclass(frozen=True)
class Policy:
    """What goes of what nobody holds: all that was not used for `older_than_s`, and what is beyond `max_bytes`.

    Once there is more than that, all goes that is beyond `enough_bytes`, which is the same when None. What was used
    within `young_s` stays in any case.
    """

    max_bytes: int | None = None
    enough_bytes: int | None = None
    older_than_s: float | None = None
    young_s: float = YOUNG_S


@dataclass(frozen=True, slots=True)
class Dropped:
    """`used_at` is in seconds since the epoch; `kind` that of the step that gave it, "" when no record tells."""

    digest: Digest
    kind: str
    size_bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class Kept:
    """`by` names who holds or uses these objects, "" where nobody does."""

    why: Why
    by: str
    count: int
    size_bytes: int


@dataclass(frozen=True)
class Collection:
    """What went, or would go, and what stayed. `own_bytes` is what only the store holds of it afterwards."""

    dropped: list[Dropped]
    kept: list[Kept]
    record_count: int
    own_bytes: int

    @property
    def freed_bytes(self) -> int:
        return sum(each.size_bytes for each in self.dropped)


def collect(
    root: Path,
    policy: Policy,
    owners: Mapping[str, Path],
    *,
    dry_run: bool = False,
    on_wait: Callable[[Holder], None] | None = None,
) -> Collection:
    """`owners` are the folders of those who may hold links, under what people call them. One at a time."""
    if dry_run:
        return _collect(root, policy, owners, dry_run=True)
    with locks.hold(gc_path(root), "gc", on_wait):
        return _collect(root, policy, owners, dry_run=False)


def _collect(root: Path, policy: Policy, owners: Mapping[str, Path], *, dry_run: bool) -> Collection:
    remove_stale(leases_folder(root))
    leases = list_leases(root)
    # Without hard links nobody can tell what others use.
    is_blind = bool(leases) and not has_hard_links(root)
    seen = list(iterate_seen(root, leases))
    now = time.time()
    going, kept = _plan(seen, policy, now, is_blind=is_blind)
    reach(Point.GC_PLANNED)
    if not dry_run:
        going = _drop_all(root, going)
        for each in seen:
            if each.used_at > now + YOUNG_S:
                # The clock was wrong when it was used, or is now; else it would be young for years.
                note_use(object_path(root, each.digest))
    gone = {each.digest for each in going}
    records = list(iterate_seen_records(root))
    dead = _find_dead(records, {each.digest for each in seen} - gone, now - policy.young_s)
    if not dry_run:
        _drop_records(root, dead)
        _drop_locks(root)
    own_bytes = sum(each.size_bytes for each in seen if not each.owners and each.digest not in gone)
    if not dry_run:
        with explained("note the size of the store", root):
            put_count(root, own_bytes)
    kinds = {digest: record.kind for record in records for digest in record.outputs}
    return Collection(
        [Dropped(each.digest, kinds.get(each.digest, ""), each.size_bytes, each.used_at) for each in going],
        _group(kept, name_owners(owners), leases),
        len(dead),
        own_bytes,
    )


def _plan(seen: list[Seen], policy: Policy, now: float, *, is_blind: bool) -> tuple[list[Seen], list[tuple[Seen, Why]]]:
    going: list[Seen] = []
    kept: list[tuple[Seen, Why]] = []
    own_bytes = sum(each.size_bytes for each in seen if not each.owners)
    target_bytes = own_bytes
    if policy.max_bytes is not None and own_bytes > policy.max_bytes:
        target_bytes = policy.max_bytes if policy.enough_bytes is None else policy.enough_bytes
    for each in sorted(seen, key=lambda each: each.used_at):
        age_s = now - each.used_at
        if each.owners:
            kept.append((each, Why.HELD))
        elif each.leases or is_blind:
            kept.append((each, Why.IN_USE))
        elif age_s < policy.young_s:
            kept.append((each, Why.YOUNG))
        elif own_bytes > target_bytes or (policy.older_than_s is not None and age_s >= policy.older_than_s):
            going.append(each)
            own_bytes -= each.size_bytes
        else:
            kept.append((each, Why.FITS))
    return going, kept


def _drop_all(root: Path, going: Iterable[Seen]) -> list[Seen]:
    """Those that did go."""
    with explained("remove objects", root), temporary_folder(tmp_folder(root)) as aside:
        return [each for each in going if _drop(root, aside / each.digest, each)]


def _drop(root: Path, aside: Path, each: Seen) -> bool:
    path = object_path(root, each.digest)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    reach(Point.GC_MOVED)
    found = aside.lstat()
    if found.st_nlink > 1:
        install_name(root, aside, Object(each.digest, found.st_size))
        reach(Point.GC_PUT_BACK)
        aside.unlink(missing_ok=True)
        return False
    aside.unlink()
    reach(Point.GC_DROPPED)
    return True


def _find_dead(records: list[SeenRecord], present: set[Digest], young_since: float) -> list[Digest]:
    makers: dict[Digest, list[SeenRecord]] = {}
    for record in records:
        for digest in record.outputs:
            makers.setdefault(digest, []).append(record)
    alive: set[Digest] = set()
    waiting = [
        record
        for record in records
        if record.made_at >= young_since or any(digest in present for digest in record.outputs)
    ]
    while waiting:
        record = waiting.pop()
        if record.key not in alive:
            alive.add(record.key)
            waiting += [maker for digest in record.inputs for maker in makers.get(digest, ())]
    return [record.key for record in records if record.key not in alive]


def _drop_records(root: Path, keys: Iterable[Digest]) -> None:
    with explained("remove records", root):
        for key in keys:
            record_path(root, key).unlink(missing_ok=True)
            reach(Point.GC_RECORD_DROPPED)


def _drop_locks(root: Path) -> None:
    with suppress(FileNotFoundError), os.scandir(locks_folder(root)) as entries:
        for entry in entries:
            with suppress(OSError):
                locks.remove_if_free(Path(entry.path))
                reach(Point.GC_LOCK_DROPPED)


def _group(kept: Iterable[tuple[Seen, Why]], names: Mapping[int, list[str]], leases: Iterable[Lease]) -> list[Kept]:
    users: dict[Digest, str] = {}
    for lease in leases:
        holder = lease.holder
        text = f"process {holder.pid} ({holder.what})" if holder else "a process"
        users.update(dict.fromkeys(lease.digests, text))
    counts: Counter[tuple[Why, str]] = Counter()
    sizes: Counter[tuple[Why, str]] = Counter()
    for each, why in kept:
        by = ""
        if why is Why.HELD:
            by = ", ".join(names.get(each.inode, ["somebody outside"]))
        elif why is Why.IN_USE:
            by = users.get(each.digest, "a process")
        counts[why, by] += 1
        sizes[why, by] += each.size_bytes
    order = list(Why)
    return [
        Kept(why, by, count, sizes[why, by])
        for (why, by), count in sorted(counts.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]
