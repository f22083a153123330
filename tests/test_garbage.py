import os
import time
from pathlib import Path

import pytest

import cache.collect
from banger.errors import BangerError, Reason
from banger.garbage import collect_if_large, find_owners, get_limit_bytes
from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.settings import CacheSize
from banger.vmm.process import identify_self
from cache import Kept, Object, Policy, Store, Why, trace
from cache.trace import Point

MIB = 1 << 20
DAY_S = 24 * 3600.0
ONE_MIB = CacheSize(mib=1)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path)})


@pytest.fixture
def store(paths: Paths) -> Store:
    return Store.open(paths.store)


def put(store: Store, letter: bytes, *, used_days_ago: float = 10.0, size_bytes: int = MIB // 2) -> Object:
    obj = store.put_bytes(letter * size_bytes)
    used_at = time.time() - used_days_ago * DAY_S
    os.utime(store.path(obj), (used_at, used_at))
    return obj


def count(store: Store, *, days_ago: float = 0.0) -> None:
    """As if somebody had counted then."""
    store.collect(Policy(), {})
    path = store.root / "growth"
    _, size_bytes = path.read_text().split()
    path.write_text(f"{time.time() - days_ago * DAY_S} {size_bytes}\n")


def refuse_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("everything was looked at")

    monkeypatch.setattr(cache.collect, "iterate_seen", refuse)


def test_images_kernels_and_machines_are_owners(paths: Paths, store: Store) -> None:
    image, kernel, machine, other = (put(store, letter, size_bytes=1) for letter in (b"i", b"k", b"m", b"o"))
    paths.images.put("registry.example.com/team/app:1", store, {"rootfs": image}, {}, {})
    paths.kernels.put("debian-6.12", store, {"vmlinux": kernel}, {}, {})
    wish = Wish("box", "x", "y", 1, 256, 64, True)
    made = Records(paths.database).add(wish, DEFAULT_SUBNET, identify_self())
    for name, obj in ((made.id, machine), ("0123456789ab", other)):
        (paths.machines / name).mkdir(parents=True)
        store.link(obj, paths.machines / name / "root")
    owners = find_owners(paths)
    assert set(owners) == {
        "image registry.example.com/team/app:1",
        "kernel debian-6.12",
        "vm box",
        # Nobody knows any more whose that was.
        "vm 0123456789ab",
    }
    kept = store.collect(Policy(older_than_s=0, young_s=0), owners).kept
    assert {each.by for each in kept} == {(name,) for name in owners}
    assert {each.why for each in kept} == {Why.HELD}


def test_a_home_in_which_nothing_was_made_has_no_owners_and_is_left_so(paths: Paths) -> None:
    assert find_owners(paths) == {}
    assert not paths.state.exists()


def test_an_image_that_is_being_made_is_no_owner_of_that_name(paths: Paths) -> None:
    (paths.images.folder / ".unfinished").mkdir(parents=True)
    (paths.images.folder / "note").touch()
    assert find_owners(paths) == {}


@pytest.mark.parametrize("content", [b"not a database", b""])
def test_machines_go_by_their_numbers_when_the_records_cannot_be_read(paths: Paths, content: bytes) -> None:
    (paths.machines / "0123456789ab").mkdir(parents=True)
    paths.database.write_bytes(content)
    assert set(find_owners(paths)) == {"vm 0123456789ab"}


def test_a_limit_is_a_size_or_a_part_of_the_filesystem(tmp_path: Path) -> None:
    assert get_limit_bytes(tmp_path, CacheSize(mib=20)) == 20 * MIB
    found = os.statvfs(tmp_path)
    whole = found.f_blocks * found.f_frsize
    assert get_limit_bytes(tmp_path, CacheSize(percent=100)) == whole
    assert get_limit_bytes(tmp_path, CacheSize(percent=20)) == whole * 20 // 100
    # A size needs no store to look at.
    assert get_limit_bytes(tmp_path / "missing", CacheSize(mib=1)) == MIB


def test_beyond_the_limit_the_oldest_go_down_to_nine_tenths(paths: Paths, store: Store) -> None:
    objects = [put(store, b"%d" % days, used_days_ago=days, size_bytes=MIB // 8) for days in range(1, 10)]
    collected = collect_if_large(store, paths, ONE_MIB)
    assert collected is not None
    assert {each.digest for each in collected.dropped} == {each.digest for each in objects[-2:]}
    assert collected.own_bytes == 7 * MIB // 8


def test_within_the_limit_nothing_goes(paths: Paths, store: Store) -> None:
    put(store, b"a")
    put(store, b"b")
    collected = collect_if_large(store, paths, ONE_MIB)
    # Nobody had counted before.
    assert collected is not None
    assert collected.dropped == []


def test_what_was_used_within_the_hour_never_goes_by_itself(paths: Paths, store: Store) -> None:
    young = put(store, b"y", used_days_ago=0, size_bytes=3 * MIB)
    collected = collect_if_large(store, paths, ONE_MIB)
    assert collected is not None
    assert collected.kept == [Kept(Why.YOUNG, (), 1, 3 * MIB)]
    assert store.has(young)


def test_nothing_is_looked_at_when_nothing_came(paths: Paths, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, b"x", size_bytes=3 * MIB)
    count(store, days_ago=30)
    refuse_to_look(monkeypatch)
    assert collect_if_large(store, paths, ONE_MIB) is None


def test_nothing_is_looked_at_when_what_came_fits(paths: Paths, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    count(store)
    put(store, b"x")
    refuse_to_look(monkeypatch)
    assert collect_if_large(store, paths, ONE_MIB) is None


def test_it_is_due_when_what_came_does_not_fit(paths: Paths, store: Store) -> None:
    put(store, b"a")
    count(store)
    put(store, b"b")
    put(store, b"c")
    collected = collect_if_large(store, paths, ONE_MIB)
    assert collected is not None
    assert len(collected.dropped) == 2
    assert collect_if_large(store, paths, ONE_MIB) is None, "and then no more"


@pytest.mark.parametrize("days_ago", [2.0, -2.0], ids=["long ago", "in the future"])
def test_somebody_counts_once_a_day_since_images_give_things_up(paths: Paths, store: Store, days_ago: float) -> None:
    big, small = put(store, b"x", size_bytes=3 * MIB), b"y"
    paths.images.put("box", store, {"rootfs": big}, {}, {})
    count(store, days_ago=days_ago)
    paths.images.remove("box")
    put(store, small)
    collected = collect_if_large(store, paths, ONE_MIB)
    assert collected is not None
    assert not store.has(big)


def test_it_does_not_wait_for_another_gc(paths: Paths, store: Store) -> None:
    obj = put(store, b"x", size_bytes=3 * MIB)
    answers: list[object] = []

    def ask(point: Point) -> None:
        if point is Point.GC_PLANNED:
            answers.append(collect_if_large(store, paths, ONE_MIB))

    trace.on_point = ask
    try:
        store.collect(Policy(), {})
    finally:
        trace.on_point = None
    assert answers == [None]
    assert store.has(obj)


@pytest.mark.parametrize("error", [BangerError("no", reason=Reason.IO), OSError(5, "Input/output error")])
def test_one_that_fails_is_silent(
    paths: Paths, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put(store, b"x", size_bytes=3 * MIB)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cache.collect, "iterate_seen", fail)
    assert collect_if_large(store, paths, ONE_MIB) is None


def test_a_store_that_was_removed_is_nothing_to_tidy(paths: Paths) -> None:
    assert collect_if_large(Store(paths.store), paths, CacheSize(percent=20)) is None
