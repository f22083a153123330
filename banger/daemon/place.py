"""Where the daemon of a user is: its socket, its lock and its log."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.paths import Paths, ensure_private

_LONGEST_SOCKET_BYTES = 107  # unix(7): 108 with the NUL


@dataclass(frozen=True)
class Place:
    """`folder` is private (0700, ours, no link), so are the files in it (0600)."""

    folder: Path
    log: Path

    @classmethod
    def of(cls, paths: Paths) -> Place:
        return cls(paths.runtime, paths.state / "bangerd.log")

    @property
    def socket(self) -> Path:
        return self.folder / "bangerd.sock"

    def prepare(self) -> None:
        """Raises NO_PERMISSION for a folder that somebody else could have put there."""
        ensure_private(self.folder)
        ensure_private(self.log.parent)
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_BYTES:
            raise BangerError(
                f"{self.folder} is too long a path for sockets",
                reason=Reason.BAD_INPUT,
                hint="set XDG_RUNTIME_DIR to a shorter one",
            )

    def lock(self) -> int | None:
        """Be the one daemon here, for as long as the descriptor is open; None when there is one."""
        fd = os.open(self.folder / "bangerd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        return fd

    def find_holder(self) -> int | None:
        """The pid of the daemon that there is, whether or not it answers."""
        path = self.folder / "bangerd.lock"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(fd, 32)
            return int(text) if text.isdigit() else None
        finally:
            os.close(fd)
        return None
