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
    # A file beside the folder would outlive the machine; the folder itself can be locked as it is.
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BangerError("the machine was deleted meanwhile", reason=Reason.NOT_FOUND) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
