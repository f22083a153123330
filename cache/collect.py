"""gc: what nobody holds goes, least recently used first, until what is left is as small or as young as was asked.

Promised, beside any number of running builds: what an owner holds stays, and so does what a running program has been
told is there (see `leases`). An object is moved aside first, to `gc-<digest>` beside `objects/`, and looked at again:
one that somebody took in that instant is put back. So is a record that was written again, from `gc-<key>`. Killed at
any point, every name in the store still means what it meant, and the next gc ends what was begun. No step of it needs
space or an inode, so that it helps on a full disk.

A record goes when nothing that it speaks of is left and it leads to nothing that is: a record alone still tells the key
of what comes after it, so it stays as long as that does.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cache import locks, quarantine
from cache.digests import Digest, Object, is_digest
from cache.failures import explained
from cache.files import find_file
from cache.growth import put_count
from cache.layout import gc_path, leases_folder, locks_folder, object_path, record_path
from cache.leases import Lease, list_leases, note_use
from cache.locks import Holder
from cache.objects import install_name
from cache.survey import Seen, SeenRecord, has_hard_links, iterate_seen, iterate_seen_records, name_owners
from cache.temporary import remove_stale
from cache.trace import Point, reach

# Somebody who runs one command after the other uses again what the last one made.
YOUNG_S = 3600.0
_ASIDE = re.compile("gc-([0-9a-f]{64})")


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
    within `young_s` stays in any case; what was used in the future, as clocks go, was used now.
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
    """`by` names who holds or uses these objects, as far as they are known."""

    why: Why
    by: tuple[str, ...]
    count: int
    size_bytes: int


@dataclass(frozen=True)
class Collection:
    """What went, or would go, and what stayed. `own_bytes` is what no owner holds of the latter."""

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
    cancelled: Callable[[], bool] | None = None,
) -> Collection:
    """`owners` are the folders of those who may hold links, under what people call them.

    One at a time: others wait, and raise WaitAbandoned soon after `cancelled` is true. A dry run changes nothing.
    """
    if dry_run:
        return _collect(root, policy, owners, dry_run=True)
    with locks.hold(gc_path(root), "gc", on_wait, cancelled):
        _settle_all(root)
        remove_stale(leases_folder(root))
        return _collect(root, policy, owners, dry_run=False)


def _collect(root: Path, policy: Policy, owners: Mapping[str, Path], *, dry_run: bool) -> Collection:
    leases = list_leases(root)
    seen = list(iterate_seen(root, leases))
    now = time.time()
    going, kept = _plan(seen, policy, now, is_blind=_is_blind(root, leases))
    reach(Point.GC_PLANNED)
    if not dry_run:
        going, taken = _drop_all(root, going)
        kept += [(each, Why.IN_USE) for each in taken]
    gone = {each.digest for each in going}
    records = list(iterate_seen_records(root))
    present = {each.digest for each, _ in kept}
    present |= _find_new(root, records, present | gone if dry_run else present)
    dead = _find_dead(records, present, now, policy.young_s)
    own_bytes = sum(each.size_bytes for each, _ in kept if not each.owners)
    if not dry_run:
        _drop_records(root, dead)
        _drop_locks(root)
        quarantine.drop_old(root, now)
        # The clock was wrong when these were used, or is now; else they would be young for years.
        for path in [
            *(object_path(root, each.digest) for each, _ in kept if each.used_at > now + YOUNG_S),
            *(record_path(root, each.key) for each in records if each.made_at > now + YOUNG_S),
        ]:
            note_use(path)
        put_count(root, own_bytes)
    kinds = {digest: record.kind for record in records for digest in record.outputs}
    return Collection(
        [Dropped(each.digest, kinds.get(each.digest, ""), each.size_bytes, each.used_at) for each in going],
        _group(kept, name_owners(root, owners), leases),
        len(dead),
        own_bytes,
    )


def _is_blind(root: Path, leases: Iterable[Lease]) -> bool:
    """Whether programs run of which nobody can tell what they use, since there are no hard links here."""
    live = [lease for lease in leases if lease.is_live]
    return bool(live) and not any(lease.digests for lease in live) and not has_hard_links(root)


def _plan(seen: list[Seen], policy: Policy, now: float, *, is_blind: bool) -> tuple[list[Seen], list[tuple[Seen, Why]]]:
    going: list[Seen] = []
    kept: list[tuple[Seen, Why]] = []
    own_bytes = sum(each.size_bytes for each in seen if not each.owners)
    target_bytes = own_bytes
    if policy.max_bytes is not None and own_bytes > policy.max_bytes:
        target_bytes = policy.max_bytes if policy.enough_bytes is None else policy.enough_bytes
    for each in sorted(seen, key=lambda each: each.used_at):
        age_s = _age_s(now, each.used_at)
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


def _age_s(now: float, moment: float) -> float:
    return max(0.0, now - moment)


def _drop_all(root: Path, going: Iterable[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Those that went, and those that somebody took meanwhile. One that another removed is neither."""
    gone: list[Seen] = []
    taken: list[Seen] = []
    with explained("remove objects", root):
        for each in going:
            with suppress(FileNotFoundError):
                (gone if _drop(root, each.digest) else taken).append(each)
    return gone, taken


