"""A machine's console log: what its guest printed, and its monitor. A guest writes it, so it is bounded.

When it has grown past a limit its end is kept beside it (`console.log.1`), and the file itself begins anew. The monitor
goes on writing to the same file, which it has open for appending: what it writes in that instant may be lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_LOG_BYTES = 16 << 20
_KEPT_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 16


def rotate_log(log: Path, max_bytes: int = MAX_LOG_BYTES, kept_bytes: int = _KEPT_BYTES) -> bool:
    """Whether there was enough to rotate."""
    try:
        with log.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= max_bytes:
                return False
            file.seek(size - kept_bytes)
            fresh = log.with_name(f"{log.name}.new")
            fresh.unlink(missing_ok=True)
            try:
                with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as old:
                    while block := file.read(_BLOCK_BYTES):
                        old.write(block)
                fresh.replace(_name_old(log))
            except OSError as error:
                # Where there is no room for the end, room is what is needed most.
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                fresh.unlink(missing_ok=True)
            file.truncate(0)
    except FileNotFoundError:
        return False
    return True


def read_log(log: Path, is_over: Callable[[], bool]) -> Iterator[bytes]:
    """All that is kept, block by block, then what comes, until `is_over` says so. An empty block: no more just now.

    The log may be rotated meanwhile, or be missing for a time.
    """
    position = 0
    with contextlib.suppress(FileNotFoundError):
        yield from _read(_name_old(log), 0)
    while True:
        # Asked before reading: what comes in between is read in the next turn, or in this one.
        ending = is_over()
        try:
            size = log.stat().st_size
            # It began anew.
            position = position if size >= position else 0
            for block in _read(log, position):
                position += len(block)
                yield block
        except FileNotFoundError:
            position = 0
        if ending:
            return
        yield b""


def _read(path: Path, position: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(position)
        while block := file.read(_BLOCK_BYTES):
            yield block


def _name_old(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")
