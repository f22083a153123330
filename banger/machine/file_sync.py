"""Files of the host that a new machine gets a copy of (`[[file_sync]]`), as entries of the tar that makes its disk.

Planning looks at the host, opens every file once, and never fails because of one: what cannot be taken is told to
`warn` and left out. Folders keep their modes, files have 0600 unless their entry says otherwise, links stay links and
are never followed; only what an entry names itself may be a link. Everything belongs to root.

What was planned is what is written, or writing fails: a file that has since become another, or has another size, is
CHANGED. New content of the same size is not noticed.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable
from banger.settings import FileSync
from pipelines.ext4 import Exactly

# What banger writes itself, and the folder around it, which sshd wants to be closed to others (sshd(8), StrictModes).
_AUTHORIZED_KEYS = ".ssh/authorized_keys"
_SSH = ".ssh"
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_LINK_MODE = 0o777
# A FIFO that has come in a file's place makes nobody wait.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LONGER_SO = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.ENXIO)

_LeaveOut = Callable[[Path, str], None]


class Kind(StrEnum):
    FOLDER = "folder"
    FILE = "file"
    SYMLINK = "symlink"


@dataclass(frozen=True)
class SyncedFile:
    """`guest_path` is relative to /root; `target` is where a link leads.

    A folder that `is_implied` is only there for what is in it: another folder of that path may take its place.
    """

    guest_path: str
    source: Path
    kind: Kind
    mode: int
    size_bytes: int
    mtime: int
    target: str = ""
    is_implied: bool = False


def plan_file_sync(entries: Sequence[FileSync], warn: Callable[[str], None]) -> list[SyncedFile]:
    """Everything that the entries give, folders before what is in them. Of two for one path the later counts."""
    found: dict[str, SyncedFile] = {}
    for number, entry in enumerate(entries, 1):

        def leave_out(path: Path, why: str, number: int = number) -> None:
            warn(f"file_sync[{number}]: {printable(str(path))} {why}; it is left out")

        for file in _walk(entry, leave_out):
            _put(found, file)
    return sorted(found.values(), key=lambda file: file.guest_path.split("/"))


def write_synced(tar: tarfile.TarFile, files: Sequence[SyncedFile]) -> None:
    """Stream what was planned into a tar. Raises CHANGED for what is no longer so, IO for what cannot be read."""
    for file in files:
        entry = tarfile.TarInfo(file.guest_path)
        entry.mode, entry.mtime = file.mode, file.mtime
        if file.kind is Kind.FILE:
            entry.size = file.size_bytes
            _write_content(tar, entry, file)
        else:
            entry.type = tarfile.DIRTYPE if file.kind is Kind.FOLDER else tarfile.SYMTYPE
            entry.linkname = file.target
            tar.addfile(entry)


def _walk(entry: FileSync, leave_out: _LeaveOut) -> Iterator[SyncedFile]:
    try:
        source = Path(os.path.realpath(entry.host, strict=True))
    except OSError as error:
        leave_out(entry.host, _explain(error))
        return
    left = [(source, entry.guest)]
    while left:
        path, guest_path = left.pop()
        if guest_path == _AUTHORIZED_KEYS:
            leave_out(path, "would take the place of banger's own")
            continue
        try:
            file = _look(path, guest_path, _FILE_MODE if entry.mode is None else entry.mode)
            inside = os.listdir(path) if file is not None and file.kind is Kind.FOLDER else []  # noqa: PTH208 - names
        except OSError as error:
            leave_out(path, _explain(error))
            continue
        if file is None:
            leave_out(path, "is neither file, folder nor link")
        elif guest_path == _SSH and file.kind is not Kind.FOLDER:
            leave_out(path, "is no folder, and ~/.ssh has to be one")
        else:
            yield file
            left += [(path / name, f"{guest_path}/{name}") for name in inside]


def _look(path: Path, guest_path: str, file_mode: int) -> SyncedFile | None:
    """What is there, not following links; None if that cannot be taken."""
    found = path.lstat()
    size_bytes, target = 0, ""
    if stat.S_ISLNK(found.st_mode):
        kind, mode, target = Kind.SYMLINK, _LINK_MODE, os.readlink(path)  # noqa: PTH115 - as it is written
    elif stat.S_ISDIR(found.st_mode):
        kind, mode = Kind.FOLDER, _FOLDER_MODE if guest_path == _SSH else stat.S_IMODE(found.st_mode)
    elif stat.S_ISREG(found.st_mode):
        # Only opening it shows that it can be read.
        os.close(os.open(path, _OPEN_FLAGS))
        kind, mode, size_bytes = Kind.FILE, file_mode, found.st_size
    else:
        return None
    return SyncedFile(guest_path, path, kind, mode, size_bytes, max(0, int(found.st_mtime)), target)


def _put(found: dict[str, SyncedFile], file: SyncedFile) -> None:
    """Take a file in, with the folders that it is in; what was there and cannot be beside it goes."""
    before = found.get(file.guest_path)
    if before is not None and before.kind is Kind.FOLDER and file.kind is not Kind.FOLDER:
        for path in [path for path in found if path.startswith(f"{file.guest_path}/")]:
            del found[path]
    found[file.guest_path] = file
    parent = file.guest_path.rpartition("/")[0]
    while parent and (parent not in found or found[parent].kind is not Kind.FOLDER):
        found[parent] = SyncedFile(parent, file.source, Kind.FOLDER, _FOLDER_MODE, 0, file.mtime, is_implied=True)
        parent = parent.rpartition("/")[0]


def _explain(error: OSError) -> str:
    return "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"


def _write_content(tar: tarfile.TarFile, entry: tarfile.TarInfo, file: SyncedFile) -> None:
    try:
        source = open(file.source, "rb", opener=lambda path, _flags: os.open(path, _OPEN_FLAGS))  # noqa: SIM115
    except OSError as error:
        raise _changed(file) if error.errno in _NO_LONGER_SO else _unreadable(file, error) from error
    with source:
        found = os.fstat(source.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
            raise _changed(file)
        content = Exactly(source, lambda: _changed(file), lambda error: _unreadable(file, error))
        tar.addfile(entry, content)
        content.expect_end()


def _changed(file: SyncedFile) -> BangerError:
    return BangerError(
        f"{printable(str(file.source))} has changed while it was copied",
        reason=Reason.CHANGED,
        hint="try again when nothing writes to it, or leave it out of file_sync",
    )


def _unreadable(file: SyncedFile, error: OSError) -> BangerError:
    return BangerError(f"cannot read {printable(str(file.source))}: {error.strerror}", reason=Reason.IO)
