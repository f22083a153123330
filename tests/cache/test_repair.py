"""`verify` with `repair`: what is bad is taken out so that it never comes back, and who has it is named."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from banger.errors import BangerError, Reason
from cache import Digest, Object, Policy, Problem, Record, Store, key_of, locks, trace
from cache.layout import gc_path, record_path
from cache.quarantine import KEPT_S
from cache.trace import Point

GOOD, BAD = b"as it was", b"as it iS!"


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    yield
    trace.on_point = None


def damage(store: Store, obj: Object, content: bytes = BAD) -> None:
    """In place, so that all who have a link have it, too."""
    path = store.path(obj)
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)


def put_recorded(store: Store, content: bytes = GOOD, name: str = "s") -> tuple[Object, Digest]:
    obj, key = store.put_bytes(content), key_of(name, 1, {}, {})
    store.put_record(key, Record(name, 1, {}, {}, {"out": obj}, time.time(), 0.0))
    return obj, key


def is_hit(store: Store, key: Digest) -> bool:
    record = store.find_record(key)
    return record is not None and store.has_outputs(record)


def quarantined(store: Store) -> dict[str, bytes]:
    folder = store.root / "quarantine"
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def make_old(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s, time.time() - age_s))


def test_a_bad_object_goes_to_quarantine_and_its_records_are_dropped(store: Store) -> None:
    obj, key = put_recorded(store)
    _, other_key = put_recorded(store, b"another", "t")
    damage(store, obj)
    verification = store.verify(repair=True)
    (found,) = verification
    assert (found.digest, found.problem, found.repaired) == (obj.digest, Problem.WRONG_HASH, True)
    assert quarantined(store) == {obj.digest: BAD}
    assert (store.find_record(key), verification.dropped_records) == (None, 1)
    assert is_hit(store, other_key)
    assert list(store.verify()) == []


def test_without_repair_nothing_changes(store: Store) -> None:
    obj, key = put_recorded(store)
    damage(store, obj)
    (found,) = store.verify()
    assert not found.repaired
    assert is_hit(store, key)
    assert quarantined(store) == {}


def test_what_was_taken_out_is_made_again_as_it_was(store: Store) -> None:
    obj, key = put_recorded(store)
    damage(store, obj)
    assert len(list(store.verify(repair=True))) == 1
    put_recorded(store)
    assert is_hit(store, key)
    assert store.path(obj).read_bytes() == GOOD
    # What lies in quarantine tells nothing of the one that is there now.
    assert list(store.verify(repair=True)) == []
    assert is_hit(store, key)


def test_a_record_goes_with_any_of_its_outputs(store: Store) -> None:
    bad, good = store.put_bytes(GOOD), store.put_bytes(b"another")
    key = key_of("s", 1, {}, {})
    store.put_record(key, Record("s", 1, {}, {}, {"a": good, "b": bad}, 0.0, 0.0))
    damage(store, bad)
    assert len(list(store.verify(repair=True))) == 1
    assert store.find_record(key) is None
    assert store.has(good)


def test_bad_records_are_removed(store: Store) -> None:
    obj, key = put_recorded(store)
    record_path(store.root, key).write_bytes(b"{")
    (found,) = store.verify(repair=True)
    assert (found.problem, found.repaired) == (Problem.BAD_RECORD, True)
    assert not record_path(store.root, key).exists()
    assert store.has(obj)


def test_a_folder_in_the_place_of_a_record_is_told_and_stays(store: Store) -> None:
    _, key = put_recorded(store)
    record_path(store.root, key).unlink()
    record_path(store.root, key).mkdir()
    (found,) = store.verify(repair=True)
    assert (found.problem, found.repaired) == (Problem.UNREADABLE, False)


def test_an_object_on_the_wrong_shelf_is_taken_out(store: Store) -> None:
    obj, key = put_recorded(store)
    wrong = store.root / "objects" / ("00" if obj.digest[:2] != "00" else "01") / obj.digest
    wrong.parent.mkdir()
    shutil.copy(store.path(obj), wrong)
    (found,) = store.verify(repair=True)
    assert (found.problem, found.repaired) == (Problem.WRONG_NAME, True)
    assert not wrong.exists()
    assert is_hit(store, key), "the one on the right shelf is good"


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_file_is_taken_out_as_it_is(store: Store, tmp_path: Path, kind: str) -> None:
    obj, key = put_recorded(store)
    path = store.path(obj)
    path.unlink()
    (tmp_path / "outside").write_bytes(GOOD)
    if kind == "link":
        path.symlink_to(tmp_path / "outside")
    else:
        path.mkdir()
    (found,) = store.verify(repair=True)
    assert found.repaired
    assert not os.path.lexists(path)
    assert store.find_record(key) is None
    assert (tmp_path / "outside").read_bytes() == GOOD


def test_an_object_that_goes_bad_twice_is_kept_twice(store: Store) -> None:
    for content in (b"one", b"two", b"three"):
        obj, _ = put_recorded(store)
        damage(store, obj, content)
        assert len(list(store.verify(repair=True))) == 1
    assert quarantined(store) == {obj.digest: b"one", f"{obj.digest}.1": b"two", f"{obj.digest}.2": b"three"}


# Who has it


def test_owners_are_named_until_they_are_good_again(store: Store, tmp_path: Path) -> None:
    owners = {name: tmp_path / name for name in ("image a", "vm b", "image good")}
    bad, good = store.put_bytes(GOOD), store.put_bytes(b"another")
    for name, folder in owners.items():
        folder.mkdir()
        store.link(good if name == "image good" else bad, folder / "rootfs")
    damage(store, bad)
    for repair in (False, True):
        (found,) = store.verify(owners, repair=repair)
        assert found.owners == ("image a", "vm b")
    (found,) = store.verify(owners)
    assert (found.problem, found.owners) == (Problem.QUARANTINED, ("image a", "vm b"))
    shutil.rmtree(owners["vm b"])
    (owners["image a"] / "rootfs").unlink()
    store.link(store.put_bytes(GOOD), owners["image a"] / "rootfs")
    assert list(store.verify(owners)) == []


def test_an_owner_whom_nobody_knows_is_told_of(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(GOOD)
    store.link(obj, tmp_path / "mine")
    damage(store, obj)
    (found,) = store.verify()
    assert found.owners == ("somebody outside",)


def test_an_owner_s_copy_is_not_damaged_with_it(store: Store, other_filesystem: Path) -> None:
    obj = store.put_bytes(GOOD)
    store.link(obj, other_filesystem / "rootfs")
    damage(store, obj)
    (found,) = store.verify({"image a": other_filesystem})
    assert found.owners == ()


def test_a_running_program_that_reads_it_is_named_and_reads_on(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(GOOD)
    with store.leased("a long build") as leased:
        path = leased.path(obj)
        damage(store, obj)
        (found,) = store.verify(repair=True)
        assert (found.users, found.owners) == ((f"process {os.getpid()} (a long build)",), ())
        assert path.read_bytes() == BAD
        assert not store.has(obj)
    assert quarantined(store) == {obj.digest: BAD}


def test_an_owner_cannot_give_the_bad_bytes_back(store: Store, tmp_path: Path) -> None:
    obj, key = put_recorded(store)
    store.link(obj, tmp_path / "rootfs")
    damage(store, obj)
    assert len(list(store.verify(repair=True))) == 1
    with pytest.raises(BangerError) as caught:
        store.adopt(tmp_path / "rootfs", obj)
    assert caught.value.reason is Reason.CORRUPT
    assert not store.has(obj)
    assert not is_hit(store, key)


def test_what_is_good_in_quarantine_is_told_of_nobody(store: Store, tmp_path: Path) -> None:
    """One that was killed over a good object, which somebody had just put in the place of the bad one."""
    obj = store.put_bytes(GOOD)
    (tmp_path / "image").mkdir()
    store.link(obj, tmp_path / "image" / "rootfs")
    (store.root / "quarantine").mkdir()
    store.path(obj).rename(store.root / "quarantine" / obj.digest)
    assert list(store.verify({"image": tmp_path / "image"})) == []


# Killed, and beside others

_REPAIR = """
import sys
from pathlib import Path
from cache import Store
list(Store.open(Path(sys.argv[1])).verify(repair=True))
"""
_PLACES = [
    f"{point}:{count}"
    for point in (Point.VERIFY_CHECKED, Point.VERIFY_QUARANTINED, Point.VERIFY_RECORD_DROPPED, Point.LOCK_TAKEN)
    for count in (1, 2, 3)
]


@pytest.mark.parametrize("place", _PLACES)
def test_killed_anywhere_no_record_is_a_hit_on_bad_bytes_again_and_the_next_one_ends_it(
    store: Store, place: str
) -> None:
    """All three objects are bad; each is built again by somebody in between, who finds what is there as it is."""
    made = [put_recorded(store, b"content %d" % number, f"s{number}") for number in range(3)]
    for obj, _ in made:
        damage(store, obj, bytes(obj.size_bytes))
    environment = {**os.environ, "BANGER_KILL_AT": place}
    ended = subprocess.run([sys.executable, "-I", "-c", _REPAIR, store.root], env=environment, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    taken_out = [(obj, key) for obj, key in made if not store.has(obj)]
    for obj, key in taken_out:
        assert not is_hit(store, key)
        assert obj.digest in quarantined(store)
    # Of one that is built again in between, the record counts again.
    for number, (obj, key) in enumerate(made):
        if (obj, key) in taken_out[:1]:
            put_recorded(store, b"content %d" % number, f"s{number}")
            assert is_hit(store, key)
    list(store.verify(repair=True, resume=True))
    assert list(store.verify()) == []
    for obj, key in made:
        assert is_hit(store, key) == ((obj, key) in taken_out[:1])
        assert (store.find_record(key) is None) == ((obj, key) not in taken_out[:1])
    assert len(quarantined(store)) == 3
    assert not (store.root / "verify").exists()


def test_one_that_is_replaced_by_a_good_one_in_that_moment_stays(store: Store) -> None:
    obj, key = put_recorded(store)
    damage(store, obj)
    findings: list[object] = []

    def mend(_: object) -> None:
        # The object was found bad, and whoever repairs it waits for us.
        store.path(obj).unlink()
        put_recorded(store)
        release.__exit__(None, None, None)

    release = locks.hold(gc_path(store.root), "a test")
    release.__enter__()
    repairing = Thread(target=lambda: findings.extend(store.verify(repair=True, on_wait=mend)))
    repairing.start()
    repairing.join()
    assert findings == []
    assert is_hit(store, key)
    assert store.path(obj).read_bytes() == GOOD
    assert store.path(obj).stat().st_nlink == 1
    assert quarantined(store) == {}


def test_gc_does_not_put_back_what_is_taken_out_meanwhile(store: Store) -> None:
    """It moves an object aside while it looks whether somebody took it."""
    obj, _ = put_recorded(store)
    damage(store, obj)
    make_old(store.path(obj), 7200)
    repaired: list[bool] = []
    waits: list[object] = []
    repairing = Thread(
        target=lambda: repaired.extend(each.repaired for each in store.verify(repair=True, on_wait=waits.append))
    )

    def on(point: Point) -> None:
        if point is Point.GC_PLANNED:
            repairing.start()
            while not waits:  # it says so when it has found the object and waits for us
                time.sleep(0.01)
            with store.leased("a build") as leased:
                leased.has(obj)
                link.append(leased.path(obj))
                os.link(link[0], store.root / "taken")

    link: list[Path] = []
    trace.on_point = on
    store.collect(Policy(older_than_s=0, young_s=0), {})
    repairing.join()
    assert repaired == [True]
    assert not store.has(obj)
    assert set(quarantined(store)) == {obj.digest}


# How long it is kept


def test_du_shows_what_is_in_quarantine(store: Store) -> None:
    obj = store.put_bytes(bytes(100_000))
    damage(store, obj, b"x" * 100_000)
    assert store.usage().quarantine_bytes == 0
    assert len(list(store.verify(repair=True))) == 1
    assert store.usage().quarantine_bytes >= 100_000
    assert store.usage().all.object_count == 0


def test_gc_removes_what_was_in_quarantine_for_a_month_and_nobody_holds(store: Store, tmp_path: Path) -> None:
    ages = {b"old": KEPT_S + 60, b"held": KEPT_S + 60, b"young": KEPT_S - 60, b"future": -KEPT_S - 60}
    paths: dict[bytes, Path] = {}
    for content in ages:
        obj = store.put_bytes(content)
        if content == b"held":
            store.link(obj, tmp_path / "rootfs")
        # It was not used for long when it was found: that does not count.
        damage(store, obj, bytes(len(content)))
        make_old(store.path(obj), 2 * KEPT_S)
        paths[content] = store.root / "quarantine" / obj.digest
    assert len(list(store.verify(repair=True))) == 4
    store.collect(Policy(), {})
    assert all(path.exists() for path in paths.values())
    for content, age_s in ages.items():
        make_old(paths[content], age_s)
    store.collect(Policy(), {}, dry_run=True)
    assert all(path.exists() for path in paths.values())
    store.collect(Policy(), {})
    assert {content for content, path in paths.items() if path.exists()} == {b"held", b"young", b"future"}
    assert abs(paths[b"future"].stat().st_mtime - time.time()) < 3600
    (tmp_path / "rootfs").unlink()
    store.collect(Policy(), {})
    assert not paths[b"held"].exists()
