"""One at a time: a lock on a machine for whoever starts, stops or deletes it, across processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from banger.errors import BangerError, Reason


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the machine whose folder this is. The kernel frees the lock of a process that died.

    Raises NOT_FOUND when there is no folder. Who waited may hold the folder of a machine that was deleted meanwhile:
    look at the record again.
    """
    with _open(folder) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def try_locked(folder: Path) -> Iterator[bool]:
    """As `locked`, but gives False at once when somebody else holds it."""
    with _open(folder) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _open(folder: Path) -> Iterator[int]:
    # A file beside the folder would outlive the machine; the folder itself can be locked as it is.
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BangerError("the machine was deleted meanwhile", reason=Reason.NOT_FOUND) from error
    try:
        yield fd
    finally:
        os.close(fd)
