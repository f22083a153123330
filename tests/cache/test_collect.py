"""gc: what goes and what stays, and in which order. What is done beside it is in test_collect_beside."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cache import Digest, Kept, Object, Policy, Record, Store, Why, key_of

EVERYTHING = Policy(older_than_s=0, young_s=0)
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
BLOCK = 4096


def put(store: Store, name: str, blocks: int = 1, *, used_days_ago: float = 10.0) -> Object:
    obj = store.put_bytes(name.encode().ljust(blocks * BLOCK, b"."))
    used_at = time.time() - used_days_ago * DAY_S
    os.utime(store.path(obj), (used_at, used_at))
    assert store.path(obj).stat().st_blocks * 512 == blocks * BLOCK
    return obj


def put_record(store: Store, name: str, made: Mapping[str, Object], *inputs: Object, days_ago: float = 10.0) -> Digest:
    named = {str(number): each.digest for number, each in enumerate(inputs)}
    key = key_of(name, 1, {}, named)
    store.put_record(key, Record(name, 1, {}, named, made, 0.0, 0.0))
    made_at = time.time() - days_ago * DAY_S
    os.utime(store.root / "actions" / key[:2] / key, (made_at, made_at))
    return key


def has(store: Store, *objects: Object) -> list[bool]:
    return [store.has(each) for each in objects]


def snapshot(root: Path) -> dict[str, tuple[int, ...]]:
    """Everything that can be seen of a folder from outside."""
    found = {str(path.relative_to(root)): path.lstat() for path in [root, *root.rglob("*")]}
    return {
        name: (each.st_ino, each.st_mode, each.st_nlink, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
        for name, each in found.items()
    }


def test_an_empty_and_a_missing_store_have_nothing_to_give(store: Store, tmp_path: Path) -> None:
    for each in (store, Store(tmp_path / "missing")):
        collected = each.collect(EVERYTHING, {})
        assert (collected.dropped, collected.kept, collected.record_count, collected.own_bytes) == ([], [], 0, 0)


def test_without_a_wish_nothing_goes(store: Store) -> None:
    obj = put(store, "a", used_days_ago=9999)
    collected = store.collect(Policy(), {})
    assert collected.dropped == []
    assert collected.kept == [Kept(Why.FITS, (), 1, BLOCK)]
    assert store.has(obj)


def test_what_was_used_last_longest_ago_goes_first_and_no_more_than_needed(store: Store) -> None:
    third, first, fourth, second = (put(store, str(days), used_days_ago=days) for days in (7, 9, 6, 8))
    collected = store.collect(Policy(max_bytes=2 * BLOCK), {})
    assert [each.digest for each in collected.dropped] == [first.digest, second.digest]
    assert has(store, first, second, third, fourth) == [False, False, True, True]
    assert (collected.freed_bytes, collected.own_bytes) == (2 * BLOCK, 2 * BLOCK)


@pytest.mark.parametrize(("max_blocks", "left"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4)])
def test_a_size_is_kept_to_the_block(store: Store, max_blocks: int, left: int) -> None:
    for number in range(4):
        put(store, str(number))
    assert store.collect(Policy(max_bytes=max_blocks * BLOCK), {}).own_bytes == left * BLOCK
    assert store.usage().all.object_count == left


def test_beyond_the_size_all_goes_that_is_beyond_enough(store: Store) -> None:
    for number in range(4):
        put(store, str(number))
    policy = Policy(max_bytes=4 * BLOCK, enough_bytes=2 * BLOCK)
    assert store.collect(policy, {}).dropped == []
    put(store, "one more")
    assert len(store.collect(policy, {}).dropped) == 3


def test_the_age_counts_from_the_last_use(store: Store) -> None:
    old, new = put(store, "old", used_days_ago=31), put(store, "new", used_days_ago=29)
    (dropped,) = store.collect(Policy(older_than_s=30 * DAY_S), {}).dropped
    assert (dropped.digest, dropped.size_bytes) == (old.digest, BLOCK)
    assert abs(time.time() - dropped.used_at - 31 * DAY_S) < HOUR_S
    assert store.has(new)


def test_of_an_age_and_a_size_both_are_kept(store: Store) -> None:
    objects = [put(store, str(days), used_days_ago=days) for days in (40, 20, 10)]
    both = Policy(max_bytes=BLOCK, older_than_s=30 * DAY_S)
    assert len(store.collect(both, {}).dropped) == 2
    assert has(store, *objects) == [False, False, True]


def test_what_was_used_just_now_stays_however_large_it_is(store: Store) -> None:
    young = put(store, "young", 9, used_days_ago=0)
    old = put(store, "old")
    for policy in (Policy(max_bytes=0), Policy(older_than_s=0)):
        kept = store.collect(policy, {}).kept
        assert kept == [Kept(Why.YOUNG, (), 1, 9 * BLOCK)]
    assert has(store, young, old) == [True, False]
    store.collect(Policy(max_bytes=0, young_s=0), {})
    assert not store.has(young)


def test_what_stays_anyway_fills_the_size(store: Store, tmp_path: Path) -> None:
    put(store, "young", 3, used_days_ago=0)
    owned = put(store, "owned", 5)
    store.link(owned, tmp_path / "owned")
    old = put(store, "old")
    # Three blocks are young; what an owner holds is no weight of the cache's.
    assert store.collect(Policy(max_bytes=4 * BLOCK), {}).dropped == []
    assert [each.digest for each in store.collect(Policy(max_bytes=3 * BLOCK), {}).dropped] == [old.digest]


def test_what_an_owner_holds_stays_and_the_owner_is_named(store: Store, tmp_path: Path) -> None:
    shared, single, stranger, free = (put(store, name) for name in ("shared", "single", "stranger", "free"))
    owners = {name: tmp_path / name for name in ("vm box", "image debian", "image empty", "image gone")}
    for name in ("vm box", "image debian", "image empty"):
        owners[name].mkdir()
    store.link(shared, owners["vm box"] / "root")
    store.link(shared, owners["image debian"] / "root")
    store.link(shared, owners["image debian"] / "the same once more")
    store.link(single, owners["image debian"] / "home")
    store.link(stranger, tmp_path / "elsewhere")
    collected = store.collect(EVERYTHING, owners)
    assert [each.digest for each in collected.dropped] == [free.digest]
    assert collected.kept == [
        Kept(Why.HELD, (), 1, BLOCK),
        Kept(Why.HELD, ("image debian",), 1, BLOCK),
        Kept(Why.HELD, ("image debian", "vm box"), 1, BLOCK),
    ]
    assert collected.own_bytes == 0
    (owners["vm box"] / "root").unlink()
    for path in owners["image debian"].iterdir():
        path.unlink()
    assert len(store.collect(EVERYTHING, owners).dropped) == 2
    assert has(store, shared, single, stranger) == [False, False, True]


def test_a_copy_on_another_filesystem_holds_nothing(store: Store, other_filesystem: Path) -> None:
    obj = put(store, "copied")
    store.link(obj, other_filesystem / "copy")
    assert [each.digest for each in store.collect(EVERYTHING, {"vm over there": other_filesystem}).dropped] == [
        obj.digest
    ]
    assert (other_filesystem / "copy").read_bytes().startswith(b"copied")


ON_TWO_FILESYSTEMS = """
import sys
from pathlib import Path
from cache import Policy, Store
here, there = Path(sys.argv[1]), Path(sys.argv[2])
store = Store.open(here / "store")
obj = store.put_bytes(b"x")
store.link(obj, here / "link")
inode = store.path(obj).stat().st_ino
for number in range(10000):
    (there / str(number)).touch()
    if (there / str(number)).stat().st_ino == inode:
        break
