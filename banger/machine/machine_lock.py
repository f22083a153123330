"""One at a time: a lock on a machine for whoever starts, stops or deletes it, across processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the machine whose folder this is. The kernel frees the lock of a process that died."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A file beside the folder would outlive the machine; the folder itself can be locked as it is.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
