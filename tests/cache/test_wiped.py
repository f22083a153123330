"""Somebody removes the whole cache, at any moment: what owners have stays, and no result is wrong.

Who works meanwhile finishes, or says one line; whoever comes next finds a store to work with.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.errors import BangerError
from cache import Policy, trace
from cache.trace import Point
from tests.cache.work import (
    Work,
    adopt,
    build,
    collect,
    copy,
    link,
    lock,
    name,
    open_new,
    prepare,
    put,
    put_leased,
    put_records,
    repair,
)
from tests.cache.world import World, check_world, make_world, obj, take_stock

PLACES = {
    put: [Point.TEMPORARY_MADE, Point.OBJECT_WRITTEN, Point.OBJECT_SYNCED, Point.OBJECT_NAMED, Point.OBJECT_DONE],
    put_leased: [Point.LEASE_MADE, Point.LEASE_HELD, Point.OBJECT_SYNCED, Point.OBJECT_NAMED, Point.OBJECT_DONE],
    put_records: [Point.FILE_SYNCED, Point.FILE_NAMED],
    lock: [Point.LOCK_TAKEN],
    link: [Point.OWNER_LINKED],
    copy: [Point.OWNER_COPIED],
    adopt: [Point.TEMPORARY_MADE],
    collect: [
        Point.GC_PLANNED,
        Point.GC_MOVED,
        Point.GC_PUT_BACK,
        Point.GC_DROPPED,
        Point.GC_RECORD_MOVED,
        Point.GC_RECORD_DROPPED,
    ],
    repair: [Point.VERIFY_CHECKED, Point.VERIFY_QUARANTINED, Point.VERIFY_RECORD_DROPPED],
    name: [Point.OWNER_LINKED, Point.NAME_FILLED, Point.NAME_MOVED],
    build: [
        Point.LOCK_TAKEN,
        Point.STEP_STARTED,
        Point.OBJECT_SYNCED,
        Point.OBJECT_NAMED,
        Point.LEASE_HELD,
        Point.STEP_BUILT,
        Point.STEP_RECORDED,
        Point.OWNER_LINKED,
    ],
}
CASES = [(work, point, count) for work, points in PLACES.items() for point in points for count in (1, 2)]
CASES.append((build, Point.LEASE_MADE, 1))
# These need nothing that was in the store.
ANEW: set[Work] = {put, put_records, lock, build, open_new}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield World(Path(folder), tmp_path, times=2)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[Work, object]:
    found: dict[Work, object] = {}
    for work in PLACES:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            world = World(Path(folder), tmp_path_factory.mktemp(work.__name__), times=2)
            prepare(work, world)
            found[work] = work(world)
    return found


def wipe_at(place: Point, count: int, root: Path) -> list[Point]:
    """From now on; gives the places that were wiped at, once it has happened."""
    wiped: list[Point] = []
    seen = 0

    def on_point(point: Point) -> None:
        nonlocal seen
        seen += point is place
        if seen == count and not wiped:
            wiped.append(point)
            # What others make meanwhile may stay, as with `rm -rf`.
            shutil.rmtree(root, ignore_errors=True)

    trace.on_point = on_point
    return wiped


@pytest.mark.parametrize(
    ("work", "point", "count"), CASES, ids=[f"{work.__name__}-{point}-{count}" for work, point, count in CASES]
)
def test_a_cache_that_is_removed_meanwhile_leads_to_no_wrong_result(
    world: World,
    given: dict[Work, object],
    monkeypatch: pytest.MonkeyPatch,
    work: Work,
    point: Point,
    count: int,
) -> None:
    before = prepare(work, world)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(trace, "on_point", None)  # to be undone, whatever comes
            wiped = wipe_at(point, count, world.root)
            gave = work(world)
    except BangerError as error:
        told = error.message
    else:
        told = ""
        assert gave == given[work] or (work is repair and has_nothing_bad(gave))
    assert wiped, "it did not come by"
    assert "\n" not in told
    check_owners(world, before.owned)
    if work in ANEW:
        assert work(world) == given[work]
        check_owners(world, before.owned)


def has_nothing_bad(gave: object) -> bool:
    """What was bad went with the rest, to quarantine or not."""
    assert isinstance(gave, list)
    return not any(gave[1]) and all(gave[2])


def check_owners(world: World, owned: dict[Path, bytes]) -> None:
    """The store is one again, and whole; owners have all that they had."""
    store = world.store()
    assert list(store.verify()) == []
    assert (world.root / "version").exists()
    for folder in ("tmp", "leases"):
        assert not (world.root / folder).exists() or list((world.root / folder).iterdir()) == []
    assert owned.items() <= take_stock(world).owned.items()
    assert "known" in {named.name for named in world.images.list()}


def test_a_lease_outlives_the_cache_without_holding_what_comes_later(world: World) -> None:
    make_world(world)
    with world.store().leased("a build") as leased:
        assert leased.has(obj("kept"))
        reader = leased.path(obj("kept")).open("rb")
        shutil.rmtree(world.root)
        with reader:
            assert len(reader.read()) == obj("kept").size_bytes, "what is open is read to the end"
        assert not leased.has(obj("kept"))
        with pytest.raises(BangerError, match="is not in the store"):
            leased.path(obj("kept"))
        again = leased.put_bytes(b"made again")
        assert leased.has(again)
        assert leased.path(again).read_bytes() == b"made again"
        world.store()  # which removes what has no owner
        assert leased.path(again).read_bytes() == b"made again"
    assert world.store().collect(Policy(older_than_s=0, young_s=0), {}).dropped[0].digest == again.digest


REMOVE = 'echo ready; while [ -e "$1/.." ]; do rm -rf "$1" 2>/dev/null; done'


def test_builds_beside_one_who_keeps_removing_the_cache_finish_or_say_one_line(
    world: World, given: dict[Work, object]
) -> None:
    before = make_world(world)
    outcomes: list[str] = []
    with subprocess.Popen(["sh", "-c", REMOVE, "sh", world.root], stdout=subprocess.PIPE, text=True) as remover:
        assert remover.stdout is not None
        try:
            assert remover.stdout.readline() == "ready\n"
            for _ in range(15):
                try:
                    assert build(world) == given[build]
                    outcomes.append("built")
                except BangerError as error:
                    outcomes.append(error.message)
        finally:
            remover.kill()
            remover.stdout.read()  # to its end: the last `rm` outlives the shell
    assert not any("\n" in each for each in outcomes)
    shutil.rmtree(world.root, ignore_errors=True)
    check_owners(world, before.owned)
    assert build(world) == given[build]
    check_world(world, take_stock(world))