else:
    raise AssertionError("no such inode")
(kept,) = store.collect(Policy(), {"vm over there": there}).kept
assert (kept.why, kept.by) == ("held", ()), kept
(kept,) = store.collect(Policy(), {"vm over there": there, "vm here": here}).kept
assert (kept.why, kept.by) == ("held", ("vm here",)), kept
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_files_of_another_filesystem_that_have_the_same_number_are_not_the_same(tmp_path: Path, start) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    mount = 'mount -t tmpfs tmpfs "$1"; mount -t tmpfs tmpfs "$2"; shift 2; exec "$@"'
    folders = str(tmp_path / "here"), str(tmp_path / "there")
    process = start(ON_TWO_FILESYSTEMS, *folders, before=("unshare", "-m", "sh", "-ec", mount, "sh", *folders))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), err


def test_a_dry_run_says_what_would_go_and_changes_nothing_at_all(store: Store, tmp_path: Path) -> None:
    held, free = put(store, "held"), put(store, "free")
    store.link(held, tmp_path / "owner")
    put(store, "of tomorrow", used_days_ago=-1)
    put_record(store, "lost", {"o": free})
    (store.root / "locks" / ("0" * 64)).touch()
    (store.root / f"gc-{'1' * 64}").touch()
    with store.leased("a build") as leased:
        assert leased.has(put(store, "used"))
        before = snapshot(store.root)
        would = store.collect(EVERYTHING, {}, dry_run=True)
        assert snapshot(store.root) == before
        assert store.collect(EVERYTHING, {}) == would
        assert snapshot(store.root) != before
    assert len(would.dropped) == 2
    assert (would.record_count, would.own_bytes, would.freed_bytes) == (1, BLOCK, 2 * BLOCK)


