"""Names of images and kernels: given, found, replaced, damaged, restored."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Digest, Object, Record, Store, key_of
from catalog.local import Named, Names

_KEY = key_of("rootfs", 1, {}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path / "images", "image")


def _record(outputs: dict[str, Object]) -> Record:
    return Record("rootfs", 1, {"odd": "\udcff"}, {}, outputs, 1.0, 2.0)


def _put(names: Names, store: Store, name: str = "box", content: bytes = b"disk") -> Named:
    files = {"rootfs": store.put_bytes(content), "home": store.put_bytes(content + b" home")}
    return names.put(name, store, files, {_KEY: _record(files)}, {"summary": "ünï"})


def test_a_name_is_found_with_all_that_was_given_to_it(names: Names, store: Store) -> None:
    made = _put(names, store)
    found = names.get("box")
    assert found == made
    assert found.path("rootfs").read_bytes() == b"disk"
    assert found.files["home"].size_bytes == 9
    assert found.size_bytes == 13
    assert found.details == {"summary": "ünï"}
    assert found.records[_KEY] == _record(dict(found.files))


def test_names_are_listed_in_their_order(names: Names, store: Store) -> None:
    assert list(names.list()) == []
    for name in ("b", "a", "0.1_x-y"):
        _put(names, store, name)
    assert [each.name for each in names.list()] == ["0.1_x-y", "a", "b"]


def test_a_name_that_is_not_here_is_none_or_an_error_with_the_nearest(names: Names, store: Store) -> None:
    _put(names, store, "debian")
    assert names.find("debain") is None
    with pytest.raises(BangerError) as caught:
        names.get("debain")
    assert caught.value.reason is Reason.NOT_FOUND
    assert "'debian'" in caught.value.hint


@pytest.mark.parametrize("name", ["../x", ".x", "", "Upper", "a/b", "a\n", "-x", "x" * 129, "ü", "a b", "..", "\0"])
def test_a_name_that_is_no_folder_name_is_refused(names: Names, store: Store, name: str) -> None:
    with pytest.raises(BangerError) as caught:
        names.find(name)
    assert caught.value.reason is Reason.BAD_INPUT
    with pytest.raises(BangerError):
        _put(names, store, name)
    assert not names.folder.exists()


def test_a_name_moves_to_other_content_as_a_whole(names: Names, store: Store) -> None:
    _put(names, store, content=b"old")
    _put(names, store, content=b"new")
    assert names.get("box").path("rootfs").read_bytes() == b"new"
    assert [path.name for path in names.folder.iterdir()] == ["box"]


def test_a_reader_beside_a_writer_never_sees_a_half_made_name(names: Names, store: Store) -> None:
    """A list that is read while a name is replaced holds whole names only, and no name but the one."""
    _put(names, store)
    stop = threading.Event()

    def replace() -> None:
        for number in range(30):
            _put(names, store, content=str(number).encode())
        stop.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not stop.is_set():
        for found in names.list():
            assert found.name == "box"
            assert set(found.files) == {"rootfs", "home"}
    writer.join()


def test_what_a_crash_left_half_made_is_no_name(names: Names, store: Store) -> None:
    _put(names, store)
    shutil.copytree(names.folder / "box", names.folder / ".new-abc123")
    assert [each.name for each in names.list()] == ["box"]


def test_content_that_cannot_be_linked_gives_no_name(names: Names, store: Store) -> None:
    with pytest.raises(BangerError) as caught:
        names.put("box", store, {"rootfs": Object(Digest("0" * 64), 3)}, {}, {})
    assert caught.value.reason is Reason.NOT_FOUND
    assert list(names.folder.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_content(names: Names, store: Store) -> None:
    _put(names, store)
    with pytest.raises(BangerError):
        names.put("box", store, {"rootfs": Object(Digest("0" * 64), 3)}, {}, {})
    assert names.get("box").path("rootfs").read_bytes() == b"disk"


def test_a_wiped_store_gets_back_what_a_name_holds(names: Names, store: Store) -> None:
    made = _put(names, store)
    shutil.rmtree(store.root)
    fresh = Store.open(store.root)
    names.get("box").restore(fresh)
    assert fresh.path(made.files["rootfs"]).samefile(made.path("rootfs"))
    assert fresh.find_record(_KEY) == made.records[_KEY]
    assert list(fresh.verify()) == []


def test_a_name_whose_file_was_cut_short_is_not_given_back(names: Names, store: Store) -> None:
    made = _put(names, store)
    shutil.rmtree(store.root)
    made.path("rootfs").chmod(0o600)
    made.path("rootfs").write_bytes(b"di")
    with pytest.raises(BangerError) as caught:
        names.get("box").restore(Store.open(store.root))
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "files": [], "records": {}, "details": {}, "made_at": 1}',
        b'{"format": 1, "files": {"rootfs": []}, "records": {}, "details": {}, "made_at": 1}',
        b'{"format": 1, "files": {"rootfs": ["x", 1]}, "records": {}, "details": {}, "made_at": 1}',
        b'{"format": 1, "files": {"rootfs": ["../../etc/passwd", 1]}, "records": {}, "details": {}, "made_at": 1}',
        b'{"format": 1, "files": {}, "records": {"x": "{}"}, "details": {}, "made_at": 1}',
        b'{"format": 1, "files": {}, "records": {"x": 1}, "details": {}, "made_at": 1}',
    ],
)
def test_a_damaged_manifest_is_told_as_damage(names: Names, store: Store, manifest: bytes) -> None:
    (_put(names, store).folder / "manifest.json").write_bytes(manifest)
    with pytest.raises(BangerError) as caught:
        names.find("box")
    assert caught.value.reason is Reason.CORRUPT


def test_a_manifest_of_another_format_is_not_guessed_at(names: Names, store: Store) -> None:
    path = _put(names, store).folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(BangerError) as caught:
        names.find("box")
    assert caught.value.reason is Reason.WRONG_STATE
