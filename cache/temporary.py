"""Files and folders that are being made. Each belongs to a live process: it holds a flock on the file or folder itself.

When the process ends in whatever way, the kernel drops the lock, and the next one that opens the store removes what it
left. Process ids play no part, so neither reuse of a pid nor pid namespaces can mislead us.

Not promised: a program that was started to write into a temporary folder and outlives us may find the folder gone.
Files that we may not remove (another owner's, from an extraction in a user namespace) stay until somebody may.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.failures import explained
from cache.files import make_folder, sync_folder, write_all
from cache.trace import Point, reach

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, int]]:
    """A new empty file and a descriptor to read and write it. What still has that name at the end is removed."""
    with explained("make a temporary file", folder):
        path, fd = _claim(folder, is_folder=False)
    try:
        yield path, fd
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(fd)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new empty folder, removed at the end with all that is in it."""
    with explained("make a temporary folder", folder):
        path, fd = _claim(folder, is_folder=True)
    try:
        yield path
    finally:
        _remove_tree(path)
        os.close(fd)


def replace_file(folder: Path, destination: Path, content: bytes) -> None:
    """Give `destination` this content, on the disk and whole or not at all. `folder` is for the temporary file."""
    with temporary_file(folder) as (path, fd):
        write_all(fd, content)
        os.fsync(fd)
        reach(Point.FILE_SYNCED)
        make_folder(destination.parent)
        path.replace(destination)
        reach(Point.FILE_NAMED)
        sync_folder(destination.parent)


def remove_stale(folder: Path) -> None:
    """Remove what dead processes left. Never fails: what cannot be removed now is there for the next one."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                _remove_if_stale(Path(entry.path))


def _claim(folder: Path, *, is_folder: bool) -> tuple[Path, int]:
    """Make and lock. Between the two, another process's `remove_stale` may take it for a dead one's: then once more."""
    while True:
        path = folder / os.urandom(8).hex()
        try:
            fd = _make(path, is_folder=is_folder)
        except FileNotFoundError:  # `folder` was wiped, or the new folder was taken away before we opened it
            make_folder(folder)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            _remove(path, is_folder=is_folder)
            os.close(fd)
            raise
        if is_same_file(fd, path):
            reach(Point.TEMPORARY_MADE)
            return path, fd
        os.close(fd)


def _make(path: Path, *, is_folder: bool) -> int:
    if is_folder:
        path.mkdir(mode=0o700)
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        except BaseException:
            _remove(path, is_folder=True)
            raise
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)


def _remove(path: Path, *, is_folder: bool) -> None:
    with suppress(OSError):
        if is_folder:
            path.rmdir()
        else:
            path.unlink()


def is_claimed(path: Path) -> bool:
    """Whether the process that made it still lives. Raises OSError for what has gone."""
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remove_if_stale(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The name may mean another file by now; that one is not the one we locked.
        if is_same_file(fd, path):
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                _remove_tree(path)
            elif stat.S_ISREG(mode):
                path.unlink()
    finally:
        os.close(fd)


def is_same_file(fd: int, path: Path) -> bool:
    """Whether the name still means the open file. (The link count of a removed folder is not 0 everywhere.)"""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_tree(path: Path) -> None:
    import shutil  # pulls in the compressors; only a build gets here

    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    # An unpacked tree may have folders that even their owner may not change.
    for parent, names, _ in os.walk(path):
        for name in names:
            inner = Path(parent, name)
            if not inner.is_symlink():
                with suppress(OSError):
                    inner.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