def test_kinds_are_told_of_what_went(store: Store) -> None:
    known, unknown = put(store, "known", used_days_ago=3), put(store, "unknown", used_days_ago=2)
    put_record(store, "rootfs", {"o": known})
    dropped = store.collect(EVERYTHING, {}).dropped
    assert [(each.digest, each.kind) for each in dropped] == [(known.digest, "rootfs"), (unknown.digest, "")]


def test_records_stay_as_long_as_they_lead_to_something(store: Store, tmp_path: Path) -> None:
    packages, system, rootfs = put(store, "packages"), put(store, "system"), put(store, "rootfs")
    other = put(store, "other")
    keys = [
        put_record(store, "packages", {"o": packages}),
        put_record(store, "system", {"o": system}, packages),
        put_record(store, "rootfs", {"o": rootfs}, system),
    ]
    aside = put_record(store, "other", {"o": other}, packages)
    nothing = put_record(store, "nothing", {})
    store.link(rootfs, tmp_path / "image")
    assert store.collect(EVERYTHING, {}).record_count == 2
    assert [store.find_record(key) is not None for key in (*keys, aside, nothing)] == [True, True, True, False, False]
    (tmp_path / "image").unlink()
    assert store.collect(EVERYTHING, {}).record_count == 3
    assert list((store.root / "actions").glob("*/*")) == []


def test_a_record_stays_for_one_of_its_objects(store: Store, tmp_path: Path) -> None:
    kept, lost = put(store, "kept"), put(store, "lost")
    key = put_record(store, "two", {"a": lost, "b": kept})
    store.link(kept, tmp_path / "owner")
    assert store.collect(EVERYTHING, {}).record_count == 0
    assert store.find_record(key) is not None


def test_a_young_record_stays_without_its_objects_and_so_does_what_leads_to_it(store: Store) -> None:
    """Somebody who makes them is about to put the next ones."""
    first, second = Object(Digest("1" * 64), 1), Object(Digest("2" * 64), 1)
    old = put_record(store, "old", {"o": first})
    young = put_record(store, "young", {"o": second}, first, days_ago=0)
    assert store.collect(Policy(max_bytes=0), {}).record_count == 0
    assert store.collect(EVERYTHING, {}).record_count == 2
    assert [store.find_record(key) for key in (old, young)] == [None, None]


def test_records_in_a_circle_go_too(store: Store) -> None:
    one, other = Object(Digest("1" * 64), 1), Object(Digest("2" * 64), 1)
    put_record(store, "a", {"o": one}, other)
    put_record(store, "b", {"o": other}, one)
    assert store.collect(Policy(), {}).record_count == 2


def test_a_record_that_cannot_be_read_is_left_for_verify(store: Store) -> None:
    key = put_record(store, "s", {})
    path = store.root / "actions" / key[:2] / key
    path.write_text("{")
    assert store.collect(EVERYTHING, {}).record_count == 0
    assert path.exists()


