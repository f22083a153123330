import os
import shutil
import stat
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Object, Store


def test_an_owner_gets_a_hard_link(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"root")
    store.link(obj, tmp_path / "root.erofs")
    assert (tmp_path / "root.erofs").samefile(store.path(obj))
    store.link(obj, tmp_path / "root.erofs")
    assert store.path(obj).stat().st_nlink == 2


def test_across_filesystems_an_owner_gets_a_whole_read_only_copy(store: Store, other_filesystem: Path) -> None:
    data = os.urandom(3_000_000)
    obj = store.put_bytes(data)
    store.link(obj, other_filesystem / "root")
    store.link(obj, other_filesystem / "root")
    assert (other_filesystem / "root").read_bytes() == data
    assert stat.S_IMODE((other_filesystem / "root").stat().st_mode) == 0o400
    assert [path.name for path in other_filesystem.iterdir()] == ["root"]


def test_a_sparse_object_is_copied_sparse(store: Store, other_filesystem: Path) -> None:
    with store.temporary_dir() as folder:
        with (folder / "disk").open("wb") as file:
            file.write(b"head")
            file.seek(20 << 20)
            file.write(b"tail")
            file.truncate(40 << 20)
        obj = store.put_file(folder / "disk")
    store.link(obj, other_filesystem / "disk")
    found = (other_filesystem / "disk").stat()
    assert found.st_size == 40 << 20
    assert found.st_blocks * 512 < 4 << 20
    assert (other_filesystem / "disk").read_bytes() == store.path(obj).read_bytes()


@pytest.mark.parametrize("other", [b"something else", b"of equal size!"])
def test_a_different_file_is_never_replaced(store: Store, tmp_path: Path, other_filesystem: Path, other: bytes) -> None:
    obj = store.put_bytes(b"0f equal size!")
    for folder in (tmp_path, other_filesystem):
        (folder / "taken").write_bytes(other)
        with pytest.raises(BangerError) as caught:
            store.link(obj, folder / "taken")
        assert caught.value.reason is Reason.ALREADY_EXISTS
        assert (folder / "taken").read_bytes() == other
    assert [path.name for path in other_filesystem.iterdir()] == ["taken"]


def test_a_rotten_object_is_not_copied_to_an_owner(store: Store, other_filesystem: Path) -> None:
    obj = store.put_bytes(b"good")
    path = store.path(obj)
    path.chmod(0o600)
    path.write_bytes(b"evil")
    with pytest.raises(BangerError) as caught:
        store.link(obj, other_filesystem / "copy")
    assert caught.value.reason is Reason.CORRUPT
    assert list(other_filesystem.iterdir()) == []


def test_a_missing_object_cannot_be_linked(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"x")
    store.path(obj).unlink()
    with pytest.raises(BangerError) as caught:
        store.link(obj, tmp_path / "x")
    assert caught.value.reason is Reason.NOT_FOUND
    assert not (tmp_path / "x").exists()


def test_wiping_the_store_takes_nothing_from_an_owner_who_can_give_it_back(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"image")
    store.link(obj, tmp_path / "image")
    shutil.rmtree(store.root)
    store = Store.open(store.root)
    assert not store.has(obj)
    store.adopt(tmp_path / "image", obj)
    assert store.path(obj).samefile(tmp_path / "image")
    assert list((store.root / "tmp").iterdir()) == []
    store.adopt(tmp_path / "image", obj)
    assert list(store.verify()) == []


def test_adopting_replaces_a_truncated_object(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"image")
    (tmp_path / "image").write_bytes(b"image")
    (tmp_path / "image").chmod(0o400)
    path = store.path(obj)
    path.chmod(0o600)
    os.truncate(path, 1)
    store.adopt(tmp_path / "image", obj)
    assert store.path(obj).samefile(tmp_path / "image")


def test_adopting_across_filesystems_copies_and_checks(store: Store, other_filesystem: Path) -> None:
    obj = store.put_bytes(b"image")
    store.link(obj, other_filesystem / "image")
    store.path(obj).unlink()
    store.adopt(other_filesystem / "image", obj)
    assert store.path(obj).read_bytes() == b"image"
    assert stat.S_IMODE(store.path(obj).stat().st_mode) == 0o400

    store.path(obj).unlink()
    (other_filesystem / "evil").write_bytes(b"imagE")
    with pytest.raises(BangerError) as caught:
        store.adopt(other_filesystem / "evil", obj)
    assert caught.value.reason is Reason.CORRUPT
    assert not store.has(obj)


def test_a_file_that_can_still_be_written_is_copied_and_not_linked(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"image")
    store.path(obj).unlink()
    (tmp_path / "mine").write_bytes(b"image")
    store.adopt(tmp_path / "mine", obj)
    (tmp_path / "mine").write_bytes(b"EVIL!")
    assert store.path(obj).read_bytes() == b"image"


def test_what_is_no_such_file_is_not_adopted(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"image")
    store.path(obj).unlink()
    (tmp_path / "short").write_bytes(b"imag")
    (tmp_path / "short").chmod(0o400)
    (tmp_path / "real").write_bytes(b"image")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    for name in ("short", "link"):
        with pytest.raises(BangerError) as caught:
            store.adopt(tmp_path / name, obj)
        assert caught.value.reason is Reason.CORRUPT
    with pytest.raises(BangerError):
        store.adopt(tmp_path / "folder", obj)
    with pytest.raises(BangerError) as caught:
        store.adopt(tmp_path / "nothing", obj)
    assert caught.value.reason is Reason.NOT_FOUND
    assert not store.has(obj)
    assert list((store.root / "tmp").iterdir()) == []


def test_the_empty_object_can_be_owned(store: Store, tmp_path: Path, other_filesystem: Path) -> None:
    obj: Object = store.put_bytes(b"")
    store.link(obj, tmp_path / "empty")
    store.link(obj, other_filesystem / "empty")
    store.path(obj).unlink()
    store.adopt(other_filesystem / "empty", obj)
    assert store.has(obj)
