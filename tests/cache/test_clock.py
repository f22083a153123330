"""Clocks that jump: what somebody uses or holds stays, whatever the time is said to be, and nothing is young for ever.

A program whose clock is wrong is one under `faketime`; the times of files stay those that they have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache import Policy, trace
from cache.layout import object_path
from cache.trace import Point
from tests.cache.work import build
from tests.cache.world import DAY_S, World, check_world, content, key, make_world, obj

if TYPE_CHECKING:
    from conftest import Start

REPOSITORY = Path(__file__).parents[2]
YEAR_S = 365 * DAY_S

COLLECT = """
import sys, time
from pathlib import Path
from cache import Policy
from tests.cache.world import World
world = World(Path(sys.argv[1]), Path())
done = world.store().collect(Policy(older_than_s=float(sys.argv[2]), young_s=float(sys.argv[3])), {"it": world.owner})
print(time.time(), *(each.digest for each in done.dropped))
"""
HOLD = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.cache.world import World, content, obj
world = World(Path(sys.argv[1]), Path())
with world.store().leased("a build") as store:
    assert store.has(obj("kept"))
    new = store.put_bytes(b"new")
    print("ready", flush=True)
    sys.stdin.read()
    assert store.path(obj("kept")).read_bytes() == content("kept")
    assert store.has(new) and store.path(new).read_bytes() == b"new"
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield World(Path(folder), tmp_path)


def shifted(shift: str) -> list[str]:
    # With NO_FAKE_STAT it leaves the times of files alone.
    return ["env", "NO_FAKE_STAT=1", f"PYTHONPATH={REPOSITORY}", "faketime", "-f", shift]


def collect(world: World, shift: str, older_than_s: float = 0.0, young_s: float = 0.0) -> set[str]:
    """What gc by another clock dropped."""
    words = [*shifted(shift), sys.executable, "-c", COLLECT, str(world.folder), str(older_than_s), str(young_s)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    now, *dropped = ended.stdout.split()
    off_s = float(now) - time.time()
    assert abs(off_s) > YEAR_S / 2
    assert (off_s > 0) == shift.startswith("+"), "the clock of that program was to be wrong"
    return set(dropped)


def hold(world: World, start: Start, *before: str) -> subprocess.Popen[str]:
    holder = start(HOLD, world.folder, REPOSITORY, before=before)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    return holder


@pytest.mark.parametrize("shift", ["+1y", "-1y"])
def test_what_is_used_or_held_stays_by_any_clock_of_gc(world: World, start: Start, shift: str) -> None:
    before = make_world(world)
    holder = hold(world, start)
    going = {obj(name).digest for name in (*world.number("old"), *world.number("taken"))}
    dropped = collect(world, shift)
    # A year ago all of them were made in the future, which counts as now; gc was told that now is old enough.
    assert dropped == going
    holder.communicate(timeout=60)
    assert holder.returncode == 0
    check_world(world, before, [*world.number("old"), *world.number("taken"), "kept"])
    assert world.store().has(obj("kept"))


@pytest.mark.parametrize("shift", ["+1y", "-1y"])
def test_what_is_used_stays_by_any_clock_of_its_user(world: World, start: Start, shift: str) -> None:
    make_world(world)
    holder = hold(world, start, *shifted(shift))
    world.store().collect(Policy(older_than_s=0, young_s=0), {})
    holder.communicate(timeout=60)
    assert holder.returncode == 0


def test_a_clock_a_year_back_finds_everything_young(world: World) -> None:
    before = make_world(world)
    assert collect(world, "-1y", older_than_s=60, young_s=60) == set()
    check_world(world, before)


@pytest.mark.parametrize("shift", ["+1y", "-1y"])
def test_a_build_finishes_beside_a_gc_with_another_clock(
    world: World, monkeypatch: pytest.MonkeyPatch, shift: str
) -> None:
    """After each step all goes that nobody uses: by its clock what was just made is a year old, or of next year."""
    make_world(world)
    collected: list[set[str]] = []

    def on_point(point: Point) -> None:
        if point is Point.STEP_BUILT:
            collected.append(collect(world, shift))

    with monkeypatch.context() as patch:
        patch.setattr(trace, "on_point", on_point)
        gave = build(world)
    assert len(collected) >= 3
    assert collected[0], "nothing went: there was no danger"
    assert gave == build(world)
    assert isinstance(gave, dict)
    assert gave["side-0"][1].startswith("made by side-0")


@pytest.mark.parametrize("at", [0.0, 1.0, 2.5e9, 4e9, float(1 << 33)], ids="{:.0f}".format)
def test_times_of_any_year_on_objects_and_records_are_no_trouble(world: World, at: float) -> None:
    before = make_world(world)
    for path in [*world.root.glob("objects/*/*"), *world.root.glob("actions/*/*")]:
        os.utime(path, (at, at))
    store = world.store()
    with store.leased("a build") as leased:
        assert leased.has(obj("kept"))
        store.collect(Policy(older_than_s=0, young_s=0), {})
        assert leased.path(obj("kept")).read_bytes() == content("kept")
    assert store.usage().all.object_count == 2, "what is leased and what is held"
    check_world(world, before, [*world.number("old"), *world.number("taken")])
    found = store.find_record(key("kept"))
    assert found is not None
    assert store.has_outputs(found)


def test_an_object_from_the_future_does_not_stay_young_until_then(world: World) -> None:
    make_world(world)
    path = object_path(world.root, obj("kept").digest)
    os.utime(path, (time.time() + 10 * YEAR_S,) * 2)
    world.store().collect(Policy(older_than_s=DAY_S), {})
    assert abs(path.stat().st_mtime - time.time()) < DAY_S
    assert obj("kept").digest in collect(world, "+1y", older_than_s=DAY_S, young_s=DAY_S)
