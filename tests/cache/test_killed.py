"""kill -9 at every named place: what was there stays, nothing half-made is seen, and the work can be done again.

A program of its own does real work and ends itself at a place, at the first, second or third passing. The store is on
a tmpfs, since a kill is no power cut: what the kernel was told lasts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.trace import Point
from tests.cache.work import (
    WORKS,
    Work,
    adopt,
    build,
    collect,
    copy,
    link,
    list_damaged,
    list_going,
    list_gone,
    lock,
    name,
    open_new,
    prepare,
    put,
    put_leased,
    put_records,
    repair,
)
from tests.cache.world import World, check_world, content, obj

_REPOSITORY = Path(__file__).parents[2]
_DEADLINE_S = 60

# Where each kind of work is ended. All but a few places that every kind passes, of which these are enough.
PLACES: dict[Work, list[Point]] = {
    open_new: [Point.TEMPORARY_MADE, Point.FILE_SYNCED, Point.FILE_NAMED],
    put: [
        Point.TEMPORARY_MADE,
        Point.OBJECT_WRITTEN,
        Point.OBJECT_SYNCED,
        Point.OBJECT_NAMED,
        Point.GROWTH_NOTED,
        Point.OBJECT_DONE,
    ],
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
        Point.GC_LOCK_DROPPED,
        Point.FILE_NAMED,
        Point.LOCK_TAKEN,
    ],
    repair: [Point.VERIFY_CHECKED, Point.VERIFY_QUARANTINED, Point.VERIFY_RECORD_DROPPED, Point.LOCK_TAKEN],
    name: [Point.OWNER_LINKED, Point.NAME_FILLED, Point.NAME_MOVED],
    build: [
        Point.STEP_STARTED,
        Point.STEP_BUILT,
        Point.STEP_RECORDED,
        Point.OBJECT_NAMED,
        Point.LEASE_HELD,
        Point.LOCK_TAKEN,
        Point.OWNER_LINKED,
    ],
}
CASES = [(work, point, count) for work, points in PLACES.items() for point in points for count in (1, 2, 3)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield World(Path(folder), tmp_path)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[Work, object]:
    """What each kind of work gives when nothing happens to it."""
    found: dict[Work, object] = {}
    for work in PLACES:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            world = World(Path(folder), tmp_path_factory.mktemp(work.__name__))
            prepare(work, world)
            found[work] = work(world)
    return found


def run(work: Work, world: World, kill_at: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cache.work", work.__name__, world.folder, world.elsewhere],
        env={**os.environ, "BANGER_KILL_AT": kill_at},
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
    )


@pytest.mark.parametrize(
    ("work", "point", "count"), CASES, ids=[f"{work.__name__}-{point}-{count}" for work, point, count in CASES]
)
def test_what_is_killed_breaks_nothing_and_can_be_done_again(
    world: World, given: dict[Work, object], work: Work, point: Point, count: int
) -> None:
    before = prepare(work, world)
    ended = run(work, world, f"{point}:{count}")
    assert ended.returncode == -signal.SIGKILL, f"it did not come by {count} times: {ended.stderr}"
    check_world(world, before, list_going(work, world), list_damaged(work, world))
    assert work(world) == given[work]
    check_world(world, before, list_gone(work, world))
    if work in (collect, name, build):  # these end what was begun
        assert [*world.root.glob("gc-*"), *world.images.folder.glob(".*")] == []


@pytest.mark.parametrize("point", Point)
def test_somebody_is_killed_at_each_place(point: Point) -> None:
    """A new place needs a kind of work that comes by it."""
    assert any(point in points for points in PLACES.values())


def test_each_kind_of_work_is_killed_somewhere() -> None:
    assert set(PLACES) == set(WORKS.values())


def test_what_is_compared_is_what_the_work_should_give(world: World, given: dict[Work, object]) -> None:
    texts = [content(each).decode() for each in world.number("taken")]
    assert given[collect] == [[False] * 3, texts, [True] * 3], "objects, what an owner took, and whether records went"
    assert given[repair] == [sorted(obj(each).digest for each in world.number("damaged")), [False] * 3, [True] * 6]
    assert given[adopt] == [content(each).decode() for each in world.number("lost")]
    assert given[put_records] == [True] * 3


def test_work_that_is_not_killed_gives_in_a_program_what_it_gives_here(world: World, given: dict[Work, object]) -> None:
    """So that the kills above interrupt the work that is compared."""
    for work in PLACES:
        shutil.rmtree(world.folder)
        world.folder.mkdir()
        prepare(work, world)
        ended = run(work, world, f"{Point.GC_PUT_BACK}:1000")
        assert json.loads(ended.stdout) == given[work], ended.stderr
        for path in world.elsewhere.iterdir():
            path.unlink()
