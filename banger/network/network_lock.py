"""One at a time: a lock on the guests' network, for whoever attaches or detaches, across users and processes.

The file is root's alone: a user who could open it could hold it, and stop everybody. So whoever may change the
network without being root (by an ambient CAP_NET_ADMIN) goes on without it, as root does where `/run` cannot be
written. Not promised to them: that a `detach` leaves what another's `attach` does at the same moment. The loser's
guest can then send nothing, and is right again with the next `attach`; no TAP changes its owner by it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from banger.errors import BangerError, Reason

# Not below /run/lock, where anybody may write. The file stays: who waits for one that is removed waits for nothing.
_LOCK = Path("/run/banger-network.lock")
_NOT_OURS_TO_OPEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT})


@contextlib.contextmanager
def network_locked() -> Iterator[None]:
    """Hold the network. The kernel frees the lock of a process that died. Raises `BangerError` (io)."""
    fd = _find_lock()
    try:
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _find_lock() -> int | None:
    try:
        return os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _NOT_OURS_TO_OPEN:
            return None
        raise BangerError(
            f"cannot open {_LOCK}: {os.strerror(error.errno or 0)}",
            reason=Reason.IO,
            hint=f"look what it is: ls -l {_LOCK}",
        ) from error
