"""gc, and what others do in the same moment: stopped at a named place, or killed there, or all at once."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache import Digest, Kept, Object, Policy, Store, WaitAbandoned, Why, key_of, trace
from cache.trace import Point

EVERYTHING = Policy(older_than_s=0, young_s=0)
KEY = key_of("lock", 1, {}, {})

# Says when it comes by a place for the first time, and goes on when it is told to.
GC = """
import sys
from pathlib import Path
from cache import Policy, Store, trace
def stop(point):
    if point == sys.argv[2]:
        trace.on_point = None
        print("ready", flush=True)
        sys.stdin.readline()
trace.on_point = stop
store = Store.open(Path(sys.argv[1]))
done = store.collect(Policy(older_than_s=0, young_s=0), {}, on_wait=lambda holder: print("waits", flush=True))
print(len(done.dropped), flush=True)
"""

LOCK = """
import sys
from pathlib import Path
from cache import Store
with Store.open(Path(sys.argv[1])).lock(sys.argv[2], "a build", on_wait=lambda holder: print("waits", flush=True)):
    print("ready", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""

# Each turn makes something new, the same for all who build; what an owner holds is given up three turns later.
BUILD = """
import sys
from pathlib import Path
from cache import Store
root, number = Path(sys.argv[1]), int(sys.argv[2])
owned = []
for turn in range(30):
    store = Store.open(root)
    with store.leased("a build") as leased:
        held = []
        for each in range(8):
            data = b"%d" % (turn * 8 + each) * 100
            obj = leased.put_bytes(data)
            owner = root.parent / f"owner-{number}-{turn}-{each}"
            held.append((obj, data, leased.path(obj)))
            leased.link(obj, owner)
            owned.append((owner, data))
        for obj, data, path in held:
            assert leased.has(obj)
            assert leased.path(obj).read_bytes() == path.read_bytes() == data
    for owner, data in owned:
        assert owner.read_bytes() == data
    for owner, _ in owned[:-24]:
        owner.unlink()
    del owned[:-24]
"""


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    yield
    trace.on_point = None


def at(wanted: Point, do: Callable[[], object]) -> None:
    """Once, when this process comes by there."""

    def on(point: Point) -> None:
        if point is wanted:
            trace.on_point = None
            do()

    trace.on_point = on


def start_gc(start, store: Store, point: Point) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = start(GC, store.root, point)
    assert read_line(process) == "ready\n", process.communicate()
    return process


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def go_on(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate("go on\n", timeout=60)
    assert process.returncode == 0, err
    return out


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def moved(store: Store) -> list[Path]:
    return list(store.root.glob("gc-*"))


def check(store: Store, obj: Object, data: bytes) -> None:
    assert store.path(obj).read_bytes() == data
    assert store.path(obj).name == obj.digest
    assert moved(store) == []


@pytest.mark.parametrize("point", [Point.GC_PLANNED, Point.GC_MOVED])
def test_what_an_owner_takes_in_that_moment_is_put_back(store: Store, tmp_path: Path, point: Point) -> None:
    obj, other = store.put_bytes(b"taken"), store.put_bytes(b"other")

    def take() -> None:
        # A link(2) that had found the old name is done with the file as it is called now.
        source = store.root / f"gc-{obj.digest}"
        os.link(source if source.exists() else store.path(obj), tmp_path / "owner")

    if point is Point.GC_MOVED:
        os.utime(store.path(other))
        os.utime(store.path(obj), (0, 0))
    at(point, take)
    collected = store.collect(EVERYTHING, {})
    assert [each.digest for each in collected.dropped] == [other.digest]
    assert collected.kept == [Kept(Why.IN_USE, (), 1, collected.own_bytes)]
    assert store.path(obj).samefile(tmp_path / "owner")
    check(store, obj, b"taken")


def test_what_is_put_again_while_gc_has_it_in_its_hand_is_there(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"x")

    def put() -> None:
        assert not store.has(obj)
        assert store.put_bytes(b"x") == obj

    at(Point.GC_MOVED, put)
    assert len(store.collect(EVERYTHING, {}).dropped) == 1
    check(store, obj, b"x")


def test_of_one_that_is_put_again_and_one_that_is_taken_the_new_one_stays(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"x")

    def take_and_put() -> None:
        os.link(store.root / f"gc-{obj.digest}", tmp_path / "owner")
        store.put_bytes(b"x")

    at(Point.GC_MOVED, take_and_put)
    store.collect(EVERYTHING, {})
    check(store, obj, b"x")
    assert (tmp_path / "owner").read_bytes() == b"x"


def test_a_record_that_is_put_while_gc_works_stays_with_its_objects(store: Store) -> None:
    """gc looked at the objects before it looks at the records."""
    from cache import Record

    made: list[Object] = []

    def build() -> None:
        made.append(store.put_bytes(b"new"))
        store.put_record(KEY, Record("s", 1, {}, {}, {"o": made[0]}, 0.0, 0.0))
        # As the clock of a filesystem that is behind would have it.
        os.utime(store.root / "actions" / KEY[:2] / KEY, (0, 0))

    at(Point.GC_PLANNED, build)
    assert store.collect(EVERYTHING, {}).record_count == 0
    assert store.find_record(KEY) is not None
    assert store.has(made[0])


def test_a_record_that_is_written_again_after_it_was_found_dead_stays(store: Store) -> None:
    from cache import Record

    keys = [key_of("s", number, {}, {}) for number in range(2)]
    lost = Object(Digest("1" * 64), 1)

    def put(key: Digest) -> None:
        store.put_record(key, Record("s", 1, {}, {}, {"o": lost}, 0.0, 0.0))

    for key in keys:
        put(key)
        os.utime(store.root / "actions" / key[:2] / key, (0, 0))
    at(Point.GC_RECORD_DROPPED, lambda: [put(key) for key in keys])
    store.collect(EVERYTHING, {})
    # The one that was first is there again, the other one still.
    assert [store.find_record(key) is not None for key in keys] == [True, True]


def test_a_record_that_is_written_again_after_the_last_look_at_it_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes it does not wait for gc, and comes between any two of its calls."""
    from cache import Record

    record = Record("s", 1, {}, {}, {"o": Object(Digest("1" * 64), 1)}, 0.0, 0.0)
    store.put_record(KEY, record)
    path, real = store.root / "actions" / KEY[:2] / KEY, Path.lstat
    os.utime(path, (0, 0))
    looks = 0

    def look(looked_at: Path) -> os.stat_result:
        nonlocal looks
        found = real(looked_at)
        if looked_at == path:
            looks += 1
            store.put_record(KEY, record)
        return found

    monkeypatch.setattr(Path, "lstat", look)
    store.collect(EVERYTHING, {})
    monkeypatch.undo()
    assert looks == 1
    assert store.find_record(KEY) == record
    assert moved(store) == []


def test_what_another_removed_meanwhile_is_not_told_as_ours(store: Store) -> None:
    obj, other = store.put_bytes(b"x"), store.put_bytes(b"other")
    at(Point.GC_PLANNED, store.path(obj).unlink)
    collected = store.collect(EVERYTHING, {})
    assert [each.digest for each in collected.dropped] == [other.digest]
    assert (collected.kept, collected.own_bytes) == ([], 0)


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "free"])
@pytest.mark.parametrize("point", [Point.GC_MOVED, Point.GC_PUT_BACK])
def test_what_a_killed_gc_had_in_its_hand_the_next_one_settles(
    store: Store, tmp_path: Path, start, point: Point, is_taken: bool
) -> None:
    obj = store.put_bytes(b"x")
    aside = store.root / f"gc-{obj.digest}"
    process = start_gc(start, store, Point.GC_MOVED)
    if is_taken or point is Point.GC_PUT_BACK:
        os.link(aside, tmp_path / "owner")
    if point is Point.GC_PUT_BACK:
        # As far as it would have come.
        os.link(aside, store.root / "objects" / obj.digest[:2] / obj.digest)
        if not is_taken:
            (tmp_path / "owner").unlink()
    kill(process)
    assert len(moved(store)) == 1
    Store.open(store.root).collect(Policy(), {})
    assert moved(store) == []
    if is_taken or point is Point.GC_PUT_BACK:
        check(store, obj, b"x")
    else:
        assert not store.has(obj)


def test_what_a_killed_gc_left_is_settled_when_the_same_was_put_again(store: Store, start) -> None:
    obj = store.put_bytes(b"x")
    kill(start_gc(start, store, Point.GC_MOVED))
    store.put_bytes(b"x")
    store.collect(Policy(), {})
    check(store, obj, b"x")
    assert store.path(obj).stat().st_nlink == 1


def test_one_gc_at_a_time_and_the_other_waits_and_finds_its_work_done(store: Store, start) -> None:
    store.put_bytes(b"x")
    first = start_gc(start, store, Point.GC_PLANNED)
    second = start(GC, store.root, "nowhere")
    assert read_line(second) == "waits\n"
    assert go_on(first) == "1\n"
    assert go_on(second) == "0\n"


def test_who_does_not_want_to_wait_for_another_gc_need_not(store: Store, start) -> None:
    obj = store.put_bytes(b"x")
    first = start_gc(start, store, Point.GC_PLANNED)
    with pytest.raises(WaitAbandoned):
        store.collect(EVERYTHING, {}, cancelled=lambda: True)
    assert len(store.collect(EVERYTHING, {}, dry_run=True).dropped) == 1
    assert store.has(obj)
    assert go_on(first) == "1\n"


def test_a_gc_that_was_killed_holds_no_other_up(store: Store, start) -> None:
    obj = store.put_bytes(b"x")
    kill(start_gc(start, store, Point.GC_PLANNED))

    def unexpected(_: object) -> None:
        pytest.fail("there is nobody to wait for")

    assert len(store.collect(EVERYTHING, {}, on_wait=unexpected).dropped) == 1
    assert not store.has(obj)


def test_locks_that_nobody_holds_go_and_neither_holder_nor_waiter_is_harmed(store: Store, start) -> None:
    free = key_of("lock", 2, {}, {})
    with store.lock(free, "nothing"):
        pass
    holder = start(LOCK, store.root, KEY)
    assert read_line(holder) == "ready\n"
    waiter = start(LOCK, store.root, KEY)
    assert read_line(waiter) == "waits\n"
    store.collect(EVERYTHING, {})
    assert [path.name for path in (store.root / "locks").iterdir()] == [KEY]
    # Still one at a time: who comes now waits, too.
    with pytest.raises(WaitAbandoned), store.lock(KEY, "me", cancelled=lambda: True):
        pass
    assert go_on(holder) == "done\n"
    assert read_line(waiter) == "ready\n"
    store.collect(EVERYTHING, {})
    with pytest.raises(WaitAbandoned), store.lock(KEY, "me", cancelled=lambda: True):
        pass
    assert go_on(waiter) == "done\n"
    store.collect(EVERYTHING, {})
    assert list((store.root / "locks").iterdir()) == []


def test_builds_beside_many_gcs_lose_nothing_that_they_were_told_of(store: Store, start) -> None:
    builders = [start(BUILD, store.root, number) for number in (1, 2)]
    count = 0
    while any(process.poll() is None for process in builders):
        count += len(store.collect(EVERYTHING, {"an owner": store.root.parent}).dropped)
    for process in builders:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    count += len(store.collect(EVERYTHING, {}).dropped)
    assert count >= (30 - 3) * 8, "what was given up went"
    assert store.usage().all.object_count == 3 * 8
    assert moved(store) == []
    Store.open(store.root)
    for path in (store.root / "objects").glob("*/*"):
        data = path.read_bytes()
        assert store.put_bytes(data).digest == path.name