def test_what_was_used_in_the_future_is_young_now_and_no_longer(store: Store) -> None:
    """The clock was wrong then, or is now: it must neither keep things for years nor take them at once."""
    obj, soon = put(store, "x", used_days_ago=-400), put(store, "y", used_days_ago=-0.01)
    lost = Object(Digest("1" * 64), 1)
    key = put_record(store, "s", {"o": lost}, days_ago=-400)
    assert store.collect(Policy(max_bytes=0), {}).dropped == []
    for path in (store.path(obj), store.root / "actions" / key[:2] / key):
        assert abs(time.time() - path.stat().st_mtime) < HOUR_S
    put(store, "x", used_days_ago=-400)
    collected = store.collect(EVERYTHING, {})
    assert {each.digest for each in collected.dropped} == {obj.digest, soon.digest}
    assert store.find_record(key) is None


def test_holes_weigh_nothing(store: Store) -> None:
    with store.temporary_dir() as folder:
        with (folder / "disk").open("wb") as file:
            file.write(b"x" * BLOCK)
            file.truncate(1 << 28)
        disk = store.put_file(folder / "disk")
    os.utime(store.path(disk), (0, 0))
    assert store.collect(Policy(max_bytes=BLOCK), {}).kept == [Kept(Why.FITS, (), 1, BLOCK)]
    assert store.collect(Policy(max_bytes=BLOCK - 1), {}).freed_bytes == BLOCK


def test_strangers_are_left_alone(store: Store) -> None:
    obj = put(store, "x")
    shelf = store.path(obj).parent
    for place in (store.root, store.root / "objects", store.root / "actions", store.root / "locks", shelf):
        (place / "lost+found").mkdir()
        (place / "README").write_text("hello")
    (shelf / (obj.digest[:2] + "0" * 62)).mkdir()
    (shelf / (obj.digest[:2] + "1" * 62)).symlink_to("/etc/hostname")
    before = set(store.root.rglob("*"))
    collected = store.collect(EVERYTHING, {})
    assert [each.digest for each in collected.dropped] == [obj.digest]
    assert set(store.root.rglob("*")) == before - {shelf / obj.digest} | {store.root / "gc", store.root / "growth"}


def test_a_truncated_object_goes_like_every_other(store: Store) -> None:
    obj = put(store, "x")
    path = store.path(obj)
    path.chmod(0o600)
    os.truncate(path, 1)
    os.utime(path, (0, 0))
    assert [each.digest for each in store.collect(Policy(older_than_s=DAY_S), {}).dropped] == [obj.digest]


ON_A_FULL_DISK = """
import errno, os, sys
from pathlib import Path
from cache import Policy, Store
root = Path(sys.argv[1])
store = Store.open(root / "store")
everything = Policy(older_than_s=0, young_s=0)
store.collect(everything, {})
obj, held = store.put_bytes(b"x" * 100_000), store.put_bytes(b"y")
store.link(held, root / "held")

def fill():
    for number in range(1000000):
        try:
            (root / f"fill{sys.argv[2]}-{number}").write_bytes(b"z" * 4096 * int(sys.argv[2]))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return
    raise AssertionError("it does not get full")

fill()
assert len(store.collect(everything, {}, dry_run=True).dropped) == 1
assert len(store.collect(everything, {}).dropped) == 1
assert not store.has(obj)
fill()
assert store.collect(everything, {}).dropped == []
assert store.has(held)
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(
    ("limit", "blocks"), [("size=1m", 1), ("size=1m,nr_inodes=60", 0)], ids=["no space", "no inodes"]
)
def test_a_full_disk_can_be_tidied(tmp_path: Path, start, limit: str, blocks: int) -> None:
    mount = f'mount -t tmpfs -o {limit} tmpfs "$1"; shift; exec "$@"'
    before = ("unshare", "-m", "sh", "-ec", mount, "sh", str(tmp_path))
    process = start(ON_A_FULL_DISK, tmp_path, blocks, before=before)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), err