def _drop(root: Path, digest: Digest) -> bool:
    """False when somebody took it. Raises FileNotFoundError when it was not there any more."""
    # A name of its own for each digest: whatever comes between, nothing is ever put back under another's.
    aside = root / f"gc-{digest}"
    object_path(root, digest).rename(aside)
    reach(Point.GC_MOVED)
    return _settle(root, aside, digest)


def _settle(root: Path, aside: Path, digest: Digest) -> bool:
    found = aside.lstat()
    if found.st_nlink > 1:
        install_name(root, aside, Object(digest, found.st_size))
        reach(Point.GC_PUT_BACK)
        aside.unlink(missing_ok=True)
        return False
    aside.unlink()
    reach(Point.GC_DROPPED)
    return True


def _settle_all(root: Path) -> None:
    """What a gc that was killed left aside."""
    with explained("remove objects", root):
        for path in list(root.iterdir()):
            if (aside := _ASIDE.fullmatch(path.name)) is not None:
                with suppress(FileNotFoundError):
                    _settle(root, path, Digest(aside[1]))


def _find_new(root: Path, records: Iterable[SeenRecord], known: Set[Digest]) -> set[Digest]:
    """What came while we worked: a record that was just written must not go for want of its objects."""
    told = {digest for record in records for digest in record.outputs}
    with explained("look at an object", root):
        return {digest for digest in told - known if find_file(object_path(root, digest)) is not None}


def _find_dead(records: list[SeenRecord], present: Set[Digest], now: float, young_s: float) -> list[SeenRecord]:
    makers: dict[Digest, list[SeenRecord]] = {}
    for record in records:
        for digest in record.outputs:
            makers.setdefault(digest, []).append(record)
    alive: set[Digest] = set()
    waiting = [
        record
        for record in records
        if _age_s(now, record.made_at) < young_s or any(digest in present for digest in record.outputs)
    ]
    while waiting:
        record = waiting.pop()
        if record.key not in alive:
            alive.add(record.key)
            waiting += [maker for digest in record.inputs for maker in makers.get(digest, ())]
    return [record for record in records if record.key not in alive]


def _drop_records(root: Path, dead: Iterable[SeenRecord]) -> None:
    with explained("remove records", root):
        for record in dead:
            with suppress(FileNotFoundError):
                _drop_record(root, record)
            reach(Point.GC_RECORD_DROPPED)


def _drop_record(root: Path, record: SeenRecord) -> None:
    """Aside first, as an object: after any look at its place, somebody may have written it again."""
    path, aside = record_path(root, record.key), root / f"gc-{record.key}"
    found = find_file(path)
    if found is None or found.st_mtime != record.made_at:
        return
    path.rename(aside)
    reach(Point.GC_RECORD_MOVED)
    if aside.lstat().st_mtime == record.made_at:
        aside.unlink()
    else:
        aside.rename(path)


def _drop_locks(root: Path) -> None:
    # One that stays does no harm.
    with suppress(OSError), os.scandir(locks_folder(root)) as entries:
        for entry in entries:
            if is_digest(entry.name):
                with suppress(OSError):
                    locks.remove_if_free(Path(entry.path))
                    reach(Point.GC_LOCK_DROPPED)


def _group(kept: Iterable[tuple[Seen, Why]], names: Mapping[int, list[str]], leases: Iterable[Lease]) -> list[Kept]:
    users: dict[int, list[str]] = {}
    for lease in leases:
        if lease.is_live and lease.holder is not None:
            for inode in lease.inodes.values():
                users.setdefault(inode, []).append(f"process {lease.holder.pid} ({lease.holder.what})")
    counts: Counter[tuple[Why, tuple[str, ...]]] = Counter()
    sizes: Counter[tuple[Why, tuple[str, ...]]] = Counter()
    for each, why in kept:
        by: list[str] = []
        if why is Why.HELD:
            by = names.get(each.inode, [])
        elif why is Why.IN_USE:
            by = users.get(each.inode, [])
        group = why, tuple(sorted(by))
        counts[group] += 1
        sizes[group] += each.size_bytes
    order = list(Why)
    return [
        Kept(why, by, count, sizes[why, by])
        for (why, by), count in sorted(counts.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]
