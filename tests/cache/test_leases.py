import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import Kept, Object, Policy, Record, Store, Why, key_of, trace
from cache.leases import USE_PRECISION_S, list_leases
from cache.trace import Point

EVERYTHING = Policy(older_than_s=0, young_s=0)

USE = """
import sys
from pathlib import Path
from cache import Object, Store
with Store.open(Path(sys.argv[1])).leased("a long build") as store:
    obj = Object(sys.argv[2], int(sys.argv[3]))
    assert store.has(obj)
    print("ready", flush=True)
    sys.stdin.readline()
    print(store.path(obj).read_text(), flush=True)
"""

DAY_S = 24 * 3600.0


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    yield
    trace.on_point = None


def gc(store: Store) -> None:
    store.collect(EVERYTHING, {})


def used_ago(store: Store, obj: Object, seconds: float) -> None:
    used_at = time.time() - seconds
    os.utime(store.path(obj), (used_at, used_at))


def use(start, store: Store, obj: Object) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = start(USE, store.root, obj.digest, obj.size_bytes)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def left(store: Store) -> list[Path]:
    return list((store.root / "leases").iterdir())


def test_what_another_program_uses_stays_until_it_ends(store: Store, start) -> None:
    used, unused = store.put_bytes(b"used"), store.put_bytes(b"unused")
    process = use(start, store, used)
    collected = store.collect(EVERYTHING, {})
    assert [each.digest for each in collected.dropped] == [unused.digest]
    (kept,) = collected.kept
    assert (kept.why, kept.count) == (Why.IN_USE, 1)
    assert kept.by == (f"process {process.pid} (a long build)",)
    out, err = process.communicate("go on\n", timeout=60)
    assert (process.returncode, out) == (0, "used\n"), err
    assert left(store) == []
    gc(store)
    assert not store.has(used)


def test_what_a_killed_program_used_is_free_for_the_next_gc(store: Store, start) -> None:
    used = store.put_bytes(b"used")
    process = use(start, store, used)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(left(store)) == 1
    assert [lease.is_live for lease in list_leases(store.root)] == [False]
    would = store.collect(EVERYTHING, {}, dry_run=True)
    assert [each.digest for each in would.dropped] == [used.digest]
    assert len(left(store)) == 1
    assert store.usage().all.shared_count == 0
    gc(store)
    assert not store.has(used)
    assert left(store) == []


def test_the_lease_of_a_killed_program_is_gone_when_the_store_is_opened(store: Store, start) -> None:
    used = store.put_bytes(b"used")
    dead, alive = use(start, store, used), use(start, store, used)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    Store.open(store.root)
    (lease,) = list_leases(store.root)
    assert lease.holder is not None
    assert (lease.holder.pid, lease.is_live, lease.digests) == (alive.pid, True, {used.digest})


def test_it_holds_what_it_was_told_of_put_recorded_or_gave_a_path_for(store: Store) -> None:
    objects = [store.put_bytes(data) for data in (b"asked", b"recorded", b"read", b"put again")]
    asked, recorded, read, again = objects
    with store.leased("a build") as leased, leased.temporary_dir() as folder:
        assert leased.has(asked)
        assert leased.has_outputs(Record("s", 1, {}, {}, {"o": recorded}, 0.0, 0.0))
        path = leased.path(read)
        leased.put_bytes(b"put again")
        (folder / "made").write_bytes(b"file")
        made = [leased.put_file(folder / "made"), leased.put_bytes(b"new")]
        with leased.writer() as new:
            new.write(b"written")
            made.append(new.commit())
        gc(store)
        assert all(store.has(obj) for obj in (*objects, *made))
        assert path.read_bytes() == b"read"
        assert again in objects
    gc(store)
    assert store.usage().all.object_count == 0


def test_what_was_adopted_is_held(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"image")
    (tmp_path / "image").write_bytes(b"image")
    gc(store)
    with store.leased("a build") as leased:
        # It can be written, so it is copied: the owner's file holds nothing.
        leased.adopt(tmp_path / "image", obj)
        gc(store)
        assert store.has(obj)
        assert leased.path(obj).read_bytes() == b"image"


def test_what_is_asked_for_and_is_not_there_is_not_held(store: Store) -> None:
    obj = store.put_bytes(b"gone")
    store.path(obj).unlink()
    with store.leased("a build") as leased:
        assert not leased.has(obj)
        assert leased.put_bytes(b"gone") == obj
        gc(store)
        assert store.has(obj)


def test_what_another_takes_away_by_force_is_read_to_the_end(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"content")
    with store.leased("a build") as leased:
        assert leased.has(obj)
        store.path(obj).unlink()
        assert leased.has(obj)
        assert leased.path(obj).read_bytes() == b"content"
        leased.link(obj, tmp_path / "owner")
    assert (tmp_path / "owner").read_bytes() == b"content"
    assert not store.has(obj)


def test_an_object_that_was_cut_short_is_not_there_and_heals(store: Store) -> None:
    obj = store.put_bytes(b"whole")
    with store.leased("a build") as leased:
        path = leased.path(obj)
        path.chmod(0o600)
        os.truncate(path, 2)
        assert not leased.has(obj)
        assert leased.put_bytes(b"whole") == obj
        assert leased.path(obj).read_bytes() == b"whole"
        gc(store)
        assert store.path(obj).read_bytes() == b"whole"


