"""Names of images and kernels: given, found, replaced, damaged, restored."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Digest, Object, Record, Store, key_of
from cache.files import try_exchange
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


REFERENCES = (
    "debian:12",
    "[::1]:5000/team/app:v1",
    "Example.com/a/b:T",
    "ghcr.io/" + "a" * 200 + ":x",
    "debian@sha256:" + "0" * 64,
    "debian@sha256:" + "1" * 64,
    "ghcr.io/" + "long/" * 30 + "x@sha256:" + "2" * 64,
)


def test_references_of_registries_are_names_each_with_a_folder_of_its_own(names: Names, store: Store) -> None:
    for reference in REFERENCES:
        _put(names, store, reference)
    assert {each.name for each in names.list()} == set(REFERENCES)
    folders = [names.get(reference).folder for reference in REFERENCES]
    assert len(set(folders)) == len(REFERENCES)
    assert all(folder.parent == names.folder for folder in folders)


@pytest.mark.parametrize("name", ["../x:1", "/x:1", "-x:1", "a b:1", "a:\n", "%2e%2e:x", "a:" + "x" * 800, ":", "@"])
def test_what_only_looks_like_a_reference_is_refused(names: Names, name: str) -> None:
    with pytest.raises(BangerError) as caught:
        names.find(name)
    assert caught.value.reason is Reason.BAD_INPUT


def test_a_removed_name_is_gone_with_its_files_and_its_objects_stay(names: Names, store: Store) -> None:
    named = _put(names, store, "debian:12")
    names.remove("debian:12")
    assert names.find("debian:12") is None
    assert not named.folder.exists()
    assert list(names.folder.iterdir()) == []
    assert all(store.has(made) for made in named.files.values())
    with pytest.raises(BangerError) as caught:
        names.remove("debian:12")
    assert caught.value.reason is Reason.NOT_FOUND


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
    shutil.copytree(names.folder / "box", names.folder / ".unfinished/abc123/new")
    assert [each.name for each in names.list()] == ["box"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from cache import Store
from catalog.local import Names

root = Path(sys.argv[1])
store = Store.open(root / "store")
files = {"rootfs": store.put_bytes(b"disk")}
link = Store.link

def link_and_die(*words):
    link(*words)
    os.kill(os.getpid(), signal.SIGKILL)

Store.link = link_and_die
Names(root / "images", "image").put("box", store, files, {}, {})
"""


def test_what_a_killed_writer_left_goes_with_the_next_name(names: Names, store: Store, tmp_path: Path) -> None:
    """Its hard links would hold the content for ever."""
    made = _put(names, store, "other").path("rootfs")
    done = subprocess.run([sys.executable, "-I", "-c", _KILLED, tmp_path], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert made.stat().st_nlink == 3
    assert names.find("box") is None
    _put(names, store, "third", b"else")
    assert made.stat().st_nlink == 2
    assert {path.name for path in names.folder.iterdir()} == {"other", "third"}


def test_two_names_may_be_given_at_the_same_moment(names: Names, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another is still writing is not taken for what a dead one left."""
    real = Store.link

    def link(store: Store, made: Object, destination: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "link", real)
            _put(names, store, "other")
        real(store, made, destination)

    monkeypatch.setattr(Store, "link", link)
    _put(names, store, "box")
    assert [each.name for each in names.list()] == ["box", "other"]
    assert {path.name for path in names.folder.iterdir()} == {"box", "other"}


@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize("can_exchange", [True, False], ids=["in one step", "in two"])
def test_a_name_is_on_the_disk_before_it_is_there_and_lasts(
    names: Names, store: Store, monkeypatch: pytest.MonkeyPatch, was_there: bool, can_exchange: bool
) -> None:
    _put(names, store, "other")
    if was_there:
        _put(names, store, content=b"old")
    files = {"rootfs": store.put_bytes(b"disk")}
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(fd: int) -> None:
        events.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")  # noqa: PTH115, PTH119
        fsync(fd)

    def note_rename(source: Path, destination: Path) -> None:
        rename(source, destination)
        events.append(f"{Path(source).name} becomes {Path(destination).name}")

    def note_exchange(one: Path, other: Path) -> bool:
        if can_exchange:
            assert try_exchange(one, other)
            events.append(f"{one.name} becomes {other.name}")
        return can_exchange

    monkeypatch.setattr("catalog.local.try_exchange", note_exchange)
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    names.put("box", store, files, {}, {})
    aside = ["box becomes old"] if was_there and not can_exchange else []
    expected = ["sync manifest.json", "sync new", *aside, "new becomes box", "sync images"]
    assert events[events.index("sync manifest.json") :] == expected


@pytest.mark.parametrize("call", ["fsync", "mkdir", "link", "open"])
@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, Reason.NO_SPACE), (errno.EROFS, Reason.NO_PERMISSION), (errno.EIO, Reason.IO)]
)
def test_a_disk_that_refuses_gives_no_name_and_leaves_nothing(
    names: Names, store: Store, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: Reason
) -> None:
    _put(names, store, content=b"old")
    files = {"rootfs": store.put_bytes(b"disk")}

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(BangerError) as caught:
            names.put("box", store, files, {}, {})
    assert caught.value.reason is reason
    assert names.get("box").path("rootfs").read_bytes() == b"old"
    assert [path.name for path in names.folder.iterdir()] == ["box"]


def test_a_replacement_that_fails_half_way_gives_the_old_content_back(
    names: Names, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(names, store, content=b"old")
    files = {"rootfs": store.put_bytes(b"disk")}
    monkeypatch.setattr("catalog.local.try_exchange", lambda _one, _other: False)
    rename, calls = os.rename, 0

    def fail_the_third(source: Path, destination: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail_the_third)
        with pytest.raises(BangerError) as caught:
            names.put("box", store, files, {}, {})
    assert caught.value.reason is Reason.NO_SPACE
    assert names.get("box").path("rootfs").read_bytes() == b"old"


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
