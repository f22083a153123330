from pathlib import Path

from cache import Record, Store, Usage, key_of


def test_an_empty_store_uses_nothing(store: Store) -> None:
    assert store.usage() == Usage(0, 0, 0, 0, 0)


def test_objects_records_and_what_owners_hold_are_counted(store: Store, tmp_path: Path) -> None:
    held, free = store.put_bytes(b"h" * 10_000), store.put_bytes(b"f" * 50_000)
    store.link(held, tmp_path / "one")
    store.link(held, tmp_path / "two")
    store.put_record(key_of("s", 1, {}, {}), Record("s", 1, {}, {}, {"o": free}, 0.0, 0.0))
    usage = store.usage()
    assert (usage.object_count, usage.held_count, usage.record_count) == (2, 1, 1)
    assert usage.held_bytes == store.path(held).stat().st_blocks * 512
    assert usage.free_bytes == store.path(free).stat().st_blocks * 512
    assert usage.size_bytes >= 60_000
    (tmp_path / "one").unlink()
    (tmp_path / "two").unlink()
    assert store.usage().held_count == 0


def test_holes_do_not_count(store: Store) -> None:
    with store.temporary_dir() as folder:
        with (folder / "disk").open("wb") as file:
            file.truncate(1 << 30)
        store.put_file(folder / "disk")
    assert store.usage().size_bytes < 1 << 20
