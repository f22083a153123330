"""Writable disks, judged by e2fsprogs: what was put into the tar is on the disk, by either path."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from pipelines.ext4 import WriteTar, make_ext4, make_from_folder, make_from_stream

_SIZE_MIB = 64
_LONG = "/".join(["d" * 100, "e" * 100, "f" * 98])
_NAMES = ["ünï ✓", "two words", "new\nline", "quo\"te's", "\\back", "-dash", "raw\udcff\udc80", "x" * 255]


def _entry(name: str, mode: int, **values: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, 1_700_000_000
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


def _write_tree(tar: tarfile.TarFile) -> None:
    def folder(name: str, mode: int = 0o755, **values: object) -> None:
        tar.addfile(_entry(name, mode, type=tarfile.DIRTYPE, **values))

    def file(name: str, content: bytes, mode: int = 0o644, **values: object) -> None:
        tar.addfile(_entry(name, mode, size=len(content), **values), io.BytesIO(content))

    folder(".", 0o700)
    folder("sticky", 0o1777)
    folder("owned", 0o2750, uid=70000, gid=70001)
    file("owned/setuid", b"#!", 0o4755, uid=33, gid=34)
    file("empty", b"", 0o000)
    file("large", bytes(range(256)) * 8192)
    tar.addfile(_entry("link", 0o777, type=tarfile.SYMTYPE, linkname="/absolute/ünï"))
    tar.addfile(_entry("long-link", 0o777, type=tarfile.SYMTYPE, linkname="t" * 300))
    file("first", b"one file")
    tar.addfile(_entry("second", 0o644, type=tarfile.LNKTYPE, linkname="first"))
    for number in range(3):
        folder("/".join(_LONG.split("/")[: number + 1]))
    file(f"{_LONG}/deep", b"deep")
    for name in _NAMES:
        file(name, name.encode("utf-8", "surrogateescape"))


def _debugfs(image: Path, request: str) -> str:
    done = subprocess.run(["/usr/sbin/debugfs", "-R", request, image], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape")


def _check(image: Path) -> None:
    done = subprocess.run(["/usr/sbin/e2fsck", "-fn", image], capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(params=["stream", "folder"])
def make(request: pytest.FixtureRequest) -> Callable[[Path, WriteTar], None]:
    """Make a disk by one of the two paths."""

    def make_one(image: Path, write: WriteTar) -> None:
        with image.open("xb") as file:
            file.truncate(_SIZE_MIB << 20)
        if request.param == "folder":
            make_from_folder(image, write)
        else:
            assert make_from_stream(image, write)

    return make_one


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "disk, with a comma.ext4"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take owners out of a disk")
def test_the_tree_on_the_disk_is_that_of_the_tar(
    make: Callable[[Path, WriteTar], None], tmp_path: Path, image: Path
) -> None:
    make(image, _write_tree)
    _check(image)
    copy = tmp_path / "copy"
    copy.mkdir()
    _debugfs_dump(image, copy)
    found = {
        str(path.relative_to(copy)): (
            stat.filemode(about.st_mode),
            about.st_uid,
            about.st_gid,
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in copy.rglob("*")
        for about in [path.lstat()]
    }
    found.pop("lost+found")
    # The special bits do not come through the copy: they have a test of their own.
    assert found == {
        "sticky": ("drwxrwxrwx", 0, 0, None),
        "owned": ("drwxr-x---", 70000, 70001, None),
        "owned/setuid": ("-rwxr-xr-x", 33, 34, b"#!"),
        "empty": ("----------", 0, 0, b""),
        "large": ("-rw-r--r--", 0, 0, bytes(range(256)) * 8192),
        "link": ("lrwxrwxrwx", 0, 0, "/absolute/ünï"),
        "long-link": ("lrwxrwxrwx", 0, 0, "t" * 300),
        "first": ("-rw-r--r--", 0, 0, b"one file"),
        "second": ("-rw-r--r--", 0, 0, b"one file"),
        **{"/".join(_LONG.split("/")[:count]): ("drwxr-xr-x", 0, 0, None) for count in (1, 2, 3)},
        f"{_LONG}/deep": ("-rw-r--r--", 0, 0, b"deep"),
        **{name: ("-rw-r--r--", 0, 0, name.encode("utf-8", "surrogateescape")) for name in _NAMES},
    }


def _debugfs_dump(image: Path, folder: Path) -> None:
    done = subprocess.run(["/usr/sbin/debugfs", "-R", f"rdump / {folder}", image], capture_output=True, check=True)
    assert b"rdump" not in done.stderr.partition(b"\n")[2], done.stderr


@pytest.mark.parametrize(
    ("name", "mode"), [("sticky", "1777"), ("owned", "2750"), ("owned/setuid", "4755"), (".", "700")]
)
def test_special_bits_are_kept(make: Callable[[Path, WriteTar], None], image: Path, name: str, mode: str) -> None:
    make(image, _write_tree)
    assert re.search(rf"Mode:\s+0?{mode}\s", _debugfs(image, f"stat {name}"))


def test_two_names_of_one_file_are_one_file_on_the_disk(make: Callable[[Path, WriteTar], None], image: Path) -> None:
    make(image, _write_tree)
    about = [_debugfs(image, f"stat {name}") for name in ("first", "second")]
    assert [re.search(r"Inode: (\d+)", text)[1] for text in about] == [re.search(r"Inode: (\d+)", about[0])[1]] * 2  # type: ignore[index]
    assert "Links: 2" in about[0]


def test_the_root_of_the_disk_is_root_s_and_no_blocks_are_reserved(
    make: Callable[[Path, WriteTar], None], image: Path
) -> None:
    make(image, _write_tree)
    assert re.search(r"User:\s+0\s+Group:\s+0", _debugfs(image, "stat <2>"))
    assert re.search(r"Reserved block count:\s+0\n", _debugfs(image, "stats -h"))


def test_the_disk_is_private_sparse_and_of_the_size_asked_for(image: Path) -> None:
    make_ext4(image, 2048, _write_tree)
    _check(image)
    about = image.stat()
    assert about.st_size == 2048 << 20
    assert about.st_blocks * 512 < 64 << 20
    assert stat.S_IMODE(about.st_mode) == 0o600


def test_an_old_image_in_the_way_is_replaced(image: Path) -> None:
    image.write_bytes(b"old")
    make_ext4(image, _SIZE_MIB, _write_tree)
    _check(image)


def test_a_writer_that_fails_leaves_no_image(image: Path) -> None:
    def write(tar: tarfile.TarFile) -> None:
        _write_tree(tar)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_ext4(image, _SIZE_MIB, write)
    assert list(image.parent.iterdir()) == []


def test_more_content_than_the_disk_holds_leaves_no_image(image: Path) -> None:
    def write(tar: tarfile.TarFile) -> None:
        size = (_SIZE_MIB + 1) << 20
        tar.addfile(_entry("big", 0o644, size=size), io.BytesIO(os.urandom(size)))

    with pytest.raises(BangerError):
        make_ext4(image, _SIZE_MIB, write)
    assert list(image.parent.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        make_ext4(tmp_path / "missing" / "disk", _SIZE_MIB, _write_tree)
    assert caught.value.reason is Reason.IO


@pytest.fixture
def tiny_filesystem(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_host_without_space_is_told_and_no_image_is_left(tiny_filesystem: Path) -> None:
    def write(tar: tarfile.TarFile) -> None:
        tar.addfile(_entry("big", 0o644, size=32 << 20), io.BytesIO(os.urandom(32 << 20)))

    with pytest.raises(BangerError) as caught:
        make_ext4(tiny_filesystem / "disk.ext4", _SIZE_MIB, write)
    assert caught.value.reason is Reason.NO_SPACE
    assert list(tiny_filesystem.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_makes_the_same_disk(tmp_path: Path) -> None:
    program = """
import io, sys, tarfile
from pathlib import Path
from pipelines.ext4 import make_ext4

def write(tar):
    entry = tarfile.TarInfo("owned")
    entry.uid, entry.gid, entry.mode, entry.size = 70000, 70001, 0o640, 5
    tar.addfile(entry, io.BytesIO(b"hello"))

make_ext4(Path(sys.argv[1]), 64, write)
"""
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(parent.stat().st_mode | 0o011)
    user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]
    interpreter = Path(sys.executable)
    if subprocess.run([*user, interpreter, "-I", "-c", "import pipelines.ext4"], capture_output=True).returncode != 0:
        pytest.skip("an ordinary user cannot read this checkout")
    subprocess.run([*user, interpreter, "-I", "-c", program, folder / "disk"], check=True, cwd="/")
    _check(folder / "disk")
    about = _debugfs(folder / "disk", "stat owned")
    assert re.search(r"User:\s+70000\s+Group:\s+70001", about)
    assert re.search(r"User:\s+0\s+Group:\s+0", _debugfs(folder / "disk", "stat <2>"))
    assert (folder / "disk").stat().st_uid == 1234
