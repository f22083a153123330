"""A work tree that somebody writes to while it is sent: what goes is what is remembered as sent, or nothing goes."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.workspace.selection import File, Kind
from banger.workspace.shipment import write_files
from tests.workspace.repositories import Tree, make_shipment, write_cargo

_SIZE = 600_000


class _Sink:
    """Where a tar goes; does something once, when the content of the file in question has begun to come."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._left = 1

    def write(self, block: bytes) -> int:
        if self._left and b"BEGIN" in block:
            self._left = 0
            self._action()
        return len(block)


def _rewrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as it:
        # A socket's path is bounded (unix(7)).
        descriptor = os.open(path.parent, os.O_DIRECTORY)
        it.bind(f"/proc/self/fd/{descriptor}/{path.name}")
        os.close(descriptor)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _replace_by_another(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"BEGIN" + b"y" * (_SIZE - 5))


_BEFORE: dict[str, Callable[[Path], object]] = {
    "longer": lambda path: _rewrite(path, b"z" * (_SIZE + 1)),
    "shorter": lambda path: _rewrite(path, b"z" * (_SIZE - 1)),
    "same size": lambda path: _rewrite(path, b"z" * _SIZE),
    "empty": lambda path: _rewrite(path, b""),
    "removed": lambda path: path.unlink(),
    "fifo": _replace_by_fifo,
    "socket": _replace_by_socket,
    "folder": _replace_by_folder,
    "link": _replace_by_link,
    "another": _replace_by_another,
}
_DURING = {name: change for name, change in _BEFORE.items() if name in ("longer", "shorter", "same size", "empty")}


def _make_large(project: Tree) -> Path:
    place = project.write("dir/large.bin", b"BEGIN" + b"x" * (_SIZE - 5))
    project.commit("large")
    # Long ago: no clock is too coarse to tell the change from it.
    os.utime(place, (1_000_000_000, 1_000_000_000))
    return place


@pytest.mark.parametrize("how", _BEFORE)
def test_a_file_that_is_another_than_was_listed_is_noticed(project: Tree, tmp_path: Path, how: str) -> None:
    place = _make_large(project)
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path).pack(tmp_path / "machine") as cargo:
        _BEFORE[how](place)
        with (tmp_path / "tar").open("wb") as sink, pytest.raises(BangerError) as caught:
            write_cargo(cargo, sink)
    assert caught.value.reason is Reason.CHANGED
    assert "dir/large.bin" in caught.value.message


@pytest.mark.parametrize("how", _DURING)
def test_a_file_that_changes_while_it_is_read_is_noticed(project: Tree, tmp_path: Path, how: str) -> None:
    place = _make_large(project)
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path).pack(tmp_path / "machine") as cargo:
        sink = _Sink(lambda: _DURING[how](place))
        with pytest.raises(BangerError) as caught:
            write_cargo(cargo, sink)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.CHANGED


def test_an_empty_file_that_gets_content_is_noticed(project: Tree, tmp_path: Path) -> None:
    place = project.write("empty", b"")
    project.commit("empty")
    os.utime(place, (1_000_000_000, 1_000_000_000))
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path).pack(tmp_path / "machine") as cargo:
        place.write_bytes(b"x")
        with (tmp_path / "tar").open("wb") as sink, pytest.raises(BangerError) as caught:
            write_cargo(cargo, sink)
    assert caught.value.reason is Reason.CHANGED


@pytest.mark.parametrize("change", ["led elsewhere", "file"])
def test_a_link_that_is_another_than_was_listed_is_noticed(project: Tree, tmp_path: Path, change: str) -> None:
    place = project.path / "link"
    os.utime(place, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path).pack(tmp_path / "machine") as cargo:
        place.unlink()
        if change == "file":
            place.write_bytes(b"dir/c.txt")
        else:
            place.symlink_to("b.txt")
        with (tmp_path / "tar").open("wb") as sink, pytest.raises(BangerError) as caught:
            write_cargo(cargo, sink)
    assert caught.value.reason is Reason.CHANGED


def test_what_comes_after_the_listing_stays_at_home(project: Tree, tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path, include_untracked=True).pack(tmp_path / "machine") as cargo:
        project.write("late.txt")
        project.write("a-new-folder/late.txt")
        with (tmp_path / "tar").open("wb") as sink:
            write_cargo(cargo, sink)
    with tarfile.open(tmp_path / "tar") as tar:
        assert not [name for name in tar.getnames() if "late" in name or "new-folder" in name]


def test_a_name_with_control_characters_is_told_without_them(tmp_path: Path) -> None:
    file = File("gone\x1b[31m\n", Kind.FILE, 1)
    with (
        tarfile.open(tmp_path / "tar", "w") as tar,
        pytest.raises(BangerError) as caught,
    ):
        write_files(tar, tmp_path, [file])
    assert caught.value.reason is Reason.CHANGED
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message


def test_no_descriptor_is_left_open(project: Tree, tmp_path: Path) -> None:
    def look() -> Counter[str]:
        found = Counter[str]()
        for place in Path("/proc/self/fd").iterdir():
            # The one that lists them has gone.
            with contextlib.suppress(FileNotFoundError):
                found[str(place.readlink())] += 1
        return found

    # What other tests left to be collected is not ours, and threads of theirs may close theirs meanwhile.
    gc.collect()
    before = look()
    place = _make_large(project)
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path).pack(tmp_path / "machine") as cargo:
        for is_there in (True, False):
            if not is_there:
                place.unlink()
            with (tmp_path / "tar").open("wb") as sink:
                if is_there:
                    write_cargo(cargo, sink)
                else:
                    with pytest.raises(BangerError):
                        write_cargo(cargo, sink)
    assert look() - before == Counter()
