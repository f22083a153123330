"""Files that change between planning and reading, or while they are read: no torn copy is taken for a whole one."""

from __future__ import annotations

import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.file_sync import Kind, SyncedFile, plan_file_sync, write_synced
from banger.settings import FileSync


class _Sink:
    """Where a tar goes; does something once, when its first bytes come."""

    def __init__(self, action: Callable[[], object] = lambda: None) -> None:
        self._action = action
        self._is_done = False

    def write(self, block: bytes) -> int:
        if not self._is_done:
            self._is_done = True
            self._action()
        return len(block)


def _plan(host: Path, content: bytes) -> SyncedFile:
    host.write_bytes(content)
    (file,) = plan_file_sync([FileSync(host, "f", None)], pytest.fail)
    return file


def _write(sink: _Sink, file: SyncedFile) -> None:
    with tarfile.open(fileobj=sink, mode="w|") as tar:  # type: ignore[call-overload]
        write_synced(tar, [file])


def _rewrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: _rewrite(path, b"longer than before"),
        lambda path: _rewrite(path, b"short"),
        lambda path: _rewrite(path, b""),
        lambda path: path.unlink(),
        _replace_by_link,
        _replace_by_fifo,
        _replace_by_folder,
    ],
    ids=["longer", "shorter", "empty", "removed", "link", "fifo", "folder"],
)
def test_a_file_that_has_become_another_before_it_is_read_is_a_failure_that_names_it(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    host = tmp_path / "file\n"
    file = _plan(host, b"as planned")
    change(host)
    with pytest.raises(BangerError) as caught:
        _write(_Sink(), file)
    assert caught.value.reason is Reason.CHANGED
    assert f"{tmp_path}/file\\n" in caught.value.message


@pytest.mark.parametrize("size", [0, 1 << 20, (4 << 20) - 1, (4 << 20) + 1, 8 << 20])
def test_a_file_whose_size_changes_while_it_is_read_is_a_failure_that_names_it(tmp_path: Path, size: int) -> None:
    host = tmp_path / "log"
    file = _plan(host, b"x" * (4 << 20))
    with pytest.raises(BangerError, match=str(host)) as caught:
        _write(_Sink(lambda: os.truncate(host, size)), file)
    assert caught.value.reason is Reason.CHANGED


def test_a_file_that_cannot_be_read_to_its_end_is_told() -> None:
    """What is at address 0 of a process is nowhere, and reading it an error (proc(5))."""
    with pytest.raises(BangerError, match=r"^cannot read /proc/self/mem: Input/output error$") as caught:
        _write(_Sink(), SyncedFile("mem", Path("/proc/self/mem"), Kind.FILE, 0o600, 0, 0))
    assert caught.value.reason is Reason.IO


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """Of a sparse gigabyte, no more than a block is in memory at a time."""
    host = tmp_path / "large"
    _plan(host, b"")
    os.truncate(host, 1 << 30)
    (file,) = plan_file_sync([FileSync(host, "f", None)], pytest.fail)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _write(_Sink(), file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
