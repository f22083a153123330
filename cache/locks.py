"""One builder per key, across processes and threads: a flock on a file of its own.

Promised: the kernel drops the lock of a holder that dies, however it dies. Every acquirer opens the file itself, so the
threads of one process exclude each other too. Not reentrant: a thread that takes the same key twice waits for itself.

The holder writes {pid, what, since} into the file, so that those who wait can say for what. That is a courtesy: it may
be missing or late, and nothing is decided by it.

Waiting is polling, since a thread that sleeps in flock cannot be called off: neither Ctrl-C nor a failed sibling would
reach it. `gc` removes a lock file under its lock; acquirers notice and open the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from cache.failures import explained
from cache.files import make_folder
from cache.temporary import is_same_file
from cache.trace import Point, reach

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1
# A holder that has just locked has not written its name yet: so many looks until we say "somebody".
_LOOKS = 4


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, in its own words; None for what it did not (yet) say. `since` is in seconds since the epoch."""

    pid: int | None
    what: str
    since: float | None


class WaitAbandoned(BangerError):
    """The one who waited was told to stop. Nothing is wrong with the lock."""


@contextmanager
def hold(
    path: Path,
    what: str,
    on_wait: Callable[[Holder], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[None]:
    """Hold the lock `path`. `on_wait` is called at most once, `cancelled` between looks: True raises WaitAbandoned."""
    fd = _acquire(path, what, on_wait, cancelled)
    try:
        yield
    finally:
        _release(fd)


def _acquire(
    path: Path, what: str, on_wait: Callable[[Holder], None] | None, cancelled: Callable[[], bool] | None
) -> int:
    fd = _open(path)
    try:
        pause_s, looks = _FIRST_PAUSE_S, 0
        while not _try_lock(fd, path):
            if not is_same_file(fd, path):
                os.close(fd)
                fd = -1
                fd = _open(path)
                continue
            holder = _find_holder(fd)
            if cancelled is not None and cancelled():
                raise WaitAbandoned(f"gave up waiting for {_name(holder)}", reason=Reason.UNAVAILABLE)
            looks += 1
            if on_wait is not None and (holder is not None or looks >= _LOOKS):
                on_wait(holder or Holder(None, "", None))
                on_wait = None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        _write_holder(fd, what)
        reach(Point.LOCK_TAKEN)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return fd


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with explained("lock", path.parent):
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            make_folder(path.parent)
            return os.open(path, flags, 0o600)


def _try_lock(fd: int, path: Path) -> bool:
    """Locked, and the name still means this file: a lock on a removed one would exclude nobody."""
    with explained("lock", path.parent):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return is_same_file(fd, path)


def _release(fd: int) -> None:
    with suppress(OSError):
        os.ftruncate(fd, 0)
    # Closing is not enough: a forked child that has not yet started its program shares the descriptor.
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _write_holder(fd: int, what: str) -> None:
    with suppress(OSError):  # a full disk does not make the lock less held
        os.ftruncate(fd, 0)
        os.pwrite(fd, format_holder(what), 0)


def _find_holder(fd: int) -> Holder | None:
    try:
        return parse_holder(os.pread(fd, 4096, 0))
    except OSError:
        return None


def format_holder(what: str) -> bytes:
    """This process, and what it does."""
    return json.dumps({"pid": os.getpid(), "what": what, "since": time.time()}).encode()


def parse_holder(text: bytes) -> Holder | None:
    try:
        found = json.loads(text)
        return Holder(pid=int(found["pid"]), what=str(found["what"]), since=float(found["since"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def remove_if_free(path: Path) -> bool:
    """Remove a lock file that nobody holds."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        is_free = _try_lock(fd, path)
        if is_free:
            path.unlink()
        return is_free
    finally:
        os.close(fd)


def _name(holder: Holder | None) -> str:
    return f"process {holder.pid} ({holder.what})" if holder else "another process"
