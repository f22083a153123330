import time
from pathlib import Path

import pytest

from cache import Growth, Object, Policy, Store
from cache.growth import find_growth, note_growth, put_count

NOTE = """
import sys
from pathlib import Path
from cache.growth import note_growth
for _ in range(200):
    note_growth(Path(sys.argv[1]), 4096)
"""


@pytest.fixture
def growth(store: Store) -> Path:
    return store.root / "growth"


def size_of(store: Store, obj: Object) -> int:
    return store.path(obj).stat().st_blocks * 512


def test_nobody_can_tell_before_somebody_counted(store: Store) -> None:
    assert store.growth() is None
    store.put_bytes(b"x")
    assert store.growth() is None


def test_gc_counts_and_what_comes_afterwards_is_added(store: Store) -> None:
    before = time.time()
    first = store.put_bytes(b"x" * 10_000)
    store.collect(Policy(), {})
    counted = store.growth()
    assert counted is not None
    assert before - 1 < counted.counted_at <= time.time()
    assert (counted.counted_bytes, counted.since_bytes) == (size_of(store, first), 0)
    second = store.put_bytes(b"y" * 50_000)
    with store.temporary_dir() as folder:
        (folder / "made").write_bytes(b"z" * 90_000)
        third = store.put_file(folder / "made")
    came = size_of(store, second) + size_of(store, third)
    assert store.growth() == Growth(counted.counted_at, counted.counted_bytes, came)
    store.put_bytes(b"y" * 50_000)
    found = store.growth()
    assert found is not None
    assert found.since_bytes == came, "what was there did not come"
    assert found.estimate_bytes == size_of(store, first) + came


def test_the_estimate_is_what_a_count_finds(store: Store) -> None:
    store.collect(Policy(), {})
    for number in range(20):
        store.put_bytes(b"%d" % number * 3000)
    grown = store.growth()
    assert grown is not None
    assert grown.estimate_bytes == store.collect(Policy(), {}).own_bytes


def test_what_an_owner_holds_is_no_growth_once_it_is_counted(store: Store, tmp_path: Path) -> None:
    store.collect(Policy(), {})
    obj = store.put_bytes(b"x" * 10_000)
    store.link(obj, tmp_path / "owned")
    store.collect(Policy(), {})
    found = store.growth()
    assert found is not None
    assert found.estimate_bytes == 0


def test_many_that_note_at_once_lose_nothing(store: Store, start) -> None:
    put_count(store.root, 0)
    processes = [start(NOTE, store.root) for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    found = find_growth(store.root)
    assert found is not None
    assert found.since_bytes == 3 * 200 * 4096


@pytest.mark.parametrize("text", ["", "\n", "x y\n", "1.0\n", "1.0 2 3\n", "1.0 2.5\n", "1.0 2\nx\n", "\xff\n"])
def test_what_cannot_be_read_is_no_count(store: Store, growth: Path, text: str) -> None:
    growth.write_bytes(text.encode("latin-1"))
    assert store.growth() is None
    store.collect(Policy(), {})
    assert store.growth() is not None


def test_a_line_that_was_cut_off_is_passed_by(store: Store, growth: Path) -> None:
    growth.write_text("1.0 2\n4096\n40")
    assert store.growth() == Growth(1.0, 2, 4096)


def _folder(place: Path) -> None:
    place.mkdir()


def _link(place: Path) -> None:
    place.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [_folder, _link])
def test_noting_never_fails_and_follows_no_link(store: Store, growth: Path, make) -> None:
    make(growth)
    obj = store.put_bytes(b"x")
    assert store.has(obj)
    assert store.growth() is None


def test_nothing_is_noted_in_a_store_that_is_gone(tmp_path: Path) -> None:
    note_growth(tmp_path / "gone", 1)
    assert find_growth(tmp_path / "gone") is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full(store: Store) -> Store:
    """A store whose place for the count is taken."""
    (store.root / "growth").mkdir()
    (store.root / "growth" / "file").touch()
    return store


def test_gc_does_not_fail_where_its_count_cannot_be_kept(full: Store) -> None:
    obj = full.put_bytes(b"x")
    assert len(full.collect(Policy(older_than_s=0, young_s=0), {}).dropped) == 1
    assert not full.has(obj)
    assert list((full.root / "tmp").iterdir()) == []