def test_one_that_is_wiped_with_the_whole_cache_leaves_a_store_that_works(store: Store) -> None:
    """Whoever builds at that time makes again what is missing, and comes to an end."""
    obj = store.put_bytes(b"old")
    with store.leased("a build") as leased:
        assert leased.has(obj)
        shutil.rmtree(store.root)
        assert not leased.has(obj)
        for data in (b"old", b"new", b"new"):
            made = leased.put_bytes(data)
            assert leased.has(made)
            assert leased.path(made).read_bytes() == data
        with leased.temporary_dir() as folder:
            (folder / "made").write_bytes(b"file")
            assert leased.path(leased.put_file(folder / "made")).read_bytes() == b"file"
    assert list(Store.open(store.root).verify()) == []


def test_the_last_use_is_noted_but_not_each(store: Store) -> None:
    obj = store.put_bytes(b"x")

    def age_s() -> float:
        return time.time() - store.path(obj).stat().st_mtime

    for past_s, is_noted in ((DAY_S, True), (-DAY_S, True), (USE_PRECISION_S / 2, False)):
        used_ago(store, obj, past_s)
        with store.leased("a build") as leased:
            assert leased.has(obj)
        assert (abs(age_s() - past_s) > USE_PRECISION_S / 4) is is_noted


def test_who_does_not_build_notes_no_use_and_holds_nothing(store: Store) -> None:
    obj = store.put_bytes(b"x")
    used_ago(store, obj, DAY_S)
    assert store.has(obj)
    assert time.time() - store.path(obj).stat().st_mtime > DAY_S / 2
    gc(store)
    assert not store.has(obj)


def test_many_threads_may_ask_for_the_same(store: Store) -> None:
    objects = [store.put_bytes(b"%d" % number) for number in range(20)]
    begin = threading.Barrier(4)
    answers: list[bool] = []
    with store.leased("a build") as leased:

        def ask() -> None:
            begin.wait(60)
            answers.extend(leased.has(obj) for obj in objects)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 80
        assert all(store.path(obj).stat().st_nlink == 2 for obj in objects)
    assert left(store) == []


def test_a_use_between_the_plan_of_a_gc_and_its_doing_counts(store: Store) -> None:
    obj = store.put_bytes(b"x")
    with store.leased("a build") as leased:
        trace.on_point = lambda point: leased.has(obj) if point is Point.GC_PLANNED else None
        collected = store.collect(EVERYTHING, {})
        assert collected.dropped == []
        # Who took it came after the look.
        assert collected.kept == [Kept(Why.IN_USE, (), 1, collected.own_bytes)]
        assert store.has(obj)
        assert leased.has(obj)


def test_a_use_while_gc_has_it_in_its_hand_is_a_miss_and_no_lie(store: Store) -> None:
    obj = store.put_bytes(b"x")
    answers: list[bool] = []
    with store.leased("a build") as leased:

        def ask(point: Point) -> None:
            if point is Point.GC_MOVED and not answers:
                answers.append(leased.has(obj))
                assert leased.put_bytes(b"x") == obj

        trace.on_point = ask
        gc(store)
        assert answers == [False]
        assert store.path(obj).read_bytes() == b"x"
        gc(store)
        assert leased.path(obj).read_bytes() == b"x"


def test_without_hard_links_nothing_goes_while_anybody_builds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    held, other = store.put_bytes(b"held"), store.put_bytes(b"other")
    with store.leased("a build") as leased:
        assert leased.has(held)
        assert leased.path(held).read_bytes() == b"held"
        collected = store.collect(EVERYTHING, {})
        assert (collected.dropped, [(each.why, each.count) for each in collected.kept]) == ([], [(Why.IN_USE, 2)])
    gc(store)
    assert not store.has(held)
    assert not store.has(other)


def test_records_stay_that_lead_to_what_is_used(store: Store) -> None:
    obj = store.put_bytes(b"x")
    key = key_of("s", 1, {}, {})
    store.put_record(key, Record("s", 1, {}, {}, {"o": obj}, 0.0, 0.0))
    with store.leased("a build") as leased:
        assert leased.has(obj)
        gc(store)
        assert store.find_record(key) is not None
    gc(store)
    assert store.find_record(key) is None


def test_a_lease_on_a_file_that_was_replaced_holds_not_the_one_in_its_place(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"x" * 5000)
    with store.leased("a build") as leased:
        assert leased.has(obj)
        store.path(obj).unlink()
        store.put_bytes(b"x" * 5000)
        store.link(obj, tmp_path / "owner")
        assert store.usage().all.shared_count == 1
        collected = store.collect(EVERYTHING, {"an owner": tmp_path})
        assert [(each.why, each.by) for each in collected.kept] == [(Why.HELD, ("an owner",))]
        assert collected.own_bytes == 0
        (tmp_path / "owner").unlink()
        gc(store)
        assert not store.has(obj)
        assert leased.path(obj).read_bytes() == b"x" * 5000
