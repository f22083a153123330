from pathlib import Path

from cache import KindUsage, Record, Store, Usage, key_of


def test_an_empty_store_uses_nothing(store: Store) -> None:
    assert store.usage() == Usage([], 0, 0, 0)
    assert store.usage().all == KindUsage("", 0, 0, 0, 0)


def test_objects_are_counted_by_kind_and_what_owners_hold_is_shared(store: Store, tmp_path: Path) -> None:
    held, free = store.put_bytes(b"h" * 10_000), store.put_bytes(b"f" * 50_000)
    unknown = store.put_bytes(b"u" * 90_000)
    store.link(held, tmp_path / "one")
    store.link(held, tmp_path / "two")
    for kind, made in (("s", free), ("t", held), ("t", free)):
        store.put_record(key_of(kind, 1, {}, {"i": made.digest}), Record(kind, 1, {}, {}, {"o": made}, 0.0, 0.0))
    sizes = [store.path(made).stat().st_blocks * 512 for made in (held, free, unknown)]
    usage = store.usage()
    # The same bytes may come of two kinds of steps; they are there once.
    assert sum(each.object_count for each in usage.kinds) == usage.all.object_count == 3
    assert usage.kinds[0] == KindUsage("", 1, sizes[2], 0, 0)
    assert {each.kind for each in usage.kinds} <= {"", "s", "t"}
    assert (usage.all.shared_count, usage.all.shared_bytes) == (1, sizes[0])
    assert (usage.all.own_bytes, usage.record_count) == (sizes[1] + sizes[2], 3)
    (tmp_path / "one").unlink()
    (tmp_path / "two").unlink()
    assert store.usage().all.shared_count == 0


def test_what_a_running_program_uses_is_not_shared(store: Store) -> None:
    with store.leased("a build") as leased:
        leased.put_bytes(b"x" * 10_000)
        assert store.usage().all.shared_count == 0
        assert store.usage().all.object_count == 1


def test_what_is_being_written_and_what_was_taken_out_is_told_apart(store: Store) -> None:
    with store.writer() as new:
        new.write(b"x" * 100_000)
        new.flush()
        assert store.usage().unfinished_bytes >= 100_000
    (store.root / "quarantine").mkdir()
    (store.root / "quarantine" / ("0" * 64)).write_bytes(b"x" * 5000)
    assert (store.usage().unfinished_bytes, store.usage().quarantine_bytes) == (0, 8192)


def test_holes_do_not_count(store: Store) -> None:
    with store.temporary_dir() as folder:
        with (folder / "disk").open("wb") as file:
            file.truncate(1 << 30)
        store.put_file(folder / "disk")
    assert store.usage().all.size_bytes < 1 << 20
