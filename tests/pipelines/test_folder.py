"""A folder as a tar: the same bytes for the same tree, and what cannot be read is told by its name."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from pipelines.content import measure, open_folder
from pipelines.folder import read_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, or mounts")
_REPOSITORY = Path(__file__).parents[2]
_NOBODY = 65534


def _read(top: Path) -> bytes:
    return b"".join(read_folder(top))


def _refuse(top: Path) -> BangerError:
    with pytest.raises(BangerError) as caught:
        _read(top)
    assert caught.value.message.isprintable()
    return caught.value


@contextmanager
def _as_nobody(folder: Path) -> Iterator[None]:
    """With a way to the folder."""
    closed = [each for each in folder.parents if not each.stat().st_mode & 0o001]
    modes = {each: each.stat().st_mode for each in closed}
    for each in closed:
        each.chmod(modes[each] | 0o711)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for each, mode in modes.items():
            each.chmod(mode & 0o7777)


def test_the_same_tree_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("z", "a", "a/b", "a.b"):
        (tmp_path / "tree" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "tree/a/file").write_text("text")
    os.link(tmp_path / "tree/a/file", tmp_path / "tree/z/link")
    before = _read(tmp_path / "tree")
    (tmp_path / "tree").rename(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to("elsewhere")
    assert before == _read(tmp_path / "elsewhere") == _read(tmp_path / "link")
    with tarfile.open(fileobj=io.BytesIO(before)) as tar:
        assert tar.getnames() == ["a", "a/b", "a/file", "a.b", "z", "z/link"]
        assert tar.getmember("z/link").linkname == "a/file"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/folder").symlink_to("/etc")
    (tmp_path / "tree/file").symlink_to("/etc/passwd")
    with tarfile.open(fileobj=io.BytesIO(_read(tmp_path / "tree"))) as tar:
        assert [(each.name, each.linkname) for each in tar] == [("file", "/etc/passwd"), ("folder", "/etc")]


def test_small_reads_give_the_same_as_large_ones(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(3_000_000))
    content = open_folder(tmp_path / "tree")
    with content.read() as stream:
        pieces = b"".join(iter(lambda: stream.read(777), b""))
    assert pieces == _read(tmp_path / "tree")
    assert measure(content, 1 << 30).size_bytes == len(pieces)


@needs_root
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_an_ordinary_user_may_not_read_is_named(kind: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc/folder").mkdir(parents=True)
    (tree / "etc/file").write_text("secret")
    (tree / "etc" / kind).chmod(0)
    with _as_nobody(tree):
        refused = _refuse(tree)
    assert refused.reason is Reason.NO_PERMISSION
    assert f"etc/{kind}" in refused.message
    assert "tar" in refused.hint


@needs_root
def test_what_an_ordinary_user_may_see_but_not_make_is_there(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dev").mkdir(parents=True)
    os.mknod(tree / "dev/null", 0o20600, os.makedev(1, 3))
    os.mkfifo(tree / "dev/fifo", 0o600)
    as_root = _read(tree)
    with _as_nobody(tree):
        assert _read(tree) == as_root


@needs_root
def test_what_is_mounted_inside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree/proc").mkdir(parents=True)
    program = f"from pipelines.folder import *\nlist(read_folder(Path({str(tmp_path / 'tree')!r})))"
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t proc proc "$0" && exec "$@"', tmp_path / "tree/proc"]
    done = subprocess.run([*mount, sys.executable, "-c", program], cwd=_REPOSITORY, capture_output=True, text=True)
    assert "another filesystem is mounted" in done.stderr


def test_a_file_that_gets_shorter_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    file = tmp_path / "tree/log"
    file.write_bytes(bytes(5 << 20))
    chunks = read_folder(tmp_path / "tree")
    next(chunks)
    next(chunks)
    file.write_bytes(b"")
    with pytest.raises(BangerError) as caught:
        list(chunks)
    assert caught.value.reason is Reason.WRONG_STATE


def test_a_file_that_became_something_else_meanwhile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tree" / name).write_text("text")
    chunks = read_folder(tmp_path / "tree")
    next(chunks)
    (tmp_path / "tree/a").unlink()
    (tmp_path / "tree/a").symlink_to("/etc/passwd")
    with pytest.raises(BangerError) as caught:
        list(chunks)
    assert "tree/a" in caught.value.message
