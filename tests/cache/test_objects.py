import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from cache import Object, Store

shared_store = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def temporary_names(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "tmp").iterdir())


def object_names(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "objects").glob("*/*"))


@shared_store
@given(pieces=st.lists(st.binary(max_size=5000), max_size=20))
def test_any_bytes_in_any_pieces_have_the_digest_of_the_whole(store: Store, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    with store.writer() as new:
        for count, piece in enumerate(pieces):
            assert new.write(piece if count % 2 else memoryview(piece)) == len(piece)
        assert new.tell() == len(whole)
        obj = new.commit()
    assert obj == Object(blake3(whole).hexdigest(), len(whole))
    assert store.path(obj).read_bytes() == whole
    assert store.put_bytes(whole) == store.put_stream(io.BytesIO(whole)) == obj


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 17])
def test_sizes_around_the_buffer_are_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    with store.writer() as new:
        new.write(data[:7])
        new.write(data[7:])
        obj = new.commit()
    assert store.path(obj).read_bytes() == data
    assert obj.digest == blake3(data).hexdigest()


def test_an_object_is_read_only_and_alone_and_leaves_no_temporary_file(store: Store) -> None:
    obj = store.put_bytes(b"kernel")
    found = store.path(obj).stat()
    assert stat.S_IMODE(found.st_mode) == 0o400
    assert found.st_nlink == 1
    assert temporary_names(store) == []


def test_without_a_commit_nothing_remains(store: Store) -> None:
    with store.writer() as new:
        new.write(b"x" * 3_000_000)
    with pytest.raises(ZeroDivisionError), store.writer() as new:
        new.write(b"y" * (1 // 0))
    assert temporary_names(store) == []
    assert object_names(store) == []


def test_a_library_may_use_and_even_close_the_writer_like_a_file(store: Store) -> None:
    with store.writer() as new:
        with new, tarfile.open(fileobj=new, mode="w") as archive:
            member = tarfile.TarInfo("hello")
            member.size = 5
            archive.addfile(member, io.BytesIO(b"world"))
        obj = new.commit()
    with tarfile.open(store.path(obj)) as archive:
        assert archive.extractfile("hello").read() == b"world"


def test_writing_after_the_commit_is_refused(store: Store) -> None:
    with store.writer() as new:
        new.commit()
        with pytest.raises(ValueError):  # noqa: PT011 - what any closed file says
            new.write(b"more")


def test_committing_after_the_end_is_refused(store: Store) -> None:
    with store.writer() as new:
        new.write(b"x")
    with pytest.raises(ValueError, match="abandoned"):
        new.commit()


def test_a_finished_file_is_taken_over_without_a_copy(store: Store) -> None:
    with store.temporary_dir() as folder:
        made = folder / "root.erofs"
        made.write_bytes(b"erofs" * 1000)
        inode = made.stat().st_ino
        obj = store.put_file(made)
        assert not made.exists()
    assert store.path(obj).stat().st_ino == inode
    assert stat.S_IMODE(store.path(obj).stat().st_mode) == 0o400
    assert obj == Object(blake3(b"erofs" * 1000).hexdigest(), 5000)


def test_a_sparse_file_stays_sparse_and_hashes_like_its_zeros(store: Store) -> None:
    size = 256 << 20
    with store.temporary_dir() as folder:
        made = folder / "disk"
        with made.open("wb") as file:
            file.seek(100 << 20)
            file.write(b"data in the middle")
            file.truncate(size)
        obj = store.put_file(made)
    assert store.path(obj).stat().st_blocks * 512 < 1 << 20
    expected = blake3()
    for piece in (bytes(100 << 20), b"data in the middle", bytes(size - (100 << 20) - 18)):
        expected.update(piece)
    assert obj == Object(expected.hexdigest(), size)


def test_an_empty_file_is_an_object_too(store: Store) -> None:
    with store.temporary_dir() as folder:
        (folder / "empty").touch()
        assert store.put_file(folder / "empty") == store.put_bytes(b"") == Object(blake3().hexdigest(), 0)


def links(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, links])
def test_only_regular_files_are_taken_over(store: Store, make: Callable[[Path], None]) -> None:
    with store.temporary_dir() as folder:
        make(folder / "odd")
        with pytest.raises(BangerError) as caught:
            store.put_file(folder / "odd")
    assert caught.value.reason is (Reason.IO if make is links else Reason.BAD_INPUT)
    assert object_names(store) == []


def test_a_file_that_somebody_still_writes_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv

    def read_and_append(fd: int, buffers: list[memoryview], offset: int) -> int:
        with made.open("ab") as file:
            file.write(b"more")
        return real(fd, buffers, offset)

    with store.temporary_dir() as folder:
        made = folder / "made"
        made.write_bytes(b"some")
        monkeypatch.setattr(os, "preadv", read_and_append)
        with pytest.raises(BangerError) as caught:
            store.put_file(made)
    assert caught.value.reason is Reason.CHANGED
    assert object_names(store) == []


def test_putting_again_keeps_the_file_that_owners_hold(store: Store, tmp_path: Path) -> None:
    obj = store.put_bytes(b"shared")
    store.link(obj, tmp_path / "owned")
    inode = store.path(obj).stat().st_ino
    assert store.put_bytes(b"shared") == obj
    with store.temporary_dir() as folder:
        (folder / "again").write_bytes(b"shared")
        assert store.put_file(folder / "again") == obj
        assert not (folder / "again").exists()
    assert store.path(obj).stat().st_ino == inode
    assert store.path(obj).stat().st_nlink == 2


def test_a_truncated_object_is_missed_and_replaced_by_the_next_put(store: Store) -> None:
    obj = store.put_bytes(b"whole content")
    path = store.path(obj)
    path.chmod(0o600)
    os.truncate(path, 5)
    assert not store.has(obj)
    with pytest.raises(BangerError) as caught:
        store.path(obj)
    assert caught.value.reason is Reason.CORRUPT
    assert store.put_bytes(b"whole content") == obj
    assert store.path(obj).read_bytes() == b"whole content"
    assert temporary_names(store) == []


def test_a_missing_object_is_not_found(store: Store) -> None:
    obj = store.put_bytes(b"x")
    store.path(obj).unlink()
    assert not store.has(obj)
    with pytest.raises(BangerError) as caught:
        store.path(obj)
    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.hint


def test_a_symlink_or_folder_in_place_of_an_object_is_a_miss(store: Store) -> None:
    target = "x" * 100
    for make in (os.mkdir, lambda path: path.symlink_to(target)):
        obj = store.put_bytes(os.urandom(len(target)))  # the size that lstat tells of the link
        path = store.path(obj)
        path.unlink()
        make(path)
        assert not store.has(obj)


def test_the_errors_of_a_source_are_its_own(store: Store) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.put_stream(Broken())
    assert temporary_names(store) == []


def test_wiping_the_store_beside_us_breaks_nothing(store: Store) -> None:
    shutil.rmtree(store.root)
    obj = store.put_bytes(b"after the wipe")
    assert store.path(obj).read_bytes() == b"after the wipe"
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
